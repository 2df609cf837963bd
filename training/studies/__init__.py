"""What a study computes about organisms: dynamics, foresight, prevention."""
