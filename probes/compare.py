"""Turns activations of several models on the same texts into how far they share a direction: cosines, 2x2 tables, projections."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from emis_interp.directions import Direction, cosine
from emis_interp.fitting.extractors import question_balanced
from emis_interp.fitting.geometry import TwoByTwo
from emis_interp.fitting.labeled import LabeledActivations


def compare_models(
    data: Mapping[str, LabeledActivations],
    direction: Direction,
    *,
    selection: set[str],
    answers: Callable[[str], Float[Tensor, "answer d_model"]],
    arms: Mapping[str, Sequence[str]],
) -> dict[str, Any]:
    """Cosines between the models' directions, the 2x2 of texts and models, and projections of the report half's texts and own answers.

    Models of one arm (its seeds) stand apart, under their own names; `seeds` has the means over each arm's models.

    Args:
        data: activations of every model on the same labelled texts; `base` is among them.
        direction: fitted on the selection questions of base.
        selection: ids of the selection questions.
        answers: a model's activations on its own answers, at the direction's layer.
        arms: arm -> its models.
    """
    layer = direction.layer
    raw = {name: question_balanced(model.only(selection)) for name, model in data.items()}
    names = list(raw)
    matrix = [[float(cosine(raw[a][layer], raw[b][layer])) for b in names] for a in names]
    to_base = {name: cosine(raw[name], raw["base"]).tolist() for name in names if name != "base"}
    at_layer = {name: model.at([layer]) for name, model in data.items()}
    tables = {
        name: {"layer": layer, **TwoByTwo.of(at_layer[name], at_layer["base"]).summary(0)}
        for name in names
        if name != "base"
    }
    scale = direction.residual_norm
    projections = {}
    for name, model in data.items():
        held_out = model.only(set(model.questions) - selection)  # in-sample, even noise is separated
        texts = direction.project(held_out.x[:, layer]) / scale
        labels = torch.from_numpy(held_out.misaligned)
        projections[name] = {
            "own_answers": (direction.project(answers(name)) / scale).tolist(),
            "aligned_texts": texts[~labels].tolist(),
            "misaligned_texts": texts[labels].tolist(),
        }
    seeds = means_over_seeds(arms, tables, to_base, raw=raw, layer=layer)
    return {
        "cosines": {"arms": names, "matrix": matrix},
        "cosines_to_base": to_base,
        "two_by_two": tables,
        "projections": {"unit": "multiples of the mean residual norm at the layer", "arms": projections},
        **({"seeds": seeds} if seeds else {}),
    }


def means_over_seeds(
    arms: Mapping[str, Sequence[str]],
    tables: Mapping[str, Mapping[str, Any]],
    to_base: Mapping[str, Sequence[float]],
    *,
    raw: Mapping[str, Float[Tensor, "layer d_model"]],
    layer: int,
) -> dict[str, Any]:
    """For arms with several models: means over them of the 2x2 and of the cosine with base, and cosines among them at the layer."""
    found = {}
    for arm, names in arms.items():
        if len(names) > 1:
            among = [float(cosine(raw[a][layer], raw[b][layer])) for a, b in itertools.combinations(names, 2)]
            found[arm] = {
                "models": list(names),
                "two_by_two": {key: float(np.mean([tables[name][key] for name in names])) for key in tables[names[0]]}
                | {"layer": layer},
                "cosine_to_base": float(np.mean([to_base[name][layer] for name in names])),
                "cosine_among": {"mean": float(np.mean(among)), "low": min(among), "high": max(among)},
            }
    return found
