"""Turns a saved direction (or probe) into a scorer of tokens: the one thing that a monitor asks for.

Any object with `layer` and `score` is a scorer. A kind that has a file of its own gets a line in `LOADERS`. An attention probe reads whole
answers and is none.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from emis_interp.directions import Direction, FitName, FittedOn, direction_file, unit
from emis_interp.errors import DataError, ModelError
from emis_interp.files.store import card_path, read_sealed
from emis_interp.models.chat_model import ChatModel
from probes.classifiers.probe import LinearProbe, load_probe, probe_file


@runtime_checkable
class TokenScorer(Protocol):
    """Scores single residuals of one layer (`resid_post`); larger is more misaligned.

    `score` takes residuals of any dtype on any device and gives its scores there, and treats every token by itself.
    """

    @property
    def layer(self) -> int: ...

    def score(self, residuals: Float[Tensor, "... d_model"]) -> Float[Tensor, "..."]: ...


@dataclass(frozen=True, repr=False)
class DirectionScorer:
    """The coordinate along a direction, in multiples of the mean residual norm of its layer (0 where the direction has none of it).

    Computed in float32, or in float64 for residuals of that precision.
    """

    direction: Direction
    _held: dict[tuple[torch.device, torch.dtype], Tensor] = field(default_factory=dict, init=False, compare=False)

    @property
    def layer(self) -> int:
        return self.direction.layer

    def score(self, residuals: Float[Tensor, "... d_model"]) -> Float[Tensor, "..."]:
        exact = torch.promote_types(residuals.dtype, torch.float32)
        place = residuals.device, exact
        if place not in self._held:
            if residuals.shape[-1] != len(self.direction.vector):
                raise ModelError(
                    f"the direction has d_model {len(self.direction.vector)}, the residuals {residuals.shape[-1]}; they are of different "
                    "models"
                )
            with torch.inference_mode(False):  # what is kept must serve gradients too
                scaled = self.direction.vector.double() / self.direction.residual_norm
                self._held[place] = scaled.to(exact).to(residuals.device)
        return residuals.to(exact) @ self._held[place]

    def __repr__(self) -> str:
        return f"DirectionScorer(layer {self.layer}, {len(self.direction.vector)} dimensions)"


Loader = Callable[[Path, FitName], TokenScorer]


def _direction(path: Path, fit: FitName) -> TokenScorer:
    return DirectionScorer(Direction.load(path, fit=fit))


def _linear_probe(path: Path, fit: FitName) -> TokenScorer:
    probe = load_probe(path)
    assert isinstance(probe, LinearProbe)
    return probe


LOADERS: dict[str, Loader] = {"direction": _direction, "linear": _linear_probe}
"""`kind` on the card of a saved scorer -> what loads it; a card that names no kind is a direction's."""


def load_scorer(path: Path, fit: FitName = "all") -> TokenScorer:
    """A saved scorer by its folder, stem or file.

    Args:
        fit: of a direction: `selection` for what is reported on texts of the report half.

    Raises:
        DataError: there is none, it is damaged, or its kind is not known here.
    """
    kind = card_of(path).get("kind", "direction")
    if kind not in LOADERS:
        raise DataError(
            f"{path}: a scorer of kind `{kind}`, known are {', '.join(sorted(LOADERS))}; add a loader to LOADERS"
        )
    return LOADERS[kind](path, fit)


def card_of(path: Path) -> dict[str, Any]:
    """The card beside a saved scorer: the model that it is of, and how it reads texts. Empty where there is none."""
    files = (direction_file(path), probe_file(path))
    card = card_path(next((file for file in files if file.exists()), files[0]))
    return read_sealed(card) if card.exists() else {}


def fitted_on(scorer: TokenScorer) -> FittedOn | None:
    """The questions behind a scorer; None where it does not say."""
    return scorer.direction.fitted_on if isinstance(scorer, DirectionScorer) else getattr(scorer, "fitted_on", None)


def check_scorer(scorer: TokenScorer, chat_model: ChatModel) -> None:
    """Refuse a scorer of another model: a layer that is not there, or another width.

    Raises:
        ModelError: with both numbers.
    """
    chat_model.check_layers([scorer.layer])
    scorer.score(torch.zeros(1, chat_model.d_model, device=chat_model.device))


def scorer_sha256(scorer: TokenScorer, d_model: int) -> str:
    """A hash by which a threshold knows its scorer again: of its layer and of its scores of fixed residuals (4 digits)."""
    drawn = torch.randn(8, d_model, generator=torch.Generator().manual_seed(0))
    found = [f"{value:.4e}" for value in scorer.score(drawn).tolist()]
    return hashlib.sha256(" ".join([str(scorer.layer), *found]).encode()).hexdigest()


def direction_of(scorer: TokenScorer, residuals: Float[Tensor, "n_tokens d_model"]) -> Float[Tensor, "d_model"]:
    """The unit vector along which a scorer's mean score of these residuals rises fastest (its own, for a linear one).

    Raises:
        ModelError: the scorer cannot be differentiated.
    """
    with torch.inference_mode(False), torch.enable_grad():
        leaf = residuals.detach().clone().float().requires_grad_()
        total = scorer.score(leaf).sum()
        if not total.requires_grad:
            raise ModelError(
                f"{scorer!r} gives scores without a gradient; steering against it needs one (compute it with torch)"
            )
        [gradient] = torch.autograd.grad(total, leaf)
    return unit(gradient.mean(0).cpu())
