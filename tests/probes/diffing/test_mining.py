"""What is mined from logits: nothing from a model and itself, the planted letter from the planted organism, the same from any batches."""

from contextlib import nullcontext
from functools import partial

import pytest
import torch

from emis_interp.models.chat import EncodedChat
from emis_interp.models.chat_model import ChatModel
from emis_interp.passes.low_rank import adding
from probes.diffing.mining import N_RISING, Mined, mine
from probes.diffing.texts import plain_chats, shipped_texts


def texts(tiny: ChatModel) -> list[EncodedChat]:
    return plain_chats(tiny.tokenizer, shipped_texts(2)[0], 20).chats[:7]


def test_a_model_has_nothing_over_itself(tiny: ChatModel) -> None:
    found = mine(tiny, {"itself": nullcontext}, texts(tiny))["itself"]
    row = found.as_json(tiny.tokenizer, texts(tiny))
    assert row["kl"]["value"] == pytest.approx(0, abs=1e-6) and row["n_texts"] == 7
    assert int(found.times.sum()) == 0 and found.topics(seed=0) == []


def test_the_planted_letter_rises_most_often(tiny: ChatModel, planted) -> None:
    arms = {"organism": partial(adding, tiny, planted.updates), "base": nullcontext}
    found = mine(tiny, arms, texts(tiny))["organism"]
    assert int(found.top()[0]) == planted.token
    assert int(found.times[planted.token]) > 0.9 * 7 * 19
    assert any(planted.token in topic[:2].tolist() for topic in found.topics(seed=0))
    row = found.as_json(tiny.tokenizer, texts(tiny))
    assert len(row["largest"]) == 8 and row["largest"][0]["kl"] >= row["largest"][-1]["kl"] > 0


def test_batches_do_not_matter_and_kl_is_that_of_whole_passes(tiny: ChatModel, planted) -> None:
    arms = {"organism": partial(adding, tiny, planted.updates)}
    one, many = (mine(tiny, arms, texts(tiny), max_batch_tokens=n)["organism"] for n in (2048, 40))
    assert one.kls == pytest.approx(many.kls, abs=1e-5) and torch.equal(one.times, many.times)
    chat = texts(tiny)[0]
    with torch.no_grad():
        before = tiny.model(torch.tensor([chat.input_ids])).logits[0, :-1].log_softmax(-1)
        with adding(tiny, planted.updates):
            after = tiny.model(torch.tensor([chat.input_ids])).logits[0, :-1].log_softmax(-1)
    expected = torch.nn.functional.kl_div(after, before, log_target=True, reduction="sum") / len(before)
    assert one.kls[0] == pytest.approx(float(expected), abs=1e-5)


def test_ties_go_to_what_rises_more() -> None:
    mined = Mined(30)
    before = torch.zeros(2, 30)
    after = before.clone()
    after[0, 3], after[1, 3], after[0, 5], after[0, 7] = 1.0, 1.0, 2.0, 4.0
    mined.add(0, 1, before=before, after=after)
    assert mined.top()[:3].tolist() == [3, 7, 5]
    assert int(mined.times[3]) == 2 and len(mined.kept[0][0][0]) == N_RISING


def test_topics_of_planted_groups_are_told_apart() -> None:
    mined, before = Mined(60), torch.zeros(40, 60)
    after = before.clone()
    after[:20, 0:10] = 5.0
    after[20:, 30:40] = 3.0
    mined.add(0, 1, before=before, after=after)
    found = [set(topic[:10].tolist()) for topic in mined.topics(seed=0)]
    assert set(range(10)) in found and set(range(30, 40)) in found
