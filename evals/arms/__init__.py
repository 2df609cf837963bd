"""Asks and judges the arms of a run."""
