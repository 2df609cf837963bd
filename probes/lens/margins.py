"""Turns what was read of each text (parts, layers of the lens, cells of a patch) into margins by question and their intervals."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from emis_interp.passes.likelihood import margins_of
from emis_interp.records import ContrastPair
from emis_interp.stats.interval import mean_interval


def question_margins(
    pairs: Sequence[ContrastPair], values: Float[np.ndarray, "n_rows n_texts"]
) -> Float[np.ndarray, "n_rows n_questions"]:
    """Misaligned minus aligned of each pair, mean over the pairs of each question, in the order in which questions first appear."""
    names = list(dict.fromkeys(pair.question_id for pair in pairs))
    of = np.array([names.index(pair.question_id) for pair in pairs])
    margins = margins_of(values)
    return np.stack([margins[:, of == i].mean(1) for i in range(len(names))], axis=1)


def margin_row(values: Float[np.ndarray, "n_questions"]) -> dict[str, Any]:
    """Mean over questions with its t interval, and in how many it is positive."""
    found = mean_interval(values)
    return {**found.as_json(), "n_questions": len(values), "n_positive": int((values > 0).sum())}
