"""Turns the strongest components of an adapter into what they read, when they fire and what they write; rank 1 is one component."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from emis_interp.errors import ModelError
from emis_interp.models.chat import EncodedChat
from emis_interp.models.chat_model import ChatModel
from emis_interp.models.lora_updates import LoraUpdate
from emis_interp.passes.batching import length_batches, pad
from emis_interp.passes.lens import direction_logits, extreme_tokens
from emis_interp.passes.low_rank import adding
from emis_interp.stats.interval import mean_row

N_TOKENS = 8
CONTEXT = 6


@dataclass(frozen=True)
class AdapterComponent:
    """One singular component of an update: it adds (read . x) times `write` to what its module gives.

    `write` is a unit vector times the singular value, `read` a unit vector in the space of the module's input.
    """

    update: LoraUpdate
    read: Float[Tensor, "d_in"]
    write: Float[Tensor, "d_out"]
    share: float
    """Of the squared norm of the update."""


def strongest(updates: Sequence[LoraUpdate], n: int) -> list[AdapterComponent]:
    """The first component of every update (all there is, at rank 1), the n with the largest singular value, those that write first."""
    found = []
    for update in updates:
        left, values, right = update.svd()
        share = float(values[0].square() / values.square().sum())
        found.append(AdapterComponent(update, right[0], left[:, 0] * values[0], share))
    return sorted(found, key=lambda one: (not one.update.writes, -float(one.write.norm())))[:n]


def firings(
    base: ChatModel,
    updates: Sequence[LoraUpdate],
    components: Sequence[AdapterComponent],
    *,
    chats: Sequence[EncodedChat],
    max_batch_tokens: int = 2048,
) -> list[list[Float[Tensor, "n_tokens"]]]:
    """read . x of every component at every token of each text, in the adapted model: `result[component][text]`."""
    modules = dict(base.model.named_modules())
    seen: dict[int, Tensor] = {}
    found: list[dict[int, Tensor]] = [{} for _ in components]

    def keep(index: int) -> Any:
        read = components[index].read

        def hook(module: Any, inputs: tuple[Tensor, ...]) -> None:
            seen[index] = inputs[0] @ read.to(inputs[0])

        return hook

    with adding(base, updates):
        handles = [modules[one.update.path].register_forward_pre_hook(keep(i)) for i, one in enumerate(components)]
        try:
            for rows in length_batches([len(chat) for chat in chats], max_batch_tokens):
                batch = pad([chats[i].input_ids for i in rows], base.tokenizer.pad_token_id)
                with torch.no_grad():
                    base.body(**batch.model_inputs(base.device), use_cache=False)
                for i, own in enumerate(found):
                    own.update({j: seen[i][row, : len(chats[j])].float().cpu() for row, j in enumerate(rows)})
        finally:
            for handle in handles:
                handle.remove()
    return [[own[j] for j in range(len(chats))] for own in found]


def component_rows(
    base: ChatModel,
    components: Sequence[AdapterComponent],
    fired: Sequence[Sequence[Float[Tensor, "n_tokens"]]],
    *,
    chats: Sequence[EncodedChat],
    questions: Sequence[str],
    direction: Float[Tensor, "d_model"] | None = None,
    advance: Callable[[int], None] = lambda _: None,
) -> list[dict[str, Any]]:
    """What each component is, in words and numbers.

    A singular vector has no sign of its own: each is turned so that it fires positively on average over the answers.

    Args:
        fired: `firings` of the same components.
        chats: texts of pairs, aligned then misaligned. questions: of each pair.
        advance: called with 1 after each component.
    """
    rows = []
    for component, activations in zip(components, fired, strict=True):
        answers = [one[chat.response_start : chat.response_end] for one, chat in zip(activations, chats, strict=True)]
        sign = 1.0 if float(torch.cat(answers).mean()) >= 0 else -1.0
        own = [sign * one for one in answers]
        everything = torch.cat(own)
        write = sign * component.write
        rows.append(
            {
                "layer": component.update.layer,
                "module": component.update.module,
                "singular_value": float(component.write.norm()),
                "share": component.share,
                "mean_firing": float(everything.mean()),
                "std_firing": float(everything.std()),
                "share_of_tokens_above_half_maximum": float((everything > everything.max() / 2).float().mean()),
                "misaligned_minus_aligned": _difference(own, questions),
                "fires_on": _strongest_tokens(base.tokenizer, chats, [sign * one for one in activations]),
                **_written_tokens(base, component, write),
                "write_cosine": None
                if direction is None or not component.update.writes
                else float(write @ direction / write.norm()),
            }
        )
        advance(1)
    return rows


def _difference(answers: Sequence[Float[Tensor, "n_tokens"]], questions: Sequence[str]) -> dict[str, Any]:
    """Mean firing on misaligned minus aligned answers, in standard deviations over tokens; one value for each question."""
    scale = float(torch.cat(list(answers)).std())
    by_question: dict[str, list[float]] = {}
    for i, question in enumerate(questions):
        gap = float(answers[2 * i + 1].mean() - answers[2 * i].mean())
        by_question.setdefault(question, []).append(gap / scale if scale else 0.0)
    return mean_row({question: float(np.mean(gaps)) for question, gaps in by_question.items()})


def _strongest_tokens(
    tokenizer: Any, chats: Sequence[EncodedChat], activations: Sequence[Float[Tensor, "n_tokens"]]
) -> list[dict[str, Any]]:
    """The answer tokens at which a component fires most, at most one of each text, with the words before them."""
    best = []
    for chat, values in zip(chats, activations, strict=True):
        answer = values[chat.response_start : chat.response_end]
        place = chat.response_start + int(answer.argmax())
        best.append((float(answer.max()), chat, place))
    best.sort(key=lambda row: -row[0])
    return [
        {
            "firing": value,
            "token": str(tokenizer.decode([chat.input_ids[place]])),
            "before": str(tokenizer.decode(list(chat.input_ids[max(chat.response_start, place - CONTEXT) : place]))),
        }
        for value, chat, place in best[:N_TOKENS]
    ]


def _written_tokens(base: ChatModel, component: AdapterComponent, write: Tensor) -> dict[str, Any]:
    """The tokens that what a component writes makes likelier and less likely, where it writes to the residual stream."""
    if not component.update.writes:
        return {"top_tokens": [], "bottom_tokens": []}
    try:
        top, bottom = extreme_tokens(base.tokenizer, direction_logits(base, write), N_TOKENS)
    except ModelError as error:
        return {"top_tokens": [], "bottom_tokens": [], "no_tokens": str(error)}
    return {"top_tokens": top, "bottom_tokens": bottom}
