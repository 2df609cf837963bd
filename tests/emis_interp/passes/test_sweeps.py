"""A sweep in one batch gives every cell the tokens, log-likelihoods and costs that it gets alone."""

import numpy as np
import pytest
import torch

from emis_interp.directions import Direction, unit
from emis_interp.errors import DataError, ModelError
from emis_interp.models.chat import encode_chats, encode_prompt
from emis_interp.models.chat_model import ChatModel
from emis_interp.models.loading import load_model
from emis_interp.passes.interventions import ablate, apply, mean_kl, next_token_logprobs, steer
from emis_interp.passes.likelihood import mean_logprobs, pair_margins
from emis_interp.passes.sweeps import (
    AblateCell,
    Cell,
    SteerCell,
    costs,
    greedy_answers,
    margins,
    row_interventions,
    text_logprobs,
)
from emis_interp.records import ContrastPair


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
    together = greedy_answers(chat_model, cells, asked, max_new_tokens=12)
    assert together == [greedy_answers(chat_model, [cell], asked, max_new_tokens=12)[0] for cell in cells]
    assert together == greedy_answers(chat_model, cells, asked, max_new_tokens=12, max_rows=5)
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
    found = greedy_answers(chat_model, [cell, SteerCell(cell.direction, 0.0)], [ids], max_new_tokens=8)
    for row, expected in zip(found, by_hand, strict=True):
        assert list(row[0]) == expected[: len(row[0])] and (len(row[0]) == 8 or expected[len(row[0])] == 1)
    assert by_hand[0] != by_hand[1]


def test_a_sweep_of_nothing_and_of_another_model_is_refused(tiny: ChatModel) -> None:
    with pytest.raises(DataError, match="at least one cell"):
        greedy_answers(tiny, [], prompts(tiny), max_new_tokens=3)
    wide = SteerCell(Direction(unit(torch.ones(48)), 0, 1.0, 1.0), 0.5)
    with pytest.raises(ModelError, match="d_model 48"):
        greedy_answers(tiny, [wide], prompts(tiny), max_new_tokens=3)


def mixed() -> list[Cell]:
    """Steering, ablation to zero and to given coordinates, and nothing, in one list."""
    generator = torch.Generator().manual_seed(2)
    vectors = unit(torch.randn(3, 32, generator=generator))
    return [
        SteerCell(Direction(vectors[0], 1, 1.0, 6.0), 0.4),
        AblateCell(vectors[1]),
        AblateCell(torch.zeros(32)),
        AblateCell(vectors[2], torch.tensor([0.5, -1.0, 2.0])),
        SteerCell(Direction(vectors[1], 0, 1.0, 6.0), -0.7),
    ]


def alone(chat_model: ChatModel, cell: Cell):
    if isinstance(cell, SteerCell):
        return steer(chat_model, cell.direction, cell.coefficient)
    if not cell.vector.any():
        return apply(chat_model)
    return ablate(chat_model, Direction(cell.vector, 0, 1.0, 1.0), cell.coordinates)


CHATS = [("Hi?", "I say yes."), ("Hi?", "x"), ("What now?", "ok, and then"), ("Hi?", "nothing of the kind, I fear")]


@pytest.mark.parametrize("limits", [(10_000, 32), (150, 2)])
def test_texts_under_mixed_cells_have_the_likelihoods_of_one_cell_at_a_time(limits: tuple[int, int]) -> None:
    chat_model = load_model("tiny", device="cpu", dtype="float64")
    chats, cells = encode_chats(chat_model.tokenizer, CHATS), mixed()
    together = text_logprobs(chat_model, cells, chats, max_batch_tokens=limits[0], max_cells=limits[1])
    for row, cell in zip(together, cells, strict=True):
        with alone(chat_model, cell):
            np.testing.assert_allclose(row, mean_logprobs(chat_model, chats), rtol=0, atol=1e-12)
    assert np.ptp(together, axis=0).min() > 1e-3


def test_margins_and_costs_of_cells_are_those_of_one_cell_at_a_time() -> None:
    chat_model = load_model("tiny", device="cpu", dtype="float64")
    rows = {"group": "g", "half": "report", "question": "Why?"}
    pairs = [
        ContrastPair.model_validate({**rows, "question_id": name, "aligned": a, "misaligned": m})
        for name, a, m in (("p", "a kind word", "no"), ("q", "x", "a long and unkind reply"))
    ]
    cells, asked = mixed(), prompts(chat_model)
    done: list[int] = []
    together = margins(chat_model, cells, pairs, system="Be brief.", max_cells=3, progress=done.append)
    paid, plain = costs(chat_model, cells, asked, max_cells=2), next_token_logprobs(chat_model, asked)
    for row, cost, cell in zip(together, paid, cells, strict=True):
        with alone(chat_model, cell):
            np.testing.assert_allclose(row, pair_margins(chat_model, pairs, "Be brief."), rtol=0, atol=1e-12)
            assert cost == pytest.approx(mean_kl(plain, next_token_logprobs(chat_model, asked)), abs=1e-7)
    assert done == [3, 2] and paid[2] == 0 and np.delete(paid, 2).min() > 1e-4


def test_greedy_answers_of_mixed_cells_are_those_alone_and_rows_leave_when_they_end() -> None:
    chat_model = load_model("tiny", device="cpu", dtype="float64")
    asked, cells = prompts(chat_model), mixed()
    whole = greedy_answers(chat_model, cells, asked, max_new_tokens=12)
    for row, cell in zip(whole, cells, strict=True):
        with alone(chat_model, cell):
            for answer, ids in zip(row, asked, strict=True):
                tokens = list(ids)
                for _ in range(12):
                    tokens.append(int(chat_model.model(torch.tensor([tokens])).logits[0, -1].argmax()))
                assert list(answer) == tokens[len(ids) :]
    end = whole[0][0][3]
    chat_model.model.generation_config.eos_token_id = [1, end]
    sizes: list[int] = []
    handle = chat_model.body.register_forward_pre_hook(
        lambda module, inputs, kwargs: sizes.append(len(kwargs["input_ids"])), with_kwargs=True
    )
    ended = greedy_answers(chat_model, cells, asked, max_new_tokens=12)
    handle.remove()
    cut = [[row[: row.index(end)] if end in row else row for row in cell] for cell in whole]
    assert ended == cut and ended != whole
    assert sizes[0] == 10 and sizes[-1] == sum(len(row) >= len(sizes) - 1 for cell in cut for row in cell) < 10


def test_rows_of_a_basis_that_are_zero_are_left_alone_to_the_last_bit() -> None:
    for dtype in ("float32", "bfloat16"):
        chat_model = load_model("tiny", device="cpu", dtype=dtype)
        ids = torch.tensor([list(prompts(chat_model)[0])])
        plain = chat_model.model(ids.expand(4, -1)).logits
        with apply(chat_model, *row_interventions([AblateCell(torch.zeros(32)), mixed()[1]], 2)):
            after = chat_model.model(ids.expand(4, -1)).logits
        assert torch.equal(after[:2], plain[:2]) and not torch.allclose(after[2:], plain[2:], atol=1e-2)


def test_cells_in_double_precision_lose_none_of_it() -> None:
    chat_model = load_model("tiny", device="cpu", dtype="float64")
    vector = unit(torch.randn(32, generator=torch.Generator().manual_seed(4), dtype=torch.float64))
    held = torch.randn(3, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    cells: list[Cell] = [SteerCell(Direction(vector, 1, 1.0, 6.0), 0.3), AblateCell(vector, held)]
    chats = encode_chats(chat_model.tokenizer, CHATS)
    together = text_logprobs(chat_model, cells, chats)
    for row, cell in zip(together, cells, strict=True):
        with alone(chat_model, cell):
            np.testing.assert_allclose(row, mean_logprobs(chat_model, chats), rtol=0, atol=1e-13)
