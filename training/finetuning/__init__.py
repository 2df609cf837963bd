"""Turns rows into an adapter: encoding, trainer, callbacks, cards."""
