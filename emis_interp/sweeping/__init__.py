"""Turns one configuration and the fields that are varied of it into runs, one process each, here or wherever Ray finds room for them."""
