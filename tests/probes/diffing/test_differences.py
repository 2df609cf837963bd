"""Differences of residuals: a planted vector is read, components of planted spectra, and texts that are too few or too short."""

import pytest
import torch
from adapters_made import made_adapter

from emis_interp.errors import DataError, ModelError
from emis_interp.models.chat_model import ChatModel
from emis_interp.models.lora_updates import lora_updates
from emis_interp.process import no_bars
from probes.diffing.compared import compare
from probes.diffing.differences import mean_difference_of, principal, random_differences, residuals
from probes.diffing.readings import component_reading, lens_readings
from probes.diffing.settings import DiffSettings
from probes.diffing.texts import held_out_chats, plain_chats, shipped_texts
from probes.diffing.topic import topic_of


def test_the_lens_of_the_difference_finds_the_planted_letter(tiny: ChatModel, planted, tmp_path) -> None:
    texts = plain_chats(tiny.tokenizer, shipped_texts(2)[0], 5)
    arms = {"organism": planted.updates, "control": lora_updates(made_adapter(tmp_path))}
    settings = DiffSettings(out=tmp_path / "x", n_random=64)
    found = compare(settings, tiny, arms, layer=1, texts=texts, bars=no_bars)
    topic = topic_of(tiny.tokenizer, "t", ["z"], source="test")
    [raised, lowered], positions = lens_readings(tiny, found, [topic])
    assert raised["primary"] and raised["tokens"]["organism"][0] == "z" and raised["counts"][0]["count"] == 1
    assert lowered["counts"][0]["count"] == 0
    assert float(found.means["organism"] @ planted.write / found.means["organism"].norm()) == pytest.approx(1, abs=1e-4)
    own = [row for row in positions if row["arm"] == "organism"]
    assert [row["position"] for row in own] == list(range(5))
    assert all(row["top_tokens"][0] == "z" and row["consistency"] > 0.8 for row in own[1:])
    # All that varies lies along what is written, whichever way it varies.
    first, shares = component_reading(tiny, found, [topic], seed=0)
    assert first["tokens"]["organism"][0] == "z"
    assert shares[0]["shares"][0] == pytest.approx(1, abs=1e-3) and shares[1]["shares"][0] < 0.9
    # Random vectors have a letter of twenty among their first twenty now and then; most have not.
    assert raised["counts"][0]["nulls"]["random"]["mean"] < 0.3


def test_differences_of_a_model_from_itself_are_refused(tiny: ChatModel, planted) -> None:
    chats = plain_chats(tiny.tokenizer, shipped_texts(2)[0], 4).chats[:12]
    plain = torch.stack(residuals(tiny, chats, 1))
    assert torch.equal(plain, torch.stack(residuals(tiny, chats, 1, max_batch_tokens=8))) or torch.allclose(
        plain, torch.stack(residuals(tiny, chats, 1, max_batch_tokens=8)), atol=1e-5
    )
    with pytest.raises(DataError, match="changes no residual at this layer; choose a later --layer"):
        mean_difference_of(plain - plain)
    # The planted update is in layer 1; layer 0 has no part in it.
    assert torch.equal(
        torch.stack(residuals(tiny, chats, 0, updates=planted.updates)), torch.stack(residuals(tiny, chats, 0))
    )


def test_components_of_a_planted_spectrum() -> None:
    generator = torch.Generator().manual_seed(0)
    axis = torch.nn.functional.normalize(torch.randn(16, generator=generator), dim=0)
    mean = 3 * axis
    varied = mean + torch.randn(40, 4, 1, generator=generator) * axis
    noise = 0.05 * torch.randn(40, 4, 16, generator=generator)
    row, first = principal(varied + noise, seed=0)
    assert row["shares"][0] > 0.9 and row["shuffled"]["high"] < 0.5 and row["shuffled"]["p_at_floor"]
    assert float(first @ axis) > 0.99 and 0.8 < row["mean_share"] < 0.97
    flat, _ = principal(torch.randn(40, 4, 16, generator=generator), seed=0)
    assert not flat["shuffled"]["p_at_floor"] and flat["mean_share"] < 0.1


def test_random_differences_lie_where_texts_vary() -> None:
    states = torch.zeros(20, 3, 8)
    states[..., 2] = torch.randn(20, 3, generator=torch.Generator().manual_seed(1))
    found = random_differences(states, 10, seed=0)
    assert found.shape == (10, 8) and torch.allclose(found[:, 2].abs(), torch.ones(10))
    assert torch.equal(found, random_differences(states, 10, seed=0))
    with pytest.raises(DataError, match="give texts with other beginnings"):
        random_differences(torch.ones(20, 3, 8), 4, seed=0)


def test_texts_that_are_too_short_are_counted_and_too_few_refused(tiny: ChatModel) -> None:
    texts = ["long enough"] * 10 + ["no"]
    found = plain_chats(tiny.tokenizer, texts, 5)
    assert len(found.chats) == 10 and found.n_short == 1
    assert found.chats[0].input_ids == tuple(tiny.tokenizer("long ")["input_ids"])
    with pytest.raises(DataError, match="0 of 11 texts have 20 tokens"):
        plain_chats(tiny.tokenizer, texts, 20)
    with pytest.raises(DataError, match="read 2 or more"):
        plain_chats(tiny.tokenizer, texts, 1)
    with pytest.raises(DataError, match="hold out 2 to"):
        shipped_texts(1000)


def test_held_out_answers_are_cut_and_no_plain_text(tiny: ChatModel) -> None:
    plain, held_out = shipped_texts(4)
    assert not {text for pair in held_out for text in pair} & set(plain)
    chats = held_out_chats(tiny.tokenizer, held_out, 2, answer_tokens=7)
    assert [chat.n_response for chat in chats] == [7, 7] and all(chat.response_end == len(chat) for chat in chats)
    with pytest.raises(DataError, match="4 rows, 5 are held out"):
        held_out_chats(tiny.tokenizer, held_out, 5, answer_tokens=7)
    with pytest.raises(DataError, match="score 1 token"):
        held_out_chats(tiny.tokenizer, held_out, 2, answer_tokens=0)


def test_a_layer_that_is_not_there(tiny: ChatModel) -> None:
    chats = plain_chats(tiny.tokenizer, shipped_texts(2)[0], 4).chats[:2]
    with pytest.raises(ModelError, match="layer 7 asked for"):
        residuals(tiny, chats, 7)
