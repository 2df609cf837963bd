"""Fits directions of texts and says what they are worth: layer by effect, transfer to judged answers, the page."""
