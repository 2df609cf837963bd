"""Turns numbers of questions, answers and seeds into intervals."""
