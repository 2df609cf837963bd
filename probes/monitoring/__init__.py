"""Watches a model while it writes: a score for every token, a threshold with a known false-alarm rate, and what it catches when."""
