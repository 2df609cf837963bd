"""Sparse autoencoders of the residual stream: loading, training, measuring."""
