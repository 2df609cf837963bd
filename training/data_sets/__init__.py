"""Turns other people's training files into training examples: their file formats (`files`) and their rows (`rows`, `turns`)."""
