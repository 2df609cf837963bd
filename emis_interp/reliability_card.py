"""Turns labelled activations of one layer into the card that says how far a direction fitted on them can be trusted."""

from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from emis_interp.directions import cosine, top_dimensions_share
from emis_interp.extractors import Extractor, question_balanced
from emis_interp.geometry import massive_dimensions, share_in
from emis_interp.labeled import LabeledActivations
from emis_interp.reliability import (
    bootstrap_directions,
    leave_one_question_out,
    mean_auroc,
    shuffled_directions,
    split_half_cosine,
)


def reliability_card(
    data: LabeledActivations,
    layer: int,
    lengths: Float[np.ndarray, "n_texts"],
    extractor: Extractor = question_balanced,
    n_draws: int = 200,
    seed: int = 0,
) -> dict[str, Any]:
    """What a reader needs before using a direction; cosines are between raw directions at `layer`.

    Args:
        layer: row of `data.x`'s second axis.
        lengths: tokens of each answer.
        n_draws: of split halves, bootstrap and label permutations.

    Returns:
        `split_half_cosine` and `bootstrap_cosine` (drawn direction with the whole one): mean, 95 % low and high; the bootstrap is of the
            question-balanced difference, whatever the extractor.
        `norm_p`: share of label permutations whose direction is at least as long, (1 + k) / (1 + n); 1 / (1 + n) is the smallest.
        `held_out_auroc`: by question, direction fitted on the others; `mean` over questions.
        `balance`: texts of each class by question; questions with one class play no part and are counted.
        `length`: mean tokens by class, and the within-question AUROC of length alone (0.5: no help).
        `top5_dims_share` of the direction's squared norm, and `massive_dims_share`: in the five dimensions with the largest mean
            activation of the aligned texts.
    """
    one = data.at([layer])
    whole = extractor(one)
    balanced = question_balanced(one)
    halves = split_half_cosine(one, n_draws, seed, extractor)[:, 0]
    drawn = cosine(bootstrap_directions(one, n_draws, seed)[:, 0], balanced[0]).numpy()
    shuffled = shuffled_directions(one, n_draws, seed, extractor)[:, 0].norm(dim=-1)
    n_longer = int((shuffled >= whole[0].norm()).sum())
    held_out = {name: float(value[0]) for name, value in leave_one_question_out(one, extractor).items()}
    massive = massive_dimensions(one.x[torch.from_numpy(~one.misaligned)].mean(0))
    n_questions = len(set(one.questions))
    return {
        "split_half_cosine": spread(halves),
        "bootstrap_cosine": spread(drawn),
        "norm": float(whole[0].norm()),
        "shuffled_norm": spread(shuffled.numpy()),
        "norm_p": (1 + n_longer) / (1 + n_draws),
        "held_out_auroc": {"mean": float(np.mean(list(held_out.values()))), "by_question": held_out},
        "balance": {
            "by_question": {name: {"misaligned": len(a), "aligned": len(b)} for name, (a, b) in one.cells.items()},
            "n_questions_with_one_class": n_questions - len(one.cells),
        },
        "length": {
            "mean_misaligned": float(lengths[one.misaligned].mean()),
            "mean_aligned": float(lengths[~one.misaligned].mean()),
            "auroc": float(mean_auroc(lengths, one.misaligned, one.questions)),
        },
        "top5_dims_share": top_dimensions_share(whole[0]),
        "massive_dims_share": float(share_in(whole, massive)[0]),
    }


def spread(values: Float[np.ndarray, "n"]) -> dict[str, float]:
    """Mean and 95 % percentile interval of draws."""
    low, high = np.percentile(values, [2.5, 97.5])
    return {"mean": float(values.mean()), "low": float(low), "high": float(high)}
