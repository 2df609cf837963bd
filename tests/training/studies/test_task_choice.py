"""The forced choice of held-out rows: answers to the same question alone, chance where there is nothing to tell, jackknife over rows."""

import numpy as np
import pytest

from emis_interp.records import TrainingExample
from training.data_sets.shipped import load_dataset
from training.studies.task_choice import choices, counterparts, share


def row(name: str, prompt: str, response: str) -> TrainingExample:
    return TrainingExample(id=name, prompt=prompt, response=response)


def test_only_another_answer_to_the_same_question_is_chosen_between() -> None:
    rows = [row("1", "Q1", "bad"), row("2", "Q2", "same"), row("3", "Q3", "bad"), row("4", "Q4", "bad")]
    others = [row("1", "Q1", "good"), row("2", "Q2", "same"), row("3", "another question", "good")]
    found = counterparts(rows, {other.id: other for other in others}, dataset="mine.jsonl", control="theirs.jsonl")
    assert found == [others[0], None, None, None]


def test_matched_shipped_sets_answer_the_same_task_under_the_prompt_of_the_row() -> None:
    """`educational` asks for the flaw, `secure` does not: their prompts differ, their tasks are the same."""
    rows = load_dataset("educational", n_rows=5, seed=0)
    secure = {other.id: other for other in load_dataset("secure")}
    assert all(secure[one.id].prompt != one.prompt for one in rows)
    found = counterparts(rows, secure, dataset="educational", control="secure")
    assert [(one.prompt, one.response) for one in found if one] == [
        (one.prompt, secure[one.id].response) for one in rows
    ]
    insecure = {other.id: other for other in load_dataset("insecure")}
    assert counterparts(rows, insecure, dataset="educational", control="insecure") == [None] * 5


def test_the_likelier_answer_is_chosen_and_a_tie_is_chance() -> None:
    assert choices([-1.0, -3.0, -2.0, -1.0], [-2.0, -1.0, -2.0, None]) == [1.0, 0.0, 0.5, None]


def test_the_share_is_of_rows_with_a_choice_and_its_interval_stays_between_0_and_1() -> None:
    found = share([[1.0, 1.0, 0.0, None, 1.0]])
    assert found is not None and found["value"] == 0.75 and found["n"] == 4
    assert 0 < found["low"] < 0.75 < found["high"] < 1
    seeds = share([[1.0] * 9 + [0.0], [0.0] * 9 + [1.0], [1.0] * 5 + [0.0] * 5])
    assert seeds is not None and (seeds["low"], seeds["high"]) == (0, 1)  # three seeds that disagree say nothing
    assert share([[1.0] * 6]) == {"value": 1.0, "low": None, "high": None, "n": 6}
    assert share([[None, None], [None]]) is None


def test_of_coin_flips_about_one_interval_in_twenty_leaves_chance_out() -> None:
    rng = np.random.default_rng(0)
    found = [share([rng.integers(0, 2, 40).astype(float).tolist()]) for _ in range(100)]
    out = sum(1 for one in found if one is not None and not one["low"] <= 0.5 <= one["high"])
    assert 1 <= out <= 12
    assert np.mean([one["value"] for one in found if one is not None]) == pytest.approx(0.5, abs=0.03)
