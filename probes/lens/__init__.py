"""Reads through the model's own head: the logit lens, what each part adds to the margin, and which activations carry it."""
