"""Turns many intervention cells into answers, log-likelihoods or costs in shared batches: every row has its own layer, direction, strength.

A row depends on its own cell alone. Cells that share a batch differ from separate runs by rounding only. Interventions already in force
act under every cell; where they hold a tensor for each row, these are the rows of the prompts or texts given here.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from emis_interp.directions import Direction
from emis_interp.errors import DataError
from emis_interp.models.chat import EncodedChat, check_prompts
from emis_interp.models.chat_model import ChatModel
from emis_interp.models.continuing import check_continues
from emis_interp.passes.batch_rows import batch_rows
from emis_interp.passes.capture import Progress
from emis_interp.passes.generate import generate
from emis_interp.passes.interventions import Ablate, Intervention, Steer, apply, mean_kl, next_token_logprobs
from emis_interp.passes.likelihood import cell_logprobs, margins_of, pair_chats
from emis_interp.records import ContrastPair


@dataclass(frozen=True)
class SteerCell:
    """Coefficient x residual_norm x vector is added to `resid_post` of the direction's layer, at all positions."""

    direction: Direction
    coefficient: float

    @property
    def added(self) -> Float[Tensor, "d_model"]:
        return self.coefficient * self.direction.residual_norm * self.direction.vector


@dataclass(frozen=True)
class AblateCell:
    """The coordinate along `vector` is held at zero, or at `coordinates` (see `Ablate`), everywhere; a vector of zeros changes nothing."""

    vector: Float[Tensor, "d_model"]
    coordinates: Float[Tensor, "n_points"] | None = None


Cell = SteerCell | AblateCell


def greedy_answers(
    chat_model: ChatModel,
    cells: Sequence[Cell],
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    max_rows: int = 256,
) -> list[list[tuple[int, ...]]]:
    """Greedy continuation of every prompt under every cell: `result[cell][prompt]`, token ids up to an end-of-turn token (left out).

    Raises:
        DataError: no cells or no prompts, or a prompt that leaves no room for its answer in the model's context.
        ModelError: a direction of another model, or a model that `check_continues` refuses.
    """
    _check(cells, prompts, "prompt")
    check_prompts(chat_model, prompts, max_new_tokens)
    check_continues(chat_model.model, chat_model.name)
    answers: list[list[tuple[int, ...]]] = []
    for chunk in _chunks(cells, max(1, max_rows // len(prompts))):
        n_rows = len(chunk) * len(prompts)
        of_prompts = batch_rows(chat_model, torch.arange(n_rows) % len(prompts), len(prompts), noun="prompts")
        with of_prompts, under(chat_model, chunk)(len(prompts)):
            found = generate(chat_model, [*prompts] * len(chunk), [0] * n_rows, max_new_tokens, temperature=0)
        rows = [one.tokens for one in found]
        answers += [rows[i : i + len(prompts)] for i in range(0, len(rows), len(prompts))]
    return answers


def text_logprobs(
    chat_model: ChatModel,
    cells: Sequence[Cell],
    chats: Sequence[EncodedChat],
    *,
    max_batch_tokens: int = 2048,
    max_cells: int = 8,
    progress: Progress | None = None,
) -> Float[np.ndarray, "n_cells n_texts"]:
    """Mean log-probability per answer token of every text under every cell, nats (`likelihood.mean_logprobs`).

    Args:
        max_batch_tokens: padded tokens of one forward pass, all its cells together.
        max_cells: cells that share a pass.
        progress: called with the number of cells just finished.

    Raises:
        DataError: no cells or no texts.
        ModelError: a direction of another model.
    """
    _check(cells, chats, "text")
    values = []
    for chunk in _chunks(cells, max_cells):
        values.append(
            cell_logprobs(
                chat_model, chats, len(chunk), under=under(chat_model, chunk), max_batch_tokens=max_batch_tokens
            )
        )
        if progress:
            progress(len(chunk))
    return np.concatenate(values)


def margins(
    chat_model: ChatModel,
    cells: Sequence[Cell],
    pairs: Sequence[ContrastPair],
    *,
    system: str | None = None,
    max_batch_tokens: int = 2048,
    max_cells: int = 8,
    progress: Progress | None = None,
) -> Float[np.ndarray, "n_cells n_pairs"]:
    """Log-likelihood margin (misaligned minus aligned) of every pair under every cell, nats per token; arguments as `text_logprobs`."""
    chats = pair_chats(chat_model, pairs, system)
    return margins_of(
        text_logprobs(
            chat_model, cells, chats, max_batch_tokens=max_batch_tokens, max_cells=max_cells, progress=progress
        )
    )


def costs(
    chat_model: ChatModel, cells: Sequence[Cell], prompts: Sequence[Sequence[int]], *, max_cells: int = 8
) -> Float[np.ndarray, "n_cells"]:
    """Mean KL(untouched model || cell) of the token after each prompt, nats: what each cell costs on harmless prompts (`mean_kl`)."""
    _check(cells, prompts, "prompt")
    plain, values = next_token_logprobs(chat_model, prompts), []
    for chunk in _chunks(cells, max_cells):
        rows = [*range(len(prompts))] * len(chunk)
        with batch_rows(chat_model, rows, len(prompts), noun="prompts"), under(chat_model, chunk)(len(prompts)):
            found = next_token_logprobs(chat_model, [prompt for _ in chunk for prompt in prompts])
        values += [mean_kl(plain, rows) for rows in found.split(len(prompts))]
    return np.array(values)


def under(chat_model: ChatModel, cells: Sequence[Cell]) -> Callable[[int], contextlib.AbstractContextManager[None]]:
    """Given a number n, the context in which rows i n to i n + n - 1 of a batch run under cell i."""
    return lambda n_rows: apply(chat_model, *row_interventions(cells, n_rows))


def row_interventions(cells: Sequence[Cell], n_rows: int) -> list[Intervention]:
    """What gives cell i the rows i n to i n + n - 1 of a batch; a row of another layer or kind gets exactly nothing.

    Tensors are float64, which holds every dtype's numbers as they are; they are added in the model's own.
    """
    steered = [(i, cell) for i, cell in enumerate(cells) if isinstance(cell, SteerCell)]
    ablated = [(i, cell) for i, cell in enumerate(cells) if isinstance(cell, AblateCell)]
    result: list[Intervention] = []
    if steered:
        width = len(steered[0][1].direction.vector)
        vectors = {cell.direction.layer: torch.zeros(len(cells), width, dtype=torch.float64) for _, cell in steered}
        for i, cell in steered:
            vectors[cell.direction.layer][i] = cell.added
        result.append(Steer({layer: rows.repeat_interleave(n_rows, 0) for layer, rows in vectors.items()}))
    if ablated:
        basis = torch.zeros(len(cells), 1, len(ablated[0][1].vector), dtype=torch.float64)
        held = [cell.coordinates for _, cell in ablated if cell.coordinates is not None]
        coordinates = torch.zeros(len(held[0]), len(cells), 1, dtype=torch.float64) if held else None
        for i, cell in ablated:
            basis[i, 0] = cell.vector
            if cell.coordinates is not None and coordinates is not None:
                coordinates[:, i, 0] = cell.coordinates
        repeated = None if coordinates is None else coordinates.repeat_interleave(n_rows, 1)
        result.append(Ablate(basis.repeat_interleave(n_rows, 0), repeated))
    return result


def _chunks(cells: Sequence[Cell], n: int) -> Iterator[Sequence[Cell]]:
    for start in range(0, len(cells), n):
        yield cells[start : start + n]


def _check(cells: Sequence[Cell], texts: Sequence[object], noun: str) -> None:
    if not cells or not texts:
        raise DataError(f"a sweep needs at least one cell and one {noun}")
