"""Takes adapters apart: what they weigh, what they write, which parts of them carry the margin, and what they share with a control's."""
