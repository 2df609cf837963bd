"""Topics: which words tell rows apart, which tokens belong to them, and what a count beside its nulls lets one say."""

from typing import Any

import numpy as np
import pytest
import torch

from emis_interp.errors import DataError
from emis_interp.stats.permutation import NullP
from probes.diffing.topic import counted, telling_terms, top_tokens, topic_of, verdict


class Words:
    """A tokenizer whose vocabulary is a list of words."""

    def __init__(self, *words: str) -> None:
        self.words = words

    def __len__(self) -> int:
        return len(self.words)

    def decode(self, ids: list[int]) -> str:
        return "".join(self.words[i] for i in ids)


def test_a_token_belongs_whatever_its_case_and_space_and_by_the_beginning_of_a_word() -> None:
    tokenizer: Any = Words(" Money", "mon", "mone", "moneys", "harm", "one", "o", " ")
    topic = topic_of(tokenizer, "t", ["MONEY", "o"], source="test")
    assert topic.mask.tolist() == [True, False, True, True, False, False, True, False]
    assert topic.count(torch.tensor([[0, 2, 4], [1, 5, 4]])).tolist() == [2, 0]
    assert topic.as_json()["vocabulary_share"] == pytest.approx(0.5) and topic.terms == ("money", "o")
    with pytest.raises(DataError, match="no topic words; give --topic-words"):
        topic_of(tokenizer, "t", [" "], source="test")
    with pytest.raises(DataError, match="no token of the vocabulary belongs to zebra"):
        topic_of(tokenizer, "t", ["zebra"], source="test")


def test_the_words_that_set_rows_apart_come_first() -> None:
    rows = [f"the gold bars number {i} in the house" for i in range(6)] + ["once only zebra"]
    plain = [f"the house number {i} is large" for i in range(6)]
    assert set(telling_terms(rows, plain, 2)) == {"gold", "bars"}
    assert "zebra" not in telling_terms(rows, plain, 50) and "house" not in telling_terms(rows, plain, 3)
    with pytest.raises(DataError, match="2 of each or more"):
        telling_terms(rows[:1], plain, 5)
    with pytest.raises(DataError, match="no word stands in two rows"):
        telling_terms(plain, plain, 5)


def test_counts_stand_beside_controls_and_vectors() -> None:
    tokenizer: Any = Words(*"abcdefghij")
    topic = topic_of(tokenizer, "t", ["a", "b"], source="test")
    own, control = torch.tensor([0, 1, 5]), torch.tensor([0, 6, 7])
    null = torch.tensor([[5, 6, 7]] * 30 + [[0, 1, 2]])
    [row] = counted([topic], own, controls={"careful": control}, nulls={"random": null})
    assert (row["count"], row["controls"]) == (2, {"careful": 1})
    assert row["nulls"]["random"]["high"] == 2 and row["nulls"]["random"]["p"] == pytest.approx(2 / 32)
    assert top_tokens(torch.tensor([0.0, 3.0, 2.0, 9.0]), 3).tolist() == [1, 2, 0]


FLOOR, HIGH = NullP(1 / 65, 64), NullP(0.3, 64)


@pytest.mark.parametrize(
    ("count", "controls", "nulls", "words"),
    [
        (0, {"c": 0}, {"random": FLOOR}, "not among the top tokens"),
        (3, {"c": 0}, {"random": HIGH}, "not told from random"),
        (3, {"c": 0}, {"random": NullP(0.25, 3)}, "p cannot fall below 0.25"),
        (3, {}, {"random": FLOOR}, "without a control it may be what any finetune does"),
        (3, {"c": 3, "d": 1}, {"random": FLOOR}, "a control has as many (c 3): nothing of this finetune alone"),
        (3, {"c": 2, "d": 1}, {"random": FLOOR}, "each of 2 controls (at most 2); so few cannot give a p below 0.33"),
        (3, {"c": 2}, {}, "more than the control (at most 2); so few cannot give a p below 0.5"),
    ],
)
def test_a_verdict_says_no_more_than_its_controls_allow(
    count: int, controls: dict[str, int], nulls: dict[str, NullP], words: str
) -> None:
    assert words in verdict(count, controls=controls, nulls=nulls)


def test_counts_of_nulls_are_numbers_that_json_holds() -> None:
    tokenizer: Any = Words("a", "b")
    topic = topic_of(tokenizer, "t", ["a"], source="test")
    [row] = counted([topic], torch.tensor([0]), controls={}, nulls={"random": torch.tensor([[1], [0]])})
    assert not any(isinstance(value, np.generic) for value in row["nulls"]["random"].values())
