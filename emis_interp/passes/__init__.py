"""What runs a model: batches, capture, likelihood, generation, edits and interventions, sweeps."""
