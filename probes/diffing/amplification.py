"""Turns an adapter times several factors into margins, costs and readable tokens: does an organism that hides at 1 show itself at 3?"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from emis_interp.errors import ConfigError
from emis_interp.models.chat import EncodedChat, encode_prompt
from emis_interp.models.chat_model import ChatModel
from emis_interp.models.lora_updates import LoraUpdate, combined
from emis_interp.passes.interventions import mean_kl, next_token_logprobs
from emis_interp.passes.likelihood import logprobs_and_entropies
from emis_interp.passes.low_rank import adding
from emis_interp.stats.flattening import describe, flattening
from emis_interp.stats.interval import mean_interval
from emis_interp.texts.harmless import harmless_prompts
from probes.weights.switching import ByQuestion, MarginReader, shift_row

N_PROMPTS = 24
"""Harmless prompts, evenly drawn, on which the KL of every cell is measured."""
Arms = Mapping[str, Sequence[LoraUpdate]]


def all_scales(scales: Sequence[float]) -> list[float]:
    """The factors asked for and 1, rising.

    Raises:
        ConfigError: a factor of 0, which is base, or one that is not finite.
    """
    if any(scale == 0 or not np.isfinite(scale) for scale in scales):
        raise ConfigError(f"scales are {', '.join(map(str, scales))}; 0 is base itself, give other finite factors")
    return sorted({*map(float, scales), 1.0})


def amplified(
    margins: MarginReader,
    arms: Arms,
    scales: Sequence[float],
    *,
    own: Sequence[EncodedChat],
    unrelated: Sequence[EncodedChat],
) -> dict[str, Any]:
    """Every arm's updates times every scale, read without sampling.

    Args:
        arms: the organism first, then its controls.
        own: finetune-like texts; may be empty.

    Returns:
        `cells`: shift of the margin against base with its flattening, KL on harmless prompts, changes of cross-entropy against base on both
        kinds of text and of the entropy on unrelated text (nats per token); `contrasts`: at each scale the organism's margin minus each
        control's at the same scale, paired by question.
    """
    base = margins.under([])
    at = margins.at_temperatures()
    plain = _entropies(margins.base, [], [*own, *unrelated], max_batch_tokens=margins.max_batch_tokens)
    asked = harmless_prompts()
    prompts = [encode_prompt(margins.base.tokenizer, asked[i * len(asked) // N_PROMPTS]) for i in range(N_PROMPTS)]
    untouched = next_token_logprobs(margins.base, prompts)
    found: dict[tuple[str, float], ByQuestion] = {}
    cells = []
    for name, updates in arms.items():
        for scale in scales:
            scaled = combined([(scale, updates)])
            found[name, scale] = margins.under(scaled)
            losses, entropies = _entropies(
                margins.base, scaled, [*own, *unrelated], max_batch_tokens=margins.max_batch_tokens
            )
            with adding(margins.base, scaled):
                kl = mean_kl(untouched, next_token_logprobs(margins.base, prompts))
            change, widening = losses - plain[0], entropies - plain[1]
            cells.append(
                {
                    "arm": name,
                    "scale": scale,
                    "shift": shift_row(found[name, scale], base),
                    "flattening": describe(flattening(found[name, scale], base, at)),
                    "kl": kl,
                    "finetune_like": mean_interval(change[: len(own)]).as_json(),
                    "unrelated": mean_interval(change[len(own) :]).as_json(),
                    "entropy": mean_interval(widening[len(own) :]).as_json(),
                }
            )
    organism, *controls = arms
    contrasts = [
        {"scale": scale, "control": control, **shift_row(found[organism, scale], found[control, scale])}
        for scale in scales
        for control in controls
    ]
    return {"cells": cells, "contrasts": contrasts, "verdict": seen_from(contrasts, scales)}


def seen_from(contrasts: Sequence[Mapping[str, Any]], scales: Sequence[float]) -> str:
    """At which scales the organism's margin lies above every control's, the interval over questions excluding 0."""
    if not contrasts:
        return "no control: a shift of the margin against base alone may be flattening, so nothing is said"
    clear = [
        scale
        for scale in scales
        if all(row["low"] is not None and row["low"] > 0 for row in contrasts if row["scale"] == scale)
    ]
    n = len({row["control"] for row in contrasts})
    against = "the control" if n == 1 else f"each of {n} controls"
    if not clear:
        return f"at no scale is the margin above that of {against} at the same scale"
    positive = [scale for scale in clear if scale > 0]
    words = f"the margin is above that of {against} at {', '.join(f'{scale:g}' for scale in clear)} times the adapter"
    if 1.0 in clear:
        return f"{words}; it need not be amplified to be seen"
    return f"{words}, not at 1: seen only by scaling" if positive else words


def _entropies(
    base: ChatModel, updates: Sequence[LoraUpdate], chats: Sequence[EncodedChat], *, max_batch_tokens: int
) -> tuple[np.ndarray, np.ndarray]:
    """Cross-entropy and entropy of each text, nats per answer token."""
    with adding(base, updates):
        logprobs, entropies = logprobs_and_entropies(base, chats, max_batch_tokens=max_batch_tokens)
    return -logprobs, entropies
