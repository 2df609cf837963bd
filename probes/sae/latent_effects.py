"""Turns latents into directions, and those into what steering, ablating or zeroing each does to the margin, beside latents as active."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Float
from torch import Tensor

from emis_interp.directions import Direction, FittedOn, unit, wording_key
from emis_interp.models.chat_model import ChatModel
from emis_interp.models.lora_updates import LoraUpdate
from emis_interp.passes.interventions import edit_outputs
from emis_interp.passes.likelihood import by_question, pair_margins
from emis_interp.passes.low_rank import adding
from emis_interp.passes.sweeps import AblateCell, Cell, SteerCell, margins
from emis_interp.records import ContrastPair
from emis_interp.stats.interval import mean_row
from emis_interp.stats.permutation import null_p
from probes.sae.dictionary import Dictionary
from probes.sae.latent_comparison import null_range
from probes.sae.latent_texts import LatentTexts

Kind = Literal["steer", "ablate", "zero"]


def latent_direction(
    dictionary: Dictionary, latent: int, *, residual_norm: float, texts: LatentTexts | None = None
) -> Direction:
    """A latent as a `Direction`: its unit decoder vector at the dictionary's layer.

    It points where the latent writes, which need not be misaligned; steering with a positive coefficient adds what the latent adds.

    Args:
        residual_norm: mean norm of single tokens' residuals at that layer, the unit of coefficients.
        texts: those that it was chosen on, so that `check_unseen` knows the selection questions.
    """
    row = dictionary.decoder[latent].float().cpu()
    card = {"model": dictionary.model, "latent": latent, "sae": dictionary.card.get("source")}
    return Direction(
        unit(row), dictionary.layer, float(row.norm()), residual_norm, "all_tokens", card, _fitted_on(texts)
    )


def _fitted_on(texts: LatentTexts | None) -> FittedOn | None:
    if texts is None:
        return None
    rows = zip(texts.texts, texts.halves, strict=True)
    wordings = {wording_key(question) for (question, _), half in rows if half == "selection"}
    return FittedOn(tuple(texts.names("selection")), frozenset(wordings))


def zero_latent(chat_model: ChatModel, dictionary: Dictionary, latent: int) -> AbstractContextManager[None]:
    """Within the block, the latent's own contribution is taken out of the residual at its layer: h - f(h) d, and nothing else.

    Unlike `ablate`, it does nothing where the latent does not fire, keeps the sign of what is removed, and does not reach other layers.

    Raises:
        ModelError: a dictionary of another width or layer than the model has.
    """
    dictionary.check_model(chat_model, other_model=True)
    row = dictionary.decoder[latent]

    def edit(residual: Float[Tensor, "batch position d_model"]) -> Float[Tensor, "batch position d_model"]:
        fired = dictionary.encode(residual.float())[..., latent, None]
        return residual - (fired * row).to(residual)

    return edit_outputs(chat_model, [dictionary.layer], edit)


@dataclass(frozen=True)
class EffectReader:
    """What effects are measured with.

    Attributes:
        arms: name of a model -> its updates on base.
        residual_norm: of base at the dictionary's layer.
        others: latents that stand beside the chosen ones.
        advance: called after each intervention.
    """

    base: ChatModel
    dictionary: Dictionary
    arms: Mapping[str, Sequence[LoraUpdate]]
    pairs: Sequence[ContrastPair]
    residual_norm: float
    others: Sequence[int]
    system: str | None = None
    max_batch_tokens: int = 2048
    advance: Callable[[int], None] = lambda n: None

    def effects(
        self, kind: Kind, arm: str, latents: Sequence[int], *, coefficients: Sequence[float] = ()
    ) -> list[dict[str, Any]]:
        """A `LatentEffect` of each latent in one model.

        Args:
            coefficients: of steering, one for each latent; the others get the size of the first.
        """
        every = [*latents, *self.others]
        strengths = (
            [*coefficients, *(abs(coefficients[0]) for _ in self.others)] if coefficients else [0.0] * len(every)
        )
        with adding(self.base, self.arms[arm]):
            before = self._margins()
            after = [self._zeroed(j) for j in every] if kind == "zero" else self._cells(kind, every, strengths)
        shifts = [by_question(self.pairs, one - before) for one in after]
        null = np.array([np.mean(list(one.values())) for one in shifts[len(latents) :]])
        rows = []
        for j, strength, shift in zip(latents, strengths, shifts, strict=False):
            row = mean_row(shift)
            rows.append(
                {
                    "latent": j,
                    "arm": arm,
                    "kind": kind,
                    "coefficient": strength if kind == "steer" else None,
                    "shift": {**row, "n_positive": sum(value > 0 for value in shift.values())},
                    "others": null_range(null, null_p(null, row["value"], "both")),
                }
            )
        return rows

    def _margins(self) -> Float[np.ndarray, "n_pairs"]:
        return pair_margins(self.base, self.pairs, self.system, max_batch_tokens=self.max_batch_tokens)

    def _zeroed(self, latent: int) -> Float[np.ndarray, "n_pairs"]:
        with zero_latent(self.base, self.dictionary, latent):
            found = self._margins()
        self.advance(1)
        return found

    def _cells(
        self, kind: Kind, latents: Sequence[int], strengths: Sequence[float]
    ) -> Float[np.ndarray, "n_cells n_pairs"]:
        along = [latent_direction(self.dictionary, j, residual_norm=self.residual_norm) for j in latents]
        cells: list[Cell] = [
            SteerCell(one, strength) if kind == "steer" else AblateCell(one.vector)
            for one, strength in zip(along, strengths, strict=True)
        ]
        return margins(
            self.base,
            cells,
            self.pairs,
            system=self.system,
            max_batch_tokens=self.max_batch_tokens,
            progress=self.advance,
        )


def nearest_in_activity(
    activity: Float[np.ndarray, "n_latents"], chosen: Sequence[int], n: int, *, avoid: Sequence[int] = ()
) -> list[int]:
    """The n latents whose activity is nearest, as a ratio, to that of one of the chosen ones, nearest first: usage-matched controls.

    Args:
        activity: mean activation x decoder norm of every latent; those without any are never taken.
        avoid: latents that are not taken, such as others that changed.
    """
    pool = np.setdiff1d(np.flatnonzero(activity > 0), [*chosen, *avoid])
    own = np.log(np.maximum(activity[list(chosen)], np.finfo(float).tiny))
    distance = np.abs(np.log(activity[pool])[:, None] - own).min(1)
    return [int(j) for j in pool[np.argsort(distance, kind="stable")[:n]]]
