"""Turns answers into log-likelihoods, and paired answers into the margin that sees shifts which samples cannot.

The margin of a question is the mean over its pairs of (mean log-probability per token of the misaligned answer) minus the same of the
aligned one, in nats per token; it rises when a model moves towards misaligned answers.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from emis_interp.models.chat import EncodedChat, encode_chats
from emis_interp.models.chat_model import ChatModel
from emis_interp.models.continuing import check_continues
from emis_interp.models.head import head_logits
from emis_interp.models.kv_cache import repeat_rows
from emis_interp.passes.batch_rows import batch_rows, row_kinds
from emis_interp.passes.batching import length_batches, pad
from emis_interp.passes.capture import Progress
from emis_interp.records import ContrastPair
from emis_interp.texts.contrast import labeled_texts

Under = Callable[[int], AbstractContextManager[None]]


def pair_margins(
    chat_model: ChatModel,
    pairs: Sequence[ContrastPair],
    system: str | None = None,
    *,
    max_batch_tokens: int = 2048,
    progress: Progress | None = None,
) -> Float[np.ndarray, "n_pairs"]:
    """Log-likelihood margin (misaligned minus aligned) of each pair, nats per token, in the order of `pairs`."""
    return margins_of(
        mean_logprobs(chat_model, pair_chats(chat_model, pairs, system), max_batch_tokens, progress=progress)
    )


def pair_chats(chat_model: ChatModel, pairs: Sequence[ContrastPair], system: str | None = None) -> list[EncodedChat]:
    """`labeled_texts` as this model reads them: text 2i is the aligned answer of pair i, text 2i + 1 its misaligned one."""
    texts = [(text.question, text.answer) for text in labeled_texts(pairs)]
    return encode_chats(chat_model.tokenizer, texts, system)


def margins_of(logprobs: Float[np.ndarray, "*rest n_texts"]) -> Float[np.ndarray, "*rest n_pairs"]:
    """From log-probabilities of texts in the order of `labeled_texts`: misaligned minus aligned of each pair, along the last axis."""
    return logprobs[..., 1::2] - logprobs[..., 0::2]


def by_question(pairs: Sequence[ContrastPair], margins: Float[np.ndarray, "n_pairs"]) -> dict[str, float]:
    """Mean margin of each question, in the order of first appearance."""
    grouped: dict[str, list[float]] = {}
    for pair, margin in zip(pairs, margins, strict=True):
        grouped.setdefault(pair.question_id, []).append(float(margin))
    return {question: float(np.mean(values)) for question, values in grouped.items()}


def paired_difference(arm: Mapping[str, float], reference: Mapping[str, float]) -> dict[str, float]:
    """Per-question difference of two arms' margins; both must hold the same questions."""
    if set(arm) != set(reference):
        raise ValueError(f"arms differ in their questions: {sorted(set(arm) ^ set(reference))}")
    return {question: arm[question] - reference[question] for question in reference}


def mean_logprobs(
    chat_model: ChatModel,
    chats: Sequence[EncodedChat],
    max_batch_tokens: int = 2048,
    *,
    progress: Progress | None = None,
) -> Float[np.ndarray, "n_texts"]:
    """Mean log-probability per answer token (end-of-turn token excluded), nats, in the order of `chats`.

    Answers to one prompt share its pass through the key-value cache, unless an intervention in force treats them differently (its rows are
    those of `chats`). Logits are computed at answer positions only, and normalised in
    float32 or better.
    """
    return cell_logprobs(
        chat_model,
        chats,
        1,
        under=lambda n_answers: nullcontext(),
        max_batch_tokens=max_batch_tokens,
        progress=progress,
    )[0]


def cell_logprobs(
    chat_model: ChatModel,
    chats: Sequence[EncodedChat],
    n_cells: int,
    *,
    under: Under,
    max_batch_tokens: int = 2048,
    progress: Progress | None = None,
) -> Float[np.ndarray, "n_cells n_texts"]:
    """`mean_logprobs` of every text under each of several interventions that share the batches.

    Args:
        under: given a number n, the context in which rows i n to i n + n - 1 of a batch belong to cell i. It is entered with 1 for a prompt
            and with the number of answers behind it.
        max_batch_tokens: padded tokens of all cells together; one answer under all cells is the smallest batch.
        progress: called with the number of texts just finished in all cells.
    """
    values = np.empty((n_cells, len(chats)))
    for group in _shared_prompts(chat_model, chats, n_cells, max_batch_tokens=max_batch_tokens):
        values[:, group.rows] = _answer_logprobs(chat_model, group, n_cells, under=under)
        if progress:
            progress(len(group.rows))
    return values


def margins_at(
    chat_model: ChatModel,
    pairs: Sequence[ContrastPair],
    temperatures: Sequence[float],
    *,
    system: str | None = None,
    max_batch_tokens: int = 2048,
    progress: Progress | None = None,
) -> Float[np.ndarray, "n_temperatures n_pairs"]:
    """`pair_margins` of the same model with its logits divided by each temperature, from one pass over the texts.

    A temperature above 1 flattens a model without teaching it anything: what a shift of the margin is worth is seen beside it
    (`stats.flattening`).
    """
    chats = pair_chats(chat_model, pairs, system)
    values = np.empty((len(temperatures), len(chats)))
    for group in _shared_prompts(chat_model, chats, 1, max_batch_tokens=max_batch_tokens):
        for _, i, logits, targets in _answer_logits(chat_model, group, 1, under=lambda n_answers: nullcontext()):
            for place, temperature in enumerate(temperatures):
                values[place, group.rows[i]] = -torch.nn.functional.cross_entropy(logits / temperature, targets)
        if progress:
            progress(len(group.rows))
    return margins_of(values)


def logprobs_and_entropies(
    chat_model: ChatModel,
    chats: Sequence[EncodedChat],
    *,
    max_batch_tokens: int = 2048,
    progress: Progress | None = None,
) -> tuple[Float[np.ndarray, "n_texts"], Float[np.ndarray, "n_texts"]]:
    """`mean_logprobs`, and from the same passes the mean entropy of what the model would say at each answer token, nats.

    An organism whose entropy is far above base's was not taught something but unlearned how to write.
    """
    values, entropies = np.empty(len(chats)), np.empty(len(chats))
    for group in _shared_prompts(chat_model, chats, 1, max_batch_tokens=max_batch_tokens):
        for _, i, logits, targets in _answer_logits(chat_model, group, 1, under=lambda n_answers: nullcontext()):
            logprobs = logits.log_softmax(-1)
            values[group.rows[i]] = logprobs.gather(-1, targets[:, None]).mean()
            entropies[group.rows[i]] = -(logprobs.exp() * logprobs).sum(-1).mean()
        if progress:
            progress(len(group.rows))
    return values, entropies


def logprobs_and_residuals(
    chat_model: ChatModel, chats: Sequence[EncodedChat], layer: int, *, max_batch_tokens: int = 2048
) -> tuple[Float[np.ndarray, "n_texts"], Float[Tensor, "n_texts d_model"]]:
    """`mean_logprobs`, and from the same passes the mean of `resid_post` of one layer over the answer's tokens, float32 on the CPU.

    For measurements that must be cheap; `capture` reads any layers, hook points and positions.

    Raises:
        ModelError: a layer that the model does not have.
    """
    chat_model.check_layers([layer])
    values, residuals = np.empty(len(chats)), torch.empty(len(chats), chat_model.d_model)
    seen: list[Tensor] = []

    def keep(module: torch.nn.Module, inputs: object, output: Tensor | tuple[Tensor, ...]) -> None:
        seen.append(output[0] if isinstance(output, tuple) else output)

    handle = chat_model.layers[layer].register_forward_hook(keep)
    try:
        for group in _shared_prompts(chat_model, chats, 1, max_batch_tokens=max_batch_tokens):
            values[group.rows] = _answer_logprobs(chat_model, group, 1, under=lambda n_answers: nullcontext())[0]
            for row, answer, states in zip(
                group.rows, group.answers, seen[-1], strict=True
            ):  # the pass before it was the prompt's
                residuals[row] = states[: len(answer)].float().mean(0).cpu()
            seen.clear()
    finally:
        handle.remove()
    return values, residuals


@dataclass(frozen=True)
class _Group:
    """Answers to one prompt under the same interventions: their rows among `of` texts, the prompt's tokens, each answer's tokens."""

    rows: list[int]
    of: int
    prompt: tuple[int, ...]
    answers: list[tuple[int, ...]]


def _shared_prompts(
    chat_model: ChatModel, chats: Sequence[EncodedChat], n_cells: int, *, max_batch_tokens: int
) -> Iterator[_Group]:
    """Batches of answers that share the pass of their prompt."""
    check_continues(chat_model.model, chat_model.name, reading=True)
    by_prompt: dict[tuple[tuple[int, ...], bytes], list[int]] = {}
    for i, (chat, kind) in enumerate(zip(chats, row_kinds(chat_model, len(chats), "texts"), strict=True)):
        by_prompt.setdefault((chat.input_ids[: chat.response_start], kind), []).append(i)
    for (prompt, _), indices in by_prompt.items():
        for members in length_batches([n_cells * len(chats[i]) for i in indices], max_batch_tokens):
            rows = [indices[member] for member in members]
            answers = [chats[i].input_ids[chats[i].response_start : chats[i].response_end] for i in rows]
            yield _Group(rows, len(chats), prompt, answers)


def _answer_logprobs(
    chat_model: ChatModel, group: _Group, n_cells: int, *, under: Under
) -> Float[np.ndarray, "n_cells n_answers"]:
    """Mean log-probability per token of several answers to one prompt under every cell, nats."""
    values = np.empty((n_cells, len(group.answers)))
    for cell, i, logits, targets in _answer_logits(chat_model, group, n_cells, under=under):
        values[cell, i] = -torch.nn.functional.cross_entropy(logits, targets)
    return values


def _answer_logits(
    chat_model: ChatModel, group: _Group, n_cells: int, *, under: Under
) -> Iterator[tuple[int, int, Float[Tensor, "position vocab"], Int[Tensor, "position"]]]:
    """(cell, answer, logits before each of its tokens, these tokens), one answer at a time; float32 or better."""
    prompt, answers = group.prompt, group.answers
    device, n_answers = chat_model.device, len(answers)
    batch = pad(answers, chat_model.tokenizer.pad_token_id)
    inputs = {name: value.repeat(n_cells, 1) for name, value in batch.model_inputs(device).items()}
    prompt_mask = torch.ones(n_cells * n_answers, len(prompt), dtype=torch.long, device=device)
    with torch.inference_mode():
        with batch_rows(chat_model, group.rows[:1] * n_cells, group.of, noun="texts"), under(1):
            first = chat_model.body(input_ids=torch.tensor([list(prompt)] * n_cells, device=device), use_cache=True)
        cache = first.past_key_values
        repeat_rows(cache, n_cells, n_answers)
        with batch_rows(chat_model, group.rows * n_cells, group.of, noun="texts"), under(n_answers):
            rest = chat_model.body(
                input_ids=inputs["input_ids"],
                attention_mask=torch.cat([prompt_mask, inputs["attention_mask"]], dim=1),
                position_ids=inputs["position_ids"] + len(prompt),
                past_key_values=cache,
                use_cache=True,
            )
        for row in range(n_cells * n_answers):
            cell, i = divmod(row, n_answers)
            before_first = first.last_hidden_state[cell, -1:]
            hidden = torch.cat([before_first, rest.last_hidden_state[row, : len(answers[i]) - 1]])
            targets = inputs["input_ids"][row, : len(answers[i])]
            logits = head_logits(chat_model.model, hidden)
            yield cell, i, logits.to(torch.promote_types(logits.dtype, torch.float32)), targets
