"""Compares a finetuned model with its base without a judge: activations, logits and scaled weights, each read beside controls."""
