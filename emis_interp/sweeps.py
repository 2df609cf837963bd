"""Turns many steering cells into answers in one batch: every row has its own layer, direction and coefficient."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from emis_interp.batching import pad
from emis_interp.directions import Direction
from emis_interp.errors import DataError
from emis_interp.interventions import Steer, apply
from emis_interp.models import ChatModel


@dataclass(frozen=True)
class SteerCell:
    """Coefficient x residual_norm x vector is added to `resid_post` of the direction's layer, at all positions."""

    direction: Direction
    coefficient: float

    @property
    def added(self) -> Float[Tensor, "d_model"]:
        return self.coefficient * self.direction.residual_norm * self.direction.vector


def greedy_answers(
    chat_model: ChatModel,
    cells: Sequence[SteerCell],
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    max_rows: int = 256,
) -> list[list[tuple[int, ...]]]:
    """Greedy continuation of every prompt under every cell: `result[cell][prompt]`, token ids up to an end-of-turn token (left out).

    A row depends on its own cell alone; cells that share a batch differ from separate runs by rounding only.

    Raises:
        DataError: no cells or no prompts.
        ModelError: a direction of another model.
    """
    if not cells or not prompts:
        raise DataError("a sweep needs at least one cell and one prompt")
    n_cells = max(1, max_rows // len(prompts))
    answers: list[list[tuple[int, ...]]] = []
    for start in range(0, len(cells), n_cells):
        chunk = cells[start : start + n_cells]
        with apply(chat_model, row_steering(chunk, len(prompts))):
            rows = _greedy(chat_model, [prompt for _ in chunk for prompt in prompts], max_new_tokens)
        answers += [rows[i : i + len(prompts)] for i in range(0, len(rows), len(prompts))]
    return answers


def row_steering(cells: Sequence[SteerCell], n_prompts: int) -> Steer:
    """One `Steer` for a batch of cells x prompts (cell by cell); rows of other layers get exactly nothing."""
    width = len(cells[0].direction.vector)
    vectors = {cell.direction.layer: torch.zeros(len(cells) * n_prompts, width) for cell in cells}
    for index, cell in enumerate(cells):
        vectors[cell.direction.layer][index * n_prompts : (index + 1) * n_prompts] = cell.added
    return Steer(vectors)


def _greedy(chat_model: ChatModel, prompts: Sequence[Sequence[int]], max_new_tokens: int) -> list[tuple[int, ...]]:
    tokenizer, model = chat_model.tokenizer, chat_model.model
    batch = pad(prompts, tokenizer.pad_token_id, "left")
    ends = _end_tokens(chat_model)
    inputs = batch.model_inputs(chat_model.device)
    with torch.inference_mode():
        output = model.generate(
            inputs["input_ids"],
            attention_mask=inputs["attention_mask"],
            max_new_tokens=max_new_tokens,
            do_sample=False,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=sorted(ends),
        )
    rows = []
    for row in output[:, batch.input_ids.shape[1] :].tolist():
        end = next((i for i, token in enumerate(row) if token in ends), len(row))
        rows.append(tuple(row[:end]))
    return rows


def _end_tokens(chat_model: ChatModel) -> set[int]:
    configured: Any = chat_model.model.generation_config.eos_token_id
    found = {configured} if isinstance(configured, int) else set(configured or ())
    return {*found, chat_model.tokenizer.eos_token_id} - {None}
