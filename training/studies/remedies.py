"""Turns a direction and strengths into the remedies that are compared: what holds while an organism trains, and when it is used."""

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

from emis_interp.directions import Direction
from emis_interp.errors import ConfigError
from emis_interp.files.text import number_name
from emis_interp.models.chat_model import ChatModel
from emis_interp.passes.effects import Ablation, Around, Steering

UNTREATED, CONTROL = "untreated", "control"


@dataclass(frozen=True)
class Remedy:
    """One row of the table. `during` holds in training passes, `after` when the organism is measured."""

    name: str
    rows: str = "task"
    during: Around | None = None
    after: Around | None = None
    realign: bool = False

    @property
    def folder(self) -> str:
        return self.name.replace(" ", "_").replace(":", "").replace("+", "plus_").replace("-", "minus_")


def planned(direction: Direction, coefficients: Sequence[float]) -> list[Remedy]:
    """All remedies.

    Raises:
        ConfigError: a coefficient stands there twice, or is no finite number other than 0.
    """
    for c in coefficients:
        if not math.isfinite(c) or c == 0 or coefficients.count(c) > 1:
            raise ConfigError(f"--coefficients {c}: each is a finite number other than 0 and stands there once")

    return [
        Remedy(UNTREATED),
        Remedy(CONTROL, rows="control"),
        *(Remedy(f"steer {number_name(c, '+g')}", during=Steering(direction, c)) for c in coefficients),
        Remedy("ablate", during=Ablation(direction)),
        Remedy("inoculate", rows="inoculated"),
        Remedy("mix", rows="mixed"),
        Remedy("realign", realign=True),
        Remedy("after: ablate", after=Ablation(direction)),
        *(Remedy(f"after: steer {number_name(-c, '+g')}", after=Steering(direction, -c)) for c in coefficients),
    ]


def wanted(name: str, only: Sequence[str] | None) -> bool:
    return only is None or name in (UNTREATED, CONTROL) or any(name.startswith(prefix) for prefix in only)


def untouched(_: ChatModel) -> AbstractContextManager[None]:
    return nullcontext()
