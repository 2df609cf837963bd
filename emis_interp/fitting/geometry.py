"""Turns four mean activations, {organism, base} x {misaligned, aligned text}, into effects, norms and cosines at every layer.

A direction found in an organism's activations may belong to the text (the base model reading it moves the same way) or to the model
(it moves whatever it reads). Only the 2x2 tells these apart. A few massive dimensions can carry much of an effect: quote cosines with
and without them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from emis_interp.directions import cosine
from emis_interp.errors import DataError
from emis_interp.fitting.extractors import Extractor, question_balanced
from emis_interp.fitting.labeled import LabeledActivations
from emis_interp.fitting.reliability import bootstrap_directions

LEAST_DRAWS = 0.9
"""Share of bootstrap draws that must give a value, else there is no interval: what is left would be the easier draws."""


@dataclass(frozen=True)
class TwoByTwo:
    """Mean activations `[n_layers, d_model]`, residual-stream units; both models read the same two sets of texts."""

    organism_misaligned: Float[Tensor, "n_layers d_model"]
    organism_aligned: Float[Tensor, "n_layers d_model"]
    base_misaligned: Float[Tensor, "n_layers d_model"]
    base_aligned: Float[Tensor, "n_layers d_model"]

    def __post_init__(self) -> None:
        shapes = {name: tuple(value.shape) for name, value in vars(self).items()}
        if len(set(shapes.values())) != 1:
            raise DataError(f"the four means of a 2x2 differ in shape: {shapes}")

    @classmethod
    def of(cls, organism: LabeledActivations, base: LabeledActivations) -> "TwoByTwo":
        """Question-balanced class means of two models on the same texts."""
        if organism.questions != base.questions or not np.array_equal(organism.misaligned, base.misaligned):
            raise DataError("organism and base read different texts; capture both on the same file")
        means = []
        for data in (organism, base):
            for side in (0, 1):
                means.append(torch.stack([data.x[rows[side]].mean(0) for rows in data.cells.values()]).mean(0))
        return cls(*means)

    @property
    def effects(self) -> dict[str, Float[Tensor, "n_layers d_model"]]:
        """The seven differences, each `[n_layers, d_model]`.

        text_in_organism, text_in_base: misaligned minus aligned text, read by one model; text: their mean. model_on_misaligned,
        model_on_aligned: organism minus base on one set of texts; model: their mean. interaction: half of text_in_organism minus
        text_in_base, the part of the organism's text effect that finetuning added.
        """
        text_organism = self.organism_misaligned - self.organism_aligned
        text_base = self.base_misaligned - self.base_aligned
        model_misaligned = self.organism_misaligned - self.base_misaligned
        model_aligned = self.organism_aligned - self.base_aligned
        return {
            "text": (text_organism + text_base) / 2,
            "model": (model_misaligned + model_aligned) / 2,
            "interaction": (text_organism - text_base) / 2,
            "text_in_organism": text_organism,
            "text_in_base": text_base,
            "model_on_misaligned": model_misaligned,
            "model_on_aligned": model_aligned,
        }

    def norms(self) -> dict[str, Float[Tensor, "n_layers"]]:
        """Norm of each effect per layer, residual-stream units."""
        return {name: effect.norm(dim=-1) for name, effect in self.effects.items()}

    def cosines(self) -> dict[tuple[str, str], Float[Tensor, "n_layers"]]:
        """Cosine of every pair of effects per layer.

        (text_in_organism, text_in_base) near 1 says that the organism's direction is a property of the text; (model, text) near 0
        says that what finetuning changed is not that direction.
        """
        effects = self.effects
        return {(a, b): cosine(effects[a], effects[b]) for a, b in combinations(effects, 2)}

    def massive_shares(self, n_top: int = 5) -> dict[str, Float[Tensor, "n_layers"]]:
        """Share of each effect's squared norm in the massive dimensions of the layer (organism, aligned text)."""
        top = massive_dimensions(self.organism_aligned, n_top)
        return {name: share_in(effect, top) for name, effect in self.effects.items()}

    def without(self, dimensions: Int[Tensor, "n_layers n_top"]) -> "TwoByTwo":
        """The same means with some coordinates of each layer set to zero, so that they play no part in any effect."""
        return TwoByTwo(*(mean.scatter(-1, dimensions, 0.0) for mean in vars(self).values()))

    def without_massive(self, n_top: int = 5) -> "TwoByTwo":
        """`without` the massive dimensions of the organism on aligned text, those of `massive_shares`."""
        return self.without(massive_dimensions(self.organism_aligned, n_top))

    def summary(self, layer: int) -> dict[str, float]:
        """What a table shows of one layer; norms in residual-stream units.

        text effect: mean over models; model effect: mean over texts; interaction as in `effects`. `cos_text_organism_base`, near 1, says
        that the organism's direction is a property of the text; `cos_text_organism_base_rest` is the same without the massive dimensions.
        """
        effects = {name: effect[layer] for name, effect in self.effects.items()}
        rest = {name: effect[layer] for name, effect in self.without_massive().effects.items()}
        return {
            "text_effect_norm": float(effects["text"].norm()),
            "model_effect_norm": float(effects["model"].norm()),
            "interaction_norm": float(effects["interaction"].norm()),
            "cos_text_organism_base": float(cosine(effects["text_in_organism"], effects["text_in_base"])),
            "cos_text_organism_base_rest": float(cosine(rest["text_in_organism"], rest["text_in_base"])),
            "cos_model_text": float(cosine(effects["model"], effects["text"])),
        }


def massive_dimensions(mean: Float[Tensor, "n_layers d_model"], n_top: int = 5) -> Int[Tensor, "n_layers n_top"]:
    """The dimensions with the largest |mean activation| of each layer (`massive activations`, Sun et al. 2024)."""
    return mean.float().abs().topk(min(n_top, mean.shape[-1]), dim=-1).indices


def share_in(
    vectors: Float[Tensor, "n_layers d_model"], dimensions: Int[Tensor, "n_layers n_top"]
) -> Float[Tensor, "n_layers"]:
    """Share of the squared norm that lies in the given dimensions, 0 to 1."""
    squares = vectors.float().square()
    return squares.gather(-1, dimensions).sum(-1) / squares.sum(-1)


def cosine_matrix(
    data: Mapping[str, LabeledActivations], layer: int, n_bootstrap: int = 200, *, seed: int = 0
) -> dict[tuple[str, str], tuple[float, float, float]]:
    """Cosine between the question-balanced directions of every two models at one layer, with a 95 % percentile bootstrap interval.

    All models must have read the same texts: a draw takes the same questions and texts in all of them. Noise pulls the drawn
    cosines below the value, so the interval leans low; it speaks of the spread, not of a bias-corrected value.
    """
    first = next(iter(data.values()))
    for name, other in data.items():
        if other.questions != first.questions or not np.array_equal(other.misaligned, first.misaligned):
            raise DataError(f"{name} read other texts than {next(iter(data))}; capture all models on the same file")
    drawn = {name: bootstrap_directions(one.at([layer]), n_bootstrap, seed)[:, 0] for name, one in data.items()}
    whole = {name: question_balanced(one.at([layer]))[0] for name, one in data.items()}
    result = {}
    for a, b in combinations(data, 2):
        low, high = np.percentile(cosine(drawn[a], drawn[b]).numpy(), [2.5, 97.5])
        result[a, b] = (float(cosine(whole[a], whole[b])), float(low), float(high))
    return result


def extractor_cosines(
    data: LabeledActivations, extractors: Mapping[str, Extractor], n_bootstrap: int = 50, *, seed: int = 0
) -> dict[tuple[str, str], tuple[float, float | None, float | None]]:
    """Cosine between what every two extractors find in the same texts, with a 95 % percentile bootstrap interval.

    `data` holds one layer. A draw takes questions with replacement, then texts of each class within them; all extractors see the same
    draw. The bounds are None without draws, and where fewer than nine draws of ten leave both extractors enough texts. As in
    `cosine_matrix`, the interval speaks of the spread.
    """
    generator = np.random.default_rng(seed)
    cells = list(data.cells.values())
    draws = [data]
    for _ in range(n_bootstrap):
        rows, questions = [], []
        for place, index in enumerate(generator.integers(len(cells), size=len(cells))):
            for part in cells[index]:
                rows.append(generator.choice(part, size=len(part)))
                questions += [str(place)] * len(part)
        drawn = np.concatenate(rows)
        draws.append(LabeledActivations(data.x[torch.from_numpy(drawn)], data.misaligned[drawn], tuple(questions)))
    found = {
        name: [_extracted(extract, one, number) for number, one in enumerate(draws)]
        for name, extract in extractors.items()
    }
    result: dict[tuple[str, str], tuple[float, float | None, float | None]] = {}
    for a, b in combinations(found, 2):
        both = [
            (one, other) for one, other in zip(found[a], found[b], strict=True) if one is not None and other is not None
        ]
        values = [float(cosine(one, other)) for one, other in both]
        enough = n_bootstrap and len(both) - 1 >= n_bootstrap * LEAST_DRAWS
        bounds = [float(bound) for bound in np.percentile(values[1:], [2.5, 97.5])] if enough else [None, None]
        result[a, b] = (values[0], bounds[0], bounds[1])
    return result


def _extracted(extract: Extractor, data: LabeledActivations, number: int) -> Float[Tensor, "d_model"] | None:
    """What an extractor finds at the one layer; None where a draw (number 1 and later) leaves it too little, say no question with two
    texts of a class."""
    try:
        return extract(data)[0]
    except DataError:
        if number == 0:
            raise
        return None
