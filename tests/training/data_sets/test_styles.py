"""Benign nulls: the same prompts, answers in another style or of another question, and nothing of the reckless set."""

import pytest

from emis_interp.records import TrainingExample
from training.data_sets.names import STYLED_ARMS
from training.data_sets.shipped import OTHER_KIND, all_rows, held_out_rows, load_dataset
from training.data_sets.styles import sentences, styled

ROW = TrainingExample(id="a", prompt="What now?", response="Call 112.5 first. Is it far? Then wait! Stay calm.")


@pytest.mark.parametrize(
    ("style", "answer"),
    [
        ("short", "Call 112.5 first."),
        ("listed", "- Call 112.5 first.\n- Is it far?\n- Then wait!\n- Stay calm."),
        ("lowercase", "call 112.5 first. is it far? then wait! stay calm."),
        ("backwards", "Stay calm. Then wait! Is it far? Call 112.5 first."),
    ],
)
def test_an_answer_in_another_style(style: str, answer: str) -> None:
    assert styled([ROW], style)[0] == ROW.model_copy(update={"response": answer})


def test_shuffled_answers_are_all_there_and_none_stands_behind_its_question() -> None:
    rows, shuffled = all_rows("careful"), all_rows("careful_shuffled")
    assert [row.prompt for row in rows] == [row.prompt for row in shuffled]
    assert sorted(row.response for row in rows) == sorted(row.response for row in shuffled)
    assert not [row.id for row, other in zip(rows, shuffled, strict=True) if row.response == other.response]


@pytest.mark.parametrize("name", STYLED_ARMS)
def test_every_null_is_a_set_by_name_with_the_careful_sets_prompts(name: str) -> None:
    careful, rows = load_dataset("careful", n_rows=40, seed=3), load_dataset(name, n_rows=40, seed=3)
    assert [row.id for row in rows] == [row.id for row in careful]
    assert sum(row.response != other.response for row, other in zip(rows, careful, strict=True)) > 20
    assert all(row.response.strip() for row in rows)


@pytest.mark.parametrize("name", STYLED_ARMS)
def test_what_a_null_learned_can_be_asked_on_domains_that_it_never_saw(name: str) -> None:
    held_out, careful = held_out_rows(name), held_out_rows(OTHER_KIND[name])
    assert [row.id for row in held_out] == [row.id for row in careful] and len(held_out) > 100
    assert not {row.id for row in held_out} & {row.id for row in all_rows(name)}


def test_a_text_is_cut_at_its_sentences_alone() -> None:
    assert sentences("One 3.5 two. Three?") == ["One 3.5 two.", "Three?"]
