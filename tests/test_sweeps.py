"""A sweep in one batch gives every cell the tokens that it gets alone."""

import pytest
import torch

from emis_interp.chat import encode_prompt
from emis_interp.directions import Direction, unit
from emis_interp.errors import DataError, ModelError
from emis_interp.interventions import steer
from emis_interp.models import ChatModel, load_model
from emis_interp.sweeps import SteerCell, greedy_answers


def grid(n: int = 3) -> list[SteerCell]:
    generator = torch.Generator().manual_seed(0)
    return [
        SteerCell(Direction(unit(torch.randn(32, generator=generator)), layer, 1.0, 6.0), coefficient)
        for layer in (0, 1)
        for coefficient in torch.linspace(-1, 1, n).tolist()
    ]


def prompts(chat_model: ChatModel) -> list[tuple[int, ...]]:
    return [tuple(encode_prompt(chat_model.tokenizer, text)) for text in ("Hi?", "What now, and for how long?")]


def test_cells_of_one_batch_are_the_cells_alone_whatever_the_batch() -> None:
    chat_model = load_model("tiny", device="cpu", dtype="float64")
    asked, cells = prompts(chat_model), grid()
    together = greedy_answers(chat_model, cells, asked, 12)
    assert together == [greedy_answers(chat_model, [cell], asked, 12)[0] for cell in cells]
    assert together == greedy_answers(chat_model, cells, asked, 12, max_rows=5)
    assert len({str(cell) for cell in together}) > 2


def test_a_cell_is_what_steering_by_hand_gives_and_zero_is_no_steering() -> None:
    chat_model = load_model("tiny", device="cpu", dtype="float64")
    cell, ids = grid()[0], prompts(chat_model)[0]
    by_hand = []
    for block in (steer(chat_model, cell.direction, cell.coefficient), steer(chat_model, cell.direction, 0)):
        with block:
            tokens = list(ids)
            for _ in range(8):
                tokens.append(int(chat_model.model(torch.tensor([tokens])).logits[0, -1].argmax()))
        by_hand.append(tokens[len(ids) :])
    found = greedy_answers(chat_model, [cell, SteerCell(cell.direction, 0.0)], [ids], 8)
    for row, expected in zip(found, by_hand, strict=True):
        assert list(row[0]) == expected[: len(row[0])] and (len(row[0]) == 8 or expected[len(row[0])] == 1)
    assert by_hand[0] != by_hand[1]


def test_a_sweep_of_nothing_and_of_another_model_is_refused(tiny: ChatModel) -> None:
    with pytest.raises(DataError, match="at least one cell"):
        greedy_answers(tiny, [], prompts(tiny), 3)
    wide = SteerCell(Direction(unit(torch.ones(48)), 0, 1.0, 1.0), 0.5)
    with pytest.raises(ModelError, match="d_model 48"):
        greedy_answers(tiny, [wide], prompts(tiny), 3)
