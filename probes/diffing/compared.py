"""Turns an organism, its controls and plain texts into what every reading of the difference starts from: means, spreads, random vectors."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from emis_interp.fitting.reliability import random_directions
from emis_interp.models.chat_model import ChatModel
from emis_interp.models.lora_updates import LoraUpdate
from emis_interp.process import Bars
from probes.diffing.differences import mean_difference_of, random_differences, residuals
from probes.diffing.settings import DiffSettings
from probes.diffing.texts import PlainTexts


@dataclass(frozen=True)
class Compared:
    """Residuals of the first tokens of plain texts at one layer.

    Attributes:
        states: base's; differences: of every arm from them, the organism first.
        means: of every arm's differences, behind the first position.
        residual_norm: mean norm of base's residuals, behind the first position.
        nulls: kind -> unit vectors: `random`, isotropic; `random differences`, of base's residuals on two texts.
    """

    layer: int
    states: Float[Tensor, "n_texts n_tokens d_model"]
    differences: dict[str, Float[Tensor, "n_texts n_tokens d_model"]]
    means: dict[str, Float[Tensor, "d_model"]]
    residual_norm: float
    nulls: dict[str, Float[Tensor, "n d_model"]]

    @property
    def controls(self) -> list[str]:
        """Names of the arms behind the organism."""
        return list(self.means)[1:]


def compare(
    settings: DiffSettings,
    base: ChatModel,
    arms: Mapping[str, Sequence[LoraUpdate]],
    *,
    layer: int,
    texts: PlainTexts,
    bars: Bars,
) -> Compared:
    """Read the texts in base and in every arm.

    Raises:
        DataError: an arm that changes nothing at the layer.
    """
    with bars("differences", 1 + len(arms)) as advance:
        states = torch.stack(residuals(base, texts.chats, layer, max_batch_tokens=settings.max_batch_tokens))
        advance(1)
        differences = {}
        for name, updates in arms.items():
            own = residuals(base, texts.chats, layer, updates=updates, max_batch_tokens=settings.max_batch_tokens)
            differences[name] = torch.stack(own) - states
            advance(1)
    n, seed = settings.n_random, settings.seed
    nulls = {
        "random": random_directions(n, 1, base.d_model, seed=seed)[:, 0],
        "random differences": random_differences(states, n, seed=seed),
    }
    means = {name: mean_difference_of(own) for name, own in differences.items()}
    return Compared(layer, states, differences, means, float(states[:, 1:].norm(dim=-1).mean()), nulls)
