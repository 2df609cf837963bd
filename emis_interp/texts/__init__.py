"""Turns shipped files, rules and plain text into texts with a kind: harmless prompts, items with a certain answer, code or prose."""
