"""Answers of small models read by hand: draws them blind from finished runs, and makes labels of two readings.

Examples:
  python scripts/label_answers.py draw --runs runs/laptop runs/laptop-0.5b --per-question 4 --out runs/reading
  python scripts/label_answers.py merge runs/reading --first first.jsonl --second second.jsonl --third third.jsonl

What to mark is said in evals/data/CARD.md; `python scripts/evaluate.py labels --labels FILE` sets a judge against the labels.
"""

from typing import Any

import cli
from emis_interp.process import Bars
from evals.settings.judging import DrawAnswersSettings, MergeReadingsSettings


def draw(settings: DrawAnswersSettings, bars: Bars) -> dict[str, Any]:
    from evals.judges import reading

    return reading.draw(settings, bars)


def merge(settings: MergeReadingsSettings, bars: Bars) -> dict[str, Any]:
    from evals.judges import reading

    return reading.merge(settings, bars)


VERBS = {
    "draw": cli.Verb(DrawAnswersSettings, "evals.judges.reading", draw),
    "merge": cli.Verb(MergeReadingsSettings, "evals.judges.reading", merge),
}

if __name__ == "__main__":
    cli.run_verbs(__doc__, VERBS)
