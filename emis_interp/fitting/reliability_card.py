"""Turns labelled activations of one layer into the card that says how far a direction fitted on them can be trusted."""

from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from emis_interp.directions import cosine, top_dimensions_share
from emis_interp.errors import DataError
from emis_interp.fitting.extractors import Extractor, question_balanced
from emis_interp.fitting.geometry import massive_dimensions, share_in
from emis_interp.fitting.labeled import LabeledActivations
from emis_interp.fitting.length_baseline import length_baseline
from emis_interp.fitting.reliability import (
    auroc_estimate,
    bootstrap_directions,
    held_out_scores,
    leave_one_question_out,
    mean_auroc,
    shuffled_directions,
    split_half_cosine,
)
from emis_interp.stats.permutation import null_p


def reliability_card(
    data: LabeledActivations,
    layer: int,
    *,
    extractor: Extractor = question_balanced,
    n_draws: int = 200,
    seed: int = 0,
) -> dict[str, Any]:
    """What a reader needs before using a direction; cosines are between raw directions at `layer`.

    Args:
        data: with `lengths`.
        layer: row of `data.x`'s second axis.
        n_draws: of split halves, bootstrap and label permutations.

    Returns:
        `split_half_cosine` and `bootstrap_cosine` (drawn direction with the whole one): mean, 95 % low and high; the bootstrap is of the
            question-balanced difference, whatever the extractor.
        `norm_p`: share of label permutations whose direction is at least as long, (1 + k) / (1 + n), with `norm_p_at_floor` when it is
            the smallest that `norm_p_n` permutations can give.
        `held_out_auroc`: by question, direction fitted on the others; `mean` over questions with `low` and `high`. The layer is taken
            as given: where it was chosen on some of these questions, quote `selection.nested_leave_one_question_out` instead.
        `balance`: texts of each class by question; questions with one class play no part and are counted.
        `length`: mean tokens by class, the within-question AUROC of length alone (`auroc`; 0.5: no help), and the `length_baseline` of
            the projections that `held_out_auroc` is of.

    Raises:
        DataError: `data` has no lengths.
        `top5_dims_share` of the direction's squared norm, and `massive_dims_share`: in the five dimensions with the largest mean
            activation of the aligned texts.
    """
    if data.lengths is None:
        raise DataError(
            "a reliability card needs the length of every answer, in tokens; give LabeledActivations its `lengths`"
        )
    one, lengths = data.at([layer]), data.lengths
    whole = extractor(one)
    balanced = question_balanced(one)
    halves = split_half_cosine(one, n_draws, seed, extractor=extractor)[:, 0]
    drawn = cosine(bootstrap_directions(one, n_draws, seed)[:, 0], balanced[0]).numpy()
    shuffled = shuffled_directions(one, n_draws, seed, extractor=extractor)[:, 0].norm(dim=-1).numpy()
    longer = null_p(shuffled, float(whole[0].norm()))
    held_out = {name: float(value[0]) for name, value in leave_one_question_out(one, extractor).items()}
    estimate = auroc_estimate(held_out)
    kept, scores = held_out_scores(one, extractor)
    assert kept.lengths is not None
    massive = massive_dimensions(one.x[torch.from_numpy(~one.misaligned)].mean(0))
    n_questions = len(set(one.questions))
    return {
        "split_half_cosine": spread(halves),
        "bootstrap_cosine": spread(drawn),
        "norm": float(whole[0].norm()),
        "shuffled_norm": spread(shuffled),
        **{f"norm_{key}": value for key, value in longer.as_json().items()},
        "held_out_auroc": {
            "mean": estimate["value"],
            "low": estimate["low"],
            "high": estimate["high"],
            "by_question": held_out,
        },
        "balance": {
            "by_question": {name: {"misaligned": len(a), "aligned": len(b)} for name, (a, b) in one.cells.items()},
            "n_questions_with_one_class": n_questions - len(one.cells),
        },
        "length": {
            "mean_misaligned": float(lengths[one.misaligned].mean()),
            "mean_aligned": float(lengths[~one.misaligned].mean()),
            "auroc": float(mean_auroc(lengths, one.misaligned, one.questions)),
            "baseline": length_baseline(scores[0], kept.lengths, kept.misaligned, questions=kept.questions),
        },
        "top5_dims_share": top_dimensions_share(whole[0]),
        "massive_dims_share": float(share_in(whole, massive)[0]),
    }


def spread(values: Float[np.ndarray, "n"]) -> dict[str, float]:
    """Mean and 95 % percentile interval of draws."""
    low, high = np.percentile(values, [2.5, 97.5])
    return {"mean": float(values.mean()), "low": float(low), "high": float(high)}
