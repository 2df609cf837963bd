"""Activations with effects that are known: what tests of directions and of the 2x2 must find again."""

import numpy as np
import torch

from emis_interp.fitting.geometry import TwoByTwo
from emis_interp.fitting.labeled import LabeledActivations

D = 12


def arm(direction: torch.Tensor, questions: str, offset: float = 0.0, seed: int = 0) -> LabeledActivations:
    """Ten texts per class and question, whose misaligned ones are moved along `direction`; all are moved by `offset` along axis 0."""
    generator = torch.Generator().manual_seed(seed)
    labels = np.array([True, False] * 10 * len(questions))
    x = (
        0.3 * torch.randn(len(labels), 2, D, generator=generator)
        + torch.from_numpy(labels).float()[:, None, None] * direction
    )
    x[:, :, 0] += offset
    return LabeledActivations(x, labels, tuple(name for name in questions for _ in range(20)))


def axis(i: int) -> torch.Tensor:
    return 2 * torch.eye(D)[i]


def axes() -> TwoByTwo:
    """Text moves along axis 0 in both models, the model along axis 1 on all text, and only the organism adds axis 2 on misaligned text."""
    e = torch.eye(4)
    base = torch.tensor([[0.0, 0, 0, 7.0]])
    return TwoByTwo(base + 2 * e[0] + 3 * e[1] + 4 * e[2], base + 3 * e[1], base + 2 * e[0], base)


def padded(table: TwoByTwo) -> TwoByTwo:
    """The same effects beside five dimensions that are large in every text."""
    return TwoByTwo(*(torch.cat([mean, torch.full((1, 5), 100.0).to(mean)], dim=1) for mean in vars(table).values()))
