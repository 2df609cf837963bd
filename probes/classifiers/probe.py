"""Turns weights into a frozen probe: a score in log-odds of one residual or of a whole answer, saved as tensors with a card.

A larger score is more misaligned; 0 is even odds where both classes are equally frequent.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from emis_interp.directions import FittedOn
from emis_interp.errors import DataError, ModelError
from emis_interp.files.damage import naming_damage
from emis_interp.files.store import card_path
from emis_interp.files.tensors import load_tensors, save_tensors, saved_file, saved_places, tensors_file

STEM = "probe"
"""Name of a probe in the folder that is its own."""
_OWN = {"kind", "layer", "position", "bias", "hook_point", "sign", "tensors", "sha256"}


@dataclass(frozen=True, repr=False)
class LinearProbe:
    """A weighted sum of one residual.

    Attributes:
        weight: `[d_model]`, float32, log-odds per residual-stream unit.
        bias: log-odds.
        layer: decoder block whose output (`resid_post`) is read.
        position: which tokens were averaged where it was fitted.
        card: where it comes from and how far it can be trusted (model, texts, method, figures, controls).
    """

    weight: Float[Tensor, "d_model"]
    bias: float
    layer: int
    position: str = "response_mean"
    card: dict[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        method = self.card.get("method", "given")
        return f"{type(self).__name__}: layer {self.layer}, {len(self.weight)} dimensions, {self.position}, {method}"

    @property
    def fitted_on(self) -> FittedOn | None:
        """The questions whose texts had a part in the weights; None where the card does not say."""
        if "fitted_wordings" not in self.card:
            return None
        return FittedOn(tuple(self.card.get("fitted_questions", ())), frozenset(self.card["fitted_wordings"]))

    def score(self, residuals: Float[Tensor, "... d_model"]) -> Float[Tensor, "..."]:
        """Log-odds of each residual, in float32, or in float64 for residuals of that precision; larger is more misaligned.

        Raises:
            ModelError: residuals of another width.
        """
        _check_width(residuals, len(self.weight))
        exact = torch.promote_types(residuals.dtype, torch.float32)
        return residuals.to(exact) @ self.weight.to(residuals.device, exact) + self.bias

    def save(self, path: Path | str) -> None:
        """Write `path`.safetensors and its card `path`.json."""
        _save(self, path, "linear", tensors={"weight": self.weight})


@dataclass(frozen=True, repr=False)
class AttentionProbe:
    """One attention head over the tokens of an answer: it learns which tokens to read.

    The score is `sum_t softmax_t(query . x_t) (value . x_t) + bias`; the scale and offset of the residuals are folded into both vectors.

    Attributes:
        query: `[d_model]`, float32; its product with a residual is the logit of that token's weight.
        value: `[d_model]`, float32, log-odds per residual-stream unit.
        bias, layer, card: as of `LinearProbe`.
    """

    query: Float[Tensor, "d_model"]
    value: Float[Tensor, "d_model"]
    bias: float
    layer: int
    position: str = "response_tokens"
    card: dict[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"{type(self).__name__}: layer {self.layer}, {len(self.query)} dimensions, {self.position}"

    def score(self, residuals: Float[Tensor, "... n_tokens d_model"]) -> Float[Tensor, "..."]:
        """Log-odds of each whole sequence; larger is more misaligned. Padding must be cut off before.

        Raises:
            ModelError: residuals of another width, or no token.
        """
        _check_width(residuals, len(self.query))
        if residuals.dim() < 2 or residuals.shape[-2] == 0:
            raise ModelError(
                "an attention probe reads whole answers [n_tokens, d_model] of at least one token; LinearProbe reads single ones"
            )
        x = residuals.float()
        weights = (x @ self.query.to(x.device)).softmax(-1)
        return (weights * (x @ self.value.to(x.device))).sum(-1) + self.bias

    def save(self, path: Path | str) -> None:
        """Write `path`.safetensors and its card `path`.json."""
        _save(self, path, "attention", tensors={"query": self.query, "value": self.value})


_SIGN = {"hook_point": "resid_post", "sign": "log-odds of misaligned"}
_TENSORS = {"linear": {"weight"}, "attention": {"query", "value"}}


def _save(probe: "LinearProbe | AttentionProbe", path: Path | str, kind: str, *, tensors: dict[str, Tensor]) -> None:
    own = {"kind": kind, "bias": probe.bias, "layer": probe.layer, "position": probe.position}
    save_tensors(tensors_file(Path(path)), tensors, {**probe.card, **own, **_SIGN})


def load_probe(path: Path | str) -> LinearProbe | AttentionProbe:
    """Read what `save` wrote, named by its folder, its stem or one of its two files.

    Raises:
        DataError: no such file, a damaged one, or one that holds no probe.
    """
    file = probe_file(path)
    if not file.exists():
        places = " or ".join(map(str, saved_places(path, STEM)))
        raise DataError(
            f"{path}: no saved probe; looked for {places}. Give what probe.py fit saved: the folder, the stem or the file"
        )
    tensors, card = load_tensors(file)
    kind = card.get("kind")
    if kind not in _TENSORS or set(tensors) != _TENSORS[kind] or not {"layer", "bias", "position"} <= card.keys():
        raise DataError(
            f"{path}: not a probe (expected `kind` linear or attention, layer, bias and position on its card, and its tensors; found kind "
            f"{kind!r} and {sorted(tensors)}); a saved direction is read by Direction.load"
        )
    rest = {key: value for key, value in card.items() if key not in _OWN}
    with naming_damage(card_path(file), "fit the probe again"):
        place = (float(card["bias"]), int(card["layer"]), str(card["position"]), rest)
    if kind == "linear":
        return LinearProbe(tensors["weight"].float(), *place)
    return AttentionProbe(tensors["query"].float(), tensors["value"].float(), *place)


def probe_file(path: Path | str) -> Path:
    """The tensors of a saved probe (`saved_file`)."""
    return saved_file(path, STEM)


def _check_width(residuals: Tensor, d_model: int) -> None:
    if residuals.shape[-1] != d_model:
        raise ModelError(
            f"probe has d_model {d_model}, residuals have {residuals.shape[-1]}; they are of different models"
        )
