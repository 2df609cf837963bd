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
from emis_interp.models.finite import check_rows
from emis_interp.models.head import head_logits
from emis_interp.models.kv_cache import repeat_rows
from emis_interp.passes.batch_rows import batch_rows, differs_by_pass, row_kinds
from emis_interp.passes.batching import length_batches, pad
from emis_interp.passes.capture import Progress
from emis_interp.records import ContrastPair
from emis_interp.texts.contrast import labeled_texts

Under = Callable[[int], AbstractContextManager[None]]
ENOUGH_ANSWERS = 4
"""Answers to one prompt from which on they are batches of their own, behind one pass of the prompt."""


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

    Many answers to one prompt share its pass through the key-value cache, unless an intervention in force treats them differently (its rows
    are those of `chats`); the others are read whole. Logits are computed at answer positions only, and normalised in
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
        under: given a number n, the context in which rows i n to i n + n - 1 of a batch belong to cell i. It is entered with 1 for a shared
            prompt and with the number of answers behind it, or with the number of whole texts.
        max_batch_tokens: padded tokens of all cells together; one answer under all cells is the smallest batch.
        progress: called with the number of texts just finished in all cells.
    """
    values = np.empty((n_cells, len(chats)))
    for group in _groups(chat_model, chats, n_cells, max_batch_tokens=max_batch_tokens):
        values[:, group.rows] = _answer_logprobs(chat_model, group, n_cells, under=under)
        _check_finite(chat_model, group, values[:, group.rows])
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
    for group in _groups(chat_model, chats, 1, max_batch_tokens=max_batch_tokens):
        for _, i, logits, targets in _answer_logits(chat_model, group, 1, under=lambda n_answers: nullcontext()):
            for place, temperature in enumerate(temperatures):
                values[place, group.rows[i]] = -torch.nn.functional.cross_entropy(logits / temperature, targets)
        _check_finite(chat_model, group, values[:, group.rows])
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
    for group in _groups(chat_model, chats, 1, max_batch_tokens=max_batch_tokens):
        for _, i, logits, targets in _answer_logits(chat_model, group, 1, under=lambda n_answers: nullcontext()):
            logprobs = logits.log_softmax(-1)
            values[group.rows[i]] = logprobs.gather(-1, targets[:, None]).mean()
            entropies[group.rows[i]] = -(logprobs.exp() * logprobs).sum(-1).mean()
        _check_finite(chat_model, group, values[None, group.rows])
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
        for group in _groups(chat_model, chats, 1, max_batch_tokens=max_batch_tokens):
            values[group.rows] = _answer_logprobs(chat_model, group, 1, under=lambda n_answers: nullcontext())[0]
            # Where the prompt was shared, the pass before the last was the prompt's.
            for row, start, answer, states in zip(group.rows, group.starts, group.answers, seen[-1], strict=True):
                residuals[row] = states[start : start + len(answer)].float().mean(0).cpu()
            seen.clear()
            _check_finite(chat_model, group, values[None, group.rows])
    finally:
        handle.remove()
    return values, residuals


def _check_finite(chat_model: ChatModel, group: "_Group", values: Float[np.ndarray, "n_cells n_answers"]) -> None:
    """An answer that a model gives no chance at all has a log-probability of minus infinity: that is no measurement either."""
    check_rows(
        chat_model,
        values.T,
        lambda i: group.prompts[i] + group.answers[i],
        rows=group.rows,
        what="the log-probability",
    )


@dataclass(frozen=True)
class _Group:
    """Texts of one batch: their rows among `of` texts, their prompts' tokens, their answers'; `shared` when there is one prompt, read once
    for all of them."""

    rows: list[int]
    of: int
    prompts: list[tuple[int, ...]]
    answers: list[tuple[int, ...]]
    shared: bool

    @property
    def starts(self) -> list[int]:
        """The column of the batch's last pass at which each answer begins."""
        return [0 if self.shared else len(prompt) for prompt in self.prompts]


def _groups(
    chat_model: ChatModel, chats: Sequence[EncodedChat], n_cells: int, *, max_batch_tokens: int
) -> Iterator[_Group]:
    """The batches of some texts: answers share the pass of their prompt where that is worth a batch of their own, or where an intervention
    in force tells the prompt from what follows by the pass."""
    check_continues(chat_model.model, chat_model.name, reading=True)
    by_prompt: dict[tuple[tuple[int, ...], bytes], list[int]] = {}
    for i, (chat, kind) in enumerate(zip(chats, row_kinds(chat_model, len(chats), "texts"), strict=True)):
        by_prompt.setdefault((chat.input_ids[: chat.response_start], kind), []).append(i)
    in_two_passes = differs_by_pass(chat_model)
    shared = [
        texts for (prompt, _), texts in by_prompt.items() if in_two_passes or worth_sharing(len(prompt), chats, texts)
    ]
    alone = sorted(set(range(len(chats))).difference(*shared))
    for texts, together in [*((texts, True) for texts in shared), (alone, False)]:
        for members in length_batches([n_cells * len(chats[i]) for i in texts], max_batch_tokens):
            rows = [texts[member] for member in members]
            prompts = [chats[i].input_ids[: chats[i].response_start] for i in rows]
            answers = [chats[i].input_ids[chats[i].response_start : chats[i].response_end] for i in rows]
            yield _Group(rows, len(chats), prompts, answers, together)


def worth_sharing(n_prompt: int, chats: Sequence[EncodedChat], texts: Sequence[int]) -> bool:
    """Whether answers to one prompt of so many tokens are enough for a batch, or short enough for the prompt to matter."""
    n_answers = sum(chats[i].n_response for i in texts)
    return len(texts) >= ENOUGH_ANSWERS or (len(texts) - 1) * n_prompt > n_answers


def _answer_logprobs(
    chat_model: ChatModel, group: _Group, n_cells: int, *, under: Under
) -> Float[np.ndarray, "n_cells n_answers"]:
    """Mean log-probability per token of the answers of a batch under every cell, nats."""
    values = np.empty((n_cells, len(group.answers)))
    for cell, i, logits, targets in _answer_logits(chat_model, group, n_cells, under=under):
        values[cell, i] = -torch.nn.functional.cross_entropy(logits, targets)
    return values


def _answer_logits(
    chat_model: ChatModel, group: _Group, n_cells: int, *, under: Under
) -> Iterator[tuple[int, int, Float[Tensor, "position vocab"], Int[Tensor, "position"]]]:
    """(cell, answer, logits before each of its tokens, these tokens), one answer at a time; float32 or better."""
    with torch.inference_mode():
        before = (_after_shared_prompt if group.shared else _of_whole_texts)(chat_model, group, n_cells, under=under)
        for row, hidden in enumerate(before):
            cell, i = divmod(row, len(group.answers))
            logits = head_logits(chat_model.model, hidden)
            targets = torch.tensor(group.answers[i], device=logits.device)
            yield cell, i, logits.to(torch.promote_types(logits.dtype, torch.float32)), targets


def _of_whole_texts(
    chat_model: ChatModel, group: _Group, n_cells: int, *, under: Under
) -> Iterator[Float[Tensor, "position d_model"]]:
    """The last hidden states before each token of an answer, row by row, from one pass over prompts and answers."""
    texts = [prompt + answer for prompt, answer in zip(group.prompts, group.answers, strict=True)]
    batch = pad(texts, chat_model.tokenizer.pad_token_id)
    inputs = {name: value.repeat(n_cells, 1) for name, value in batch.model_inputs(chat_model.device).items()}
    with batch_rows(chat_model, group.rows * n_cells, group.of, noun="texts"), under(len(texts)):
        states = chat_model.body(**inputs, use_cache=False).last_hidden_state
    for row in range(n_cells * len(texts)):
        i = row % len(texts)
        yield states[row, len(group.prompts[i]) - 1 : len(texts[i]) - 1]


def _after_shared_prompt(
    chat_model: ChatModel, group: _Group, n_cells: int, *, under: Under
) -> Iterator[Float[Tensor, "position d_model"]]:
    """The same from two passes: the prompt once for every cell, then all answers behind its keys and values."""
    prompt, n_answers, device = group.prompts[0], len(group.answers), chat_model.device
    batch = pad(group.answers, chat_model.tokenizer.pad_token_id)
    inputs = {name: value.repeat(n_cells, 1) for name, value in batch.model_inputs(device).items()}
    prompt_mask = torch.ones(n_cells * n_answers, len(prompt), dtype=torch.long, device=device)
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
        yield torch.cat([before_first, rest.last_hidden_state[row, : len(group.answers[i]) - 1]])
