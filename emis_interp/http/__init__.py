"""Turns requests to chat servers into replies, without hanging and without leaking a key."""
