"""From activations and labels to a direction with its reliability: extractors, controls, selection of the layer."""
