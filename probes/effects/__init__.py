"""What steering along a direction and ablating it does, and what it costs, beside controls."""
