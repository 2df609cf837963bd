"""Turns a direction, strengths and control directions into the remedies that are compared: what holds while an organism trains, and when
it is used."""

import hashlib
import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float
from torch import Tensor

from emis_interp.directions import Direction
from emis_interp.errors import ConfigError
from emis_interp.files.text import number_name
from emis_interp.fitting.reliability import random_directions
from emis_interp.models.chat_model import ChatModel
from emis_interp.passes.effects import Ablation, Around, Steering
from emis_interp.passes.interventions import Ablate, Rescale, apply

UNTREATED, CONTROL = "untreated", "control"
RANDOM, SUBSPACE = "random", "subspace"
"""Kinds of control of a remedy: random directions in the place of its own, or a subspace that usage-matched ones span."""
SUBSPACE_DIMS = 8
"""Dimensions that the subspaces beside `ablate` have."""
PERSONA = "persona"


@dataclass(frozen=True)
class Remedy:
    """One row of the table. `during` holds in training passes, `after` when the organism is measured.

    `control_of` names the remedy that this one is a control of, and `kind` says in what (`RANDOM`, `SUBSPACE`).
    """

    name: str
    rows: str = "task"
    during: Around | None = None
    after: Around | None = None
    realign: bool = False
    control_of: str | None = None
    kind: str | None = None

    @property
    def folder(self) -> str:
        return (
            self.name.replace(" ", "_").replace(":", "").replace("+", "plus_").replace("-", "minus_").replace(",", "")
        )

    @property
    def facts(self) -> dict[str, str]:
        """What a control or the persona subspace acts along, by its hash: along something else it is made again."""
        acts = self.during or self.after
        if isinstance(acts, SubspaceScaling):
            along = acts.basis
        elif self.control_of is not None and isinstance(acts, Steering | Ablation):
            along = acts.direction.vector
        else:
            return {}
        return {"along": hashlib.sha256(along.float().contiguous().numpy().tobytes()).hexdigest()}


@dataclass(frozen=True)
class SubspaceScaling:
    """The coordinates in a subspace are held at zero everywhere in the residual stream, or multiplied.

    Attributes:
        basis: vectors that span it, which need not be orthogonal.
        factor: 0 ablates, above 1 amplifies (`interventions.Rescale`).
    """

    basis: Float[Tensor, "k d_model"]
    factor: float = 0.0

    def __call__(self, chat_model: ChatModel) -> AbstractContextManager[None]:
        return apply(chat_model, Ablate(self.basis) if self.factor == 0 else Rescale(self.basis, self.factor))


def planned(
    direction: Direction,
    coefficients: Sequence[float],
    *,
    usage_matched: Float[Tensor, "n d_model"] | None = None,
    n_random: int = 0,
    persona: Float[Tensor, "rank d_model"] | None = None,
    factors: Sequence[float] = (),
) -> list[Remedy]:
    """All remedies, and the random controls of those that act along the direction while the organism trains.

    Args:
        usage_matched: unit vectors of which the controls are made (kind `orthogonal` of `control_directions`): as large a part of natural
            variation as texts have, and none of it along the direction.
        n_random: controls of each kind.
        persona: basis of the persona subspace (`persona_subspace`); None leaves its remedies out.
        factors: by which what is written into that subspace is multiplied when the untreated organism is used, besides 0.

    Raises:
        ConfigError: a coefficient or factor stands there twice, is not finite, or is the one that does nothing (0; for a factor 1, and 0,
            which is there anyway); or more controls than there are vectors.
    """
    for c in coefficients:
        if not math.isfinite(c) or c == 0 or coefficients.count(c) > 1:
            raise ConfigError(f"--coefficients {c}: each is a finite number other than 0 and stands there once")

    for factor in factors:
        if not math.isfinite(factor) or factor in (0, 1) or factors.count(factor) > 1:
            raise ConfigError(
                f"--persona-factors {factor}: each is a finite number other than 0 (which is there anyway) and 1, and stands there once"
            )
    n_vectors = 0 if usage_matched is None else len(usage_matched)
    if n_random < 0 or n_random > n_vectors:
        raise ConfigError(
            f"--n-random {n_random}: the direction was saved with {n_vectors} usage-matched directions; give 0 to {n_vectors}"
        )
    vectors = () if usage_matched is None else usage_matched[:n_random]

    def along(name: str, during: Steering | Ablation) -> list[Remedy]:
        others = [replace(during, direction=replace(direction, vector=vector)) for vector in vectors]
        controls = [
            Remedy(f"{name}, {RANDOM} {i}", during=other, control_of=name, kind=RANDOM)
            for i, other in enumerate(others, 1)
        ]
        return [Remedy(name, during=during), *controls]

    def scaled_controls(
        name: str, drawn: Mapping[str, Sequence[Tensor]], factor: float = 0.0, *, in_use: bool = False
    ) -> list[Remedy]:
        """The same with other subspaces, by their kind."""
        return [
            scaled(f"{name}, {kind} {i}", basis, factor, in_use=in_use, control_of=name, kind=kind)
            for kind, bases in drawn.items()
            for i, basis in enumerate(bases, 1)
        ]

    def of_persona(basis: Tensor) -> list[Remedy]:
        rank, width = basis.shape
        drawn = {
            RANDOM: list(random_directions(n_random, rank, width)),
            SUBSPACE: drawn_subspaces(usage_matched, n_random, rank),
        }
        found = [scaled(PERSONA, basis), *scaled_controls(PERSONA, drawn)]
        for factor in (0.0, *factors):
            name = f"after: {PERSONA}" + ("" if factor == 0 else f" x{number_name(factor, 'g')}")
            found += [scaled(name, basis, factor, in_use=True), *scaled_controls(name, drawn, factor, in_use=True)]
        return found

    return [
        Remedy(UNTREATED),
        Remedy(CONTROL, rows="control"),
        *(remedy for c in coefficients for remedy in along(f"steer {number_name(c, '+g')}", Steering(direction, c))),
        *along("ablate", Ablation(direction)),
        *scaled_controls("ablate", {SUBSPACE: drawn_subspaces(usage_matched, n_random, SUBSPACE_DIMS)}),
        *([] if persona is None else of_persona(persona)),
        Remedy("inoculate", rows="inoculated"),
        Remedy("mix", rows="mixed"),
        Remedy("realign", realign=True),
        Remedy("after: ablate", after=Ablation(direction)),
        *(Remedy(f"after: steer {number_name(-c, '+g')}", after=Steering(direction, -c)) for c in coefficients),
    ]


def scaled(
    name: str,
    basis: Float[Tensor, "k d_model"],
    factor: float = 0.0,
    *,
    in_use: bool = False,
    control_of: str | None = None,
    kind: str | None = None,
) -> Remedy:
    """A remedy that scales a subspace, in training or when the untreated organism is used."""
    acts = SubspaceScaling(basis, factor)
    return Remedy(
        name,
        during=None if in_use else acts,
        after=acts if in_use else None,
        control_of=control_of,
        kind=kind,
    )


def drawn_subspaces(
    usage_matched: Float[Tensor, "n d_model"] | None, n: int, size: int
) -> list[Float[Tensor, "k d_model"]]:
    """`n` sets of at most `size` of the vectors, drawn without putting any back within a set."""
    if usage_matched is None:
        return []
    generator = np.random.default_rng(0)
    size = min(size, len(usage_matched))
    return [usage_matched[generator.choice(len(usage_matched), size=size, replace=False)] for _ in range(n)]


def wanted(name: str, only: Sequence[str] | None) -> bool:
    return only is None or name in (UNTREATED, CONTROL) or any(name.startswith(prefix) for prefix in only)


def untouched(_: ChatModel) -> AbstractContextManager[None]:
    return nullcontext()
