"""What gives an answer its scores: by log-probabilities or text of a chat API, by a local model, or offline."""
