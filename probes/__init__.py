"""Finds directions in activations, tests what they do, and hands them to other tools."""
