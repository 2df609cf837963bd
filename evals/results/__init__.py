"""Reads judged answers of any origin: our runs, Inspect logs, tables of other people."""
