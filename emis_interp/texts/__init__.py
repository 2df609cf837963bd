"""Turns texts into what a reader would call them: code or prose."""
