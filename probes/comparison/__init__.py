"""What base, organisms and their controls share: margins, transfer of directions, the 2x2 of text and model."""
