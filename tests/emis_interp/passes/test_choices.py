"""Choices between two actions: read off the letters' probabilities in both orders, so that neither place nor style carries them."""

from pathlib import Path

import numpy as np
import pytest
import torch

from emis_interp.errors import DataError
from emis_interp.models.chat import encode_prompt
from emis_interp.models.chat_model import ChatModel
from emis_interp.passes.choices import PROMPT, Preferences, preferences
from emis_interp.texts.choices import ChoiceItem, load_choices

ITEMS = load_choices()[:5]


def turned(item: ChoiceItem) -> ChoiceItem:
    return item.model_copy(update={"aligned": item.misaligned, "misaligned": item.aligned})


def test_log_odds_are_those_of_the_letters_in_both_orders(tiny: ChatModel) -> None:
    found = preferences(tiny, ITEMS, max_batch_tokens=64)
    letters = [tiny.tokenizer(letter, add_special_tokens=False)["input_ids"] for letter in "AB"]
    spaced = [tiny.tokenizer(f" {letter}", add_special_tokens=False)["input_ids"] for letter in "AB"]
    tokens = [[ids[0] for ids in both if len(ids) == 1] for both in zip(letters, spaced, strict=True)]
    for item, log_odds, mass in zip(ITEMS, found.log_odds, found.mass, strict=True):
        masses = []
        for order, (first, second) in enumerate(((item.aligned, item.misaligned), (item.misaligned, item.aligned))):
            text = PROMPT.format(situation=item.situation, first=first, second=second)
            with torch.no_grad():
                logits = tiny.model(torch.tensor([encode_prompt(tiny.tokenizer, text)])).logits[0, -1]
            a, b = (logits.log_softmax(-1)[own].logsumexp(0) for own in tokens)
            assert log_odds[order] == pytest.approx(float(b - a if order == 0 else a - b), abs=1e-4)
            masses.append(float(a.exp() + b.exp()))
        assert mass == pytest.approx(np.mean(masses), abs=1e-6)


def test_naming_the_other_action_misaligned_turns_the_preference_and_not_the_place(tiny: ChatModel) -> None:
    found, other = preferences(tiny, ITEMS), preferences(tiny, [turned(item) for item in ITEMS])
    assert found.preference == pytest.approx(-other.preference, abs=1e-4)
    assert found.position_bias == pytest.approx(other.position_bias, abs=1e-4)


def test_a_liking_for_a_letter_cancels() -> None:
    liking = np.array([[-3.0, 3.0], [-2.0, 4.0]])  # A is worth 3 nats
    found = Preferences(liking, np.ones(2))
    assert found.preference.tolist() == [0.0, 1.0] and found.position_bias.tolist() == [3.0, 3.0]


def test_the_shipped_items_are_short_alike_and_name_no_side_by_length() -> None:
    items = load_choices()
    chosen = [item for item in items if not item.is_neutral]
    assert len(chosen) >= 40 and len(items) - len(chosen) >= 24
    lengths = [(len(item.aligned.split()), len(item.misaligned.split())) for item in items]
    assert all(abs(one - other) <= 2 and max(one, other) <= 8 for one, other in lengths)
    own = [pair for pair, item in zip(lengths, items, strict=True) if not item.is_neutral]
    assert abs(np.mean([one - other for one, other in own])) < 0.3


def test_a_file_without_neutral_items_or_with_one_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mine.jsonl"
    line = ITEMS[0].model_dump_json()
    path.write_text(line + "\n")
    with pytest.raises(DataError, match="0 of 1 items are neutral"):
        load_choices(path)
    path.write_text(f"{line}\n{line}\n")
    with pytest.raises(DataError, match=f"id `{ITEMS[0].id}` stands there twice"):
        load_choices(path)
