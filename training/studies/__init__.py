"""Studies of organisms while they form, before they form, and under remedies: what is computed, and each study as a whole."""
