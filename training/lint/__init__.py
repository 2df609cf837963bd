"""Says what is wrong with a training set before it is trained on."""
