"""Turns parts and sums of adapters, added to one base model, into likelihood margins: layers off and alone, ranks, differences."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from emis_interp.errors import ConfigError
from emis_interp.models.chat import encode_prompt
from emis_interp.models.chat_model import ChatModel
from emis_interp.models.lora_updates import LoraUpdate, combined
from emis_interp.passes.interventions import mean_kl, next_token_logprobs
from emis_interp.passes.likelihood import by_question, margins_at, pair_margins, paired_difference
from emis_interp.passes.low_rank import adding
from emis_interp.records import ContrastPair
from emis_interp.stats.flattening import TEMPERATURES, describe, flattening
from emis_interp.stats.interval import mean_row
from emis_interp.texts.harmless import harmless_prompts

ByQuestion = Mapping[str, float]


@dataclass(frozen=True)
class MarginReader:
    """Reads the margin of the report questions from a base model under updates of its weights.

    Attributes:
        advance: called after each reading.
    """

    base: ChatModel
    pairs: Sequence[ContrastPair]
    system: str | None
    max_batch_tokens: int
    advance: Callable[[int], None]

    def under(self, updates: Sequence[LoraUpdate]) -> dict[str, float]:
        """By question, nats per token."""
        with adding(self.base, updates):
            found = pair_margins(self.base, self.pairs, self.system, max_batch_tokens=self.max_batch_tokens)
        self.advance(1)
        return by_question(self.pairs, found)

    def at_temperatures(self) -> dict[float, dict[str, float]]:
        """Of base with its logits divided by each temperature: what a mere flattening brings."""
        found = margins_at(
            self.base, self.pairs, TEMPERATURES, system=self.system, max_batch_tokens=self.max_batch_tokens
        )
        return {t: by_question(self.pairs, row) for t, row in zip(TEMPERATURES, found, strict=True)}

    def kl(self, updates: Sequence[LoraUpdate]) -> float:
        """KL(base || updated) of what comes next after harmless prompts, nats."""
        prompts = [encode_prompt(self.base.tokenizer, text, self.system) for text in harmless_prompts()]
        plain = next_token_logprobs(self.base, prompts)
        with adding(self.base, updates):
            return mean_kl(plain, next_token_logprobs(self.base, prompts))


def shift_row(after: ByQuestion, before: ByQuestion) -> dict[str, Any]:
    """Difference of two readings with its interval over questions, and in how many it is positive."""
    difference = paired_difference(after, before)
    return {**mean_row(difference), "n_positive": sum(value > 0 for value in difference.values())}


def layer_groups(updates: Sequence[LoraUpdate], together: int) -> list[tuple[int, ...]]:
    """The adapted layers in groups of neighbours.

    Raises:
        ConfigError: groups of fewer than one layer.
    """
    if together < 1:
        raise ConfigError(f"layers_together is {together}; switch 1 layer or more at once")
    layers = sorted({update.layer for update in updates})
    return [tuple(layers[i : i + together]) for i in range(0, len(layers), together)]


def switched(
    margins: MarginReader,
    updates: Sequence[LoraUpdate],
    groups: Sequence[tuple[int, ...]],
    *,
    base: ByQuestion,
    whole: ByQuestion,
) -> list[dict[str, Any]]:
    """Each group of layers, and each kind of module, switched off, and on alone.

    Args:
        base, whole: margins without the adapter and with all of it.

    Returns:
        `off`: margin without the part minus that of the whole adapter, negative where the part makes the organism more misaligned;
        `alone`: margin of the part alone minus base.
    """
    parts: list[tuple[str, list[int], Callable[[LoraUpdate], bool]]] = [
        (_named(group), list(group), lambda update, group=group: update.layer in group) for group in groups
    ]
    kinds = list(dict.fromkeys(update.module for update in updates))
    for name, own in (("writes to the stream", True), ("reads from it", False)):
        if any(update.writes == own for update in updates) and any(update.writes != own for update in updates):
            parts.append((name, [], lambda update, own=own: update.writes == own))
    if len(kinds) > 1:
        attention = [
            kind for kind in kinds if any(update.module == kind and "attn" in update.path for update in updates)
        ]
        if attention and len(attention) < len(kinds):
            parts.append(("attention", [], lambda update: update.module in attention))
            parts.append(("MLP", [], lambda update: update.module not in attention))
    rows = []
    for name, layers, chosen in parts:
        with_it, without_it = ([one for one in updates if chosen(one) == wanted] for wanted in (True, False))
        rows.append(
            {
                "name": name,
                "layers": layers,
                "off": shift_row(margins.under(without_it), whole),
                "alone": shift_row(margins.under(with_it), base),
            }
        )
    return rows


def n_parts(updates: Sequence[LoraUpdate], groups: Sequence[tuple[int, ...]]) -> int:
    """An upper bound on the parts that `switched` reads, for progress."""
    return len(groups) + 4


def arithmetic(
    margins: MarginReader,
    organism: Sequence[LoraUpdate],
    control: Sequence[LoraUpdate] | None,
    *,
    base: ByQuestion,
    ranks: Sequence[int] = (),
) -> dict[str, Any]:
    """Margins of base plus sums of updates: the organism, cut to small ranks, subtracted, its control, and their difference.

    Every cell has its shift against base with an interval over questions, its flattening (slope and intercept of its margins on base's and
    a temperature-matched base) and its KL divergence on harmless prompts. `beyond_sum` is (organism minus control) against the difference
    of the two shifts, 0 if weights added up in the margin.
    """
    cells: dict[str, list[LoraUpdate]] = {"organism": list(organism), "minus organism": combined([(-1.0, organism)])}
    for rank in ranks:
        cells[f"organism, rank {rank}"] = [update.truncated(rank) for update in organism]
    if control is not None:
        cells["control"] = list(control)
        cells["organism minus control"] = combined([(1.0, organism), (-1.0, control)])
        cells["control minus organism"] = combined([(-1.0, organism), (1.0, control)])
    at = margins.at_temperatures()
    found = {name: margins.under(updates) for name, updates in cells.items()}
    result: dict[str, Any] = {
        "cells": [
            {
                "name": name,
                "shift": shift_row(found[name], base),
                "flattening": describe(flattening(found[name], base, at)),
                "kl": margins.kl(updates),
            }
            for name, updates in cells.items()
        ]
    }
    if control is not None:
        sides = {name: paired_difference(own, base) for name, own in found.items()}
        parts = {q: sides["organism"][q] - sides["control"][q] for q in base}
        result["organism_against_control"] = shift_row(found["organism"], found["control"])
        result["beyond_sum"] = mean_row({q: sides["organism minus control"][q] - parts[q] for q in base})
    return result


def _named(group: Sequence[int]) -> str:
    return f"layer {group[0]}" if len(group) == 1 else f"layers {group[0]}-{group[-1]}"
