"""The stages of a run that read its models: margins, activations, the direction, and what intervening on it does."""
