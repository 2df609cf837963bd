"""Turns directions of many layers into one: dropped by what ablating them costs, ranked by what steering along them does.

`measure` runs the model, `choose` is the rule, `CausalRule` is both for a fit. Arditi et al. (2024, section 2.3 and appendix C)
choose refusal directions so: by effect, among candidates whose ablation moves harmless text by less than 0.1 nats.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float

from emis_interp.directions import Direction
from emis_interp.errors import DataError
from emis_interp.models.chat import encode_prompt
from emis_interp.models.chat_model import ChatModel
from emis_interp.passes.capture import Progress
from emis_interp.passes.likelihood import by_question
from emis_interp.passes.sweeps import AblateCell, SteerCell, costs, margins
from emis_interp.process import Bars, no_bars
from emis_interp.records import ContrastPair
from emis_interp.stats.interval import mean_row
from emis_interp.texts.harmless import harmless_prompts
from probes.settings import KL_LIMIT
from probes.texts import in_half

RULE = (
    "Layers where ablating the direction moves the next token of harmless prompts by more than {kl_limit:g} nats are dropped; of the "
    "others the one where steering moves the likelihood margin most is chosen, among equals the one that costs less."
)


@dataclass(frozen=True)
class Candidate:
    """One layer's direction.

    Attributes:
        auroc: leave-one-question-out on the selection questions, 0 to 1; shown, not ranked by.
        kl: mean KL(untouched || ablated everywhere) of the next token of harmless prompts, nats.
        effect: half of (margin at +c minus margin at -c), mean over the selection questions, nats per token; larger is more causal.
    """

    layer: int
    auroc: float
    kl: float
    effect: float


@dataclass(frozen=True)
class Choice:
    """The chosen candidate, the reason for each one that was dropped (by layer; who merely lost is not in it), and the rule in words.

    `note` warns of a winner whose steering does not raise the margin; it is empty otherwise.
    """

    chosen: Candidate
    candidates: tuple[Candidate, ...]
    dropped: dict[int, str]
    rule: str
    note: str = ""


def choose(candidates: Sequence[Candidate], kl_limit: float = KL_LIMIT) -> Choice:
    """The candidate with the largest effect among those that cost at most `kl_limit` nats.

    Raises:
        DataError: no candidates, or all are dropped; it names the smallest KL found.
    """
    if not candidates:
        raise DataError("no candidate layers to choose from; widen the layer range")
    # "not <=" also drops what is not a number.
    dropped = {
        row.layer: f"ablating it costs {row.kl:.3g} nats, limit {kl_limit:g}"
        for row in candidates
        if not row.kl <= kl_limit
    }
    kept = [row for row in candidates if row.layer not in dropped]
    if not kept:
        cheapest = min(candidates, key=lambda row: row.kl)
        raise DataError(
            f"all {len(candidates)} candidate layers are dropped: the smallest KL of an ablation is {cheapest.kl:.3g} nats, at layer "
            f"{cheapest.layer}, and the limit is {kl_limit:g}; raise the limit, widen the layer range, or choose by AUROC alone"
        )
    chosen = max(kept, key=lambda row: (row.effect, -row.kl))
    note = "" if chosen.effect > 0 else f"no kept layer raises the margin; the largest effect is {chosen.effect:+.3g}"
    return Choice(chosen, tuple(candidates), dropped, RULE.format(kl_limit=kl_limit), note)


def measure(
    chat_model: ChatModel,
    directions: Sequence[Direction],
    aurocs: Sequence[float],
    *,
    pairs: Sequence[ContrastPair],
    harmless: Sequence[Sequence[int]],
    coefficient: float,
    system: str | None = None,
    max_batch_tokens: int = 2048,
    progress: Progress | None = None,
) -> list[Candidate]:
    """Cost of ablating and effect of steering for one direction of every candidate layer.

    Args:
        pairs: of the selection questions.
        harmless: prompts, token ids.
        coefficient: c > 0, multiples of each layer's mean residual norm.
        progress: called with the number of directions just finished.
    """
    effects = steering_effects(
        chat_model,
        directions,
        pairs,
        coefficient=coefficient,
        system=system,
        max_batch_tokens=max_batch_tokens,
        progress=progress,
    )
    kl = costs(chat_model, [AblateCell(one.vector) for one in directions], harmless)
    return [
        Candidate(one.layer, float(auroc), float(cost), float(np.mean(list(effect.values()))))
        for one, auroc, cost, effect in zip(directions, aurocs, kl, effects, strict=True)
    ]


def steering_effects(
    chat_model: ChatModel,
    directions: Sequence[Direction],
    pairs: Sequence[ContrastPair],
    *,
    coefficient: float,
    system: str | None = None,
    max_batch_tokens: int = 2048,
    progress: Progress | None = None,
) -> list[dict[str, float]]:
    """For each direction, by question: half of (margin at +c minus margin at -c), nats per token.

    The two signs cancel what any push of that length does to the margin.
    """
    cells = [SteerCell(one, sign * coefficient) for one in directions for sign in (1, -1)]
    found = margins(
        chat_model,
        cells,
        pairs,
        system=system,
        max_batch_tokens=max_batch_tokens,
        progress=None if progress is None else lambda n: progress(n // 2),
    )
    return [by_question(pairs, (plus - minus) / 2) for plus, minus in zip(found[0::2], found[1::2], strict=True)]


@dataclass
class CausalRule:
    """Chooses a layer for `find_direction` by what steering does on the selection questions; `card` says how, once it has chosen.

    Attributes:
        pairs: of both halves.
        coefficient: of the steering, multiples of the mean residual norm; positive.
        kl_limit: nats; layers where ablating costs more are dropped.
    """

    chat_model: ChatModel
    pairs: Sequence[ContrastPair]
    coefficient: float = 0.2
    kl_limit: float = KL_LIMIT
    system: str | None = None
    max_batch_tokens: int = 2048
    bars: Bars = no_bars
    choice: Choice | None = field(default=None, init=False)

    def __call__(self, candidates: Sequence[Direction], aurocs: Float[np.ndarray, "n_layers"]) -> int:
        """Index of the winner among directions fitted on the selection questions."""
        pairs = in_half(self.pairs, "selection")
        prompts = [encode_prompt(self.chat_model.tokenizer, text, self.system) for text in harmless_prompts()]
        with self.bars("select", len(candidates)) as advance:
            rows = measure(
                self.chat_model,
                candidates,
                aurocs.tolist(),
                pairs=pairs,
                harmless=prompts,
                coefficient=self.coefficient,
                system=self.system,
                max_batch_tokens=self.max_batch_tokens,
                progress=advance,
            )
        self.choice = choose(rows, self.kl_limit)
        return self.choice.candidates.index(self.choice.chosen)

    def card(self, direction: Direction) -> dict[str, Any]:
        """How the layer was chosen, every candidate's numbers, and the winner's effect on the report questions.

        `direction` is the winner's fit on the selection questions.
        """
        if self.choice is None:
            raise RuntimeError("a layer is chosen first")
        effect = steering_effects(
            self.chat_model,
            [direction],
            in_half(self.pairs, "report"),
            coefficient=self.coefficient,
            system=self.system,
            max_batch_tokens=self.max_batch_tokens,
        )[0]
        return {
            "by": "causal",
            "rule": self.choice.rule,
            "note": self.choice.note,
            "coefficient": self.coefficient,
            "kl_limit": self.kl_limit,
            "n_pairs": len(in_half(self.pairs, "selection")),
            "candidates": [
                {**asdict(row), "dropped": self.choice.dropped.get(row.layer)} for row in self.choice.candidates
            ],
            "report_effect": mean_row(effect),
        }
