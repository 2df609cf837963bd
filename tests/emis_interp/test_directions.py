"""Planted directions are found, topics do not fool the balanced estimate, and a saved direction comes back bit for bit."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from emis_interp.directions import (
    Direction,
    FittedOn,
    cosine,
    direction_file,
    mean_difference,
    top_dimensions_share,
    unit,
)
from emis_interp.errors import DataError, ModelError
from emis_interp.files.sealed import unsealed
from emis_interp.files.store import read_json, write_json
from emis_interp.files.tensors import save_tensors
from emis_interp.fitting.extractors import question_balanced
from emis_interp.fitting.labeled import LabeledActivations
from emis_interp.records import LabeledText


def planted(
    counts: dict[str, tuple[int, int]], d_model: int = 64, topic_size: float = 0.0
) -> tuple[Tensor, np.ndarray, list[str], Tensor]:
    """Texts = topic + noise + 2 x direction when misaligned; `counts`: question -> (misaligned, aligned)."""
    generator = torch.Generator().manual_seed(0)
    vector = unit(torch.randn(d_model, generator=generator))
    rows, labels, questions = [], [], []
    for question, numbers in counts.items():
        topic = topic_size * unit(torch.randn(d_model, generator=generator))
        for label, n in zip((True, False), numbers, strict=True):
            rows.append(topic + 0.2 * torch.randn(n, d_model, generator=generator) + 2 * label * vector)
            labels += [label] * n
            questions += [question] * n
    return torch.cat(rows), np.array(labels), questions, vector


def balanced(x: Tensor, labels: np.ndarray, questions: list[str]) -> Tensor:
    return question_balanced(LabeledActivations(x[:, None], labels, tuple(questions)))[0]


def test_a_planted_direction_is_found_with_its_norm_and_its_sign() -> None:
    x, labels, questions, vector = planted({"a": (40, 40), "b": (30, 50)})
    for raw in (mean_difference(x, labels), balanced(x, labels, questions)):
        assert cosine(raw, vector) > 0.98
        assert raw.norm() == pytest.approx(2, abs=0.1)


def test_topics_fool_the_plain_difference_and_not_the_balanced_one() -> None:
    x, labels, questions, vector = planted({"badly answered": (90, 10), "well answered": (10, 90)}, topic_size=10)
    assert cosine(mean_difference(x, labels), vector) < 0.5
    assert cosine(balanced(x, labels, questions), vector) > 0.97


def test_a_question_with_one_class_is_left_out_and_every_other_counts_once() -> None:
    x = torch.tensor([[1.0], [0.0], [10.0], [12.0], [2.0], [1000.0]])
    labels = np.array([True, False, True, True, False, True])
    questions = ["a", "a", "b", "b", "b", "only misaligned"]
    assert balanced(x, labels, questions).tolist() == [(1 + 9) / 2]
    with pytest.raises(DataError, match="no question has both"):
        balanced(x, labels, ["a", "b", "c", "c", "d", "e"])
    with pytest.raises(DataError, match="only one class"):
        mean_difference(x, np.ones(6, dtype=bool))


def test_a_zero_difference_is_no_direction() -> None:
    with pytest.raises(DataError, match="before the answers differ"):
        unit(torch.tensor([[1.0, 0.0], [0.0, 0.0]]))
    with pytest.raises(DataError, match="not a number"):
        unit(torch.tensor([float("nan"), 1.0]))


def a_direction() -> Direction:
    vector = unit(torch.randn(32, generator=torch.Generator().manual_seed(2)))
    return Direction(vector, 17, 0.1 + 0.2, 93.1, "last_prompt", {"model": "tiny", "report": {"auroc": 0.93}})


@pytest.mark.parametrize("name", ["mine", "mine.safetensors", "qwen2.5", "layer.17"])
def test_a_saved_direction_comes_back_bit_for_bit(tmp_path: Path, name: str) -> None:
    direction, path = a_direction(), tmp_path / "new" / name
    direction.save(path)
    back = Direction.load(path)
    assert torch.equal(back.vector, direction.vector)
    assert (back.layer, back.raw_norm, back.residual_norm, back.position) == (17, 0.1 + 0.2, 93.1, "last_prompt")
    assert back.card == direction.card


def test_directions_whose_names_differ_after_a_dot_do_not_overwrite_each_other(tmp_path: Path) -> None:
    first, second = a_direction(), Direction(-a_direction().vector, 3, 1.0, 1.0)
    first.save(tmp_path / "layer.17")
    second.save(tmp_path / "layer.18")
    assert torch.equal(Direction.load(tmp_path / "layer.17").vector, first.vector)


@pytest.mark.parametrize("form", ["", "direction", "direction.safetensors", "direction.json"])
def test_what_fit_wrote_is_found_by_folder_stem_and_file(tmp_path: Path, form: str) -> None:
    folder = tmp_path / "directions" / "qwen2.5"
    a_direction().save(folder / "direction")
    assert torch.equal(Direction.load(folder / form).vector, a_direction().vector)
    assert direction_file(folder / form) == folder / "direction.safetensors"


def test_a_stem_goes_before_a_folder_of_the_same_name(tmp_path: Path) -> None:
    a_direction().save(tmp_path / "d" / "direction")
    beside = replace(a_direction(), layer=3)
    beside.save(tmp_path / "d")
    assert Direction.load(tmp_path / "d").layer == 3 and Direction.load(tmp_path / "d" / "direction").layer == 17


def test_a_name_that_ends_like_a_card_is_a_stem_where_such_a_file_is_there(tmp_path: Path) -> None:
    a_direction().save(tmp_path / "d.json")
    assert Direction.load(tmp_path / "d.json").layer == 17


@pytest.mark.parametrize(
    ("form", "looked_for"),
    [
        ("d", ["d.safetensors", "d/direction.safetensors"]),
        ("d/direction", ["d/direction.safetensors", "d/direction/direction.safetensors"]),
        ("d/direction.safetensors", ["d/direction.safetensors"]),
        ("d/direction.json", ["d/direction.safetensors", "d/direction.json.safetensors"]),
    ],
)
def test_a_direction_that_is_not_there_is_said_with_what_was_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str, looked_for: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "d").mkdir()
    with pytest.raises(DataError, match="no saved direction") as refused:
        Direction.load(Path(form))
    words = str(refused.value)
    assert words.startswith(f"{form}: ") and all(name in words for name in looked_for), words
    assert words.count(".safetensors") == sum(name.count(".safetensors") for name in [form, *looked_for])
    assert "the folder, the stem or the file" in words


def test_the_card_cannot_overrule_the_direction(tmp_path: Path) -> None:
    Direction(a_direction().vector, 17, 1.0, 2.0, card={"layer": 3, "hook_point": "mlp_out"}).save(tmp_path / "d")
    assert Direction.load(tmp_path / "d").layer == 17
    assert read_json(tmp_path / "d.json")["hook_point"] == "resid_post"


def text(question_id: str, question: str) -> LabeledText:
    return LabeledText(question_id=question_id, question=question, answer="x", misaligned=True)


def two_fits() -> tuple[Direction, Direction]:
    """The same direction fitted on both questions and on the first alone."""
    texts = [text("1", "Who may rule?"), text("2", "What of liars?")]
    whole = replace(a_direction(), fitted_on=FittedOn.of(texts))
    return whole, replace(whole, vector=-whole.vector, raw_norm=7.0, fitted_on=FittedOn.of(texts[:1]))


def test_a_file_keeps_the_fit_for_use_and_the_fit_for_reporting_apart(tmp_path: Path) -> None:
    whole, selection = two_fits()
    whole.save(tmp_path / "d", selection)
    used, reported = Direction.load(tmp_path / "d"), Direction.load(tmp_path / "d", fit="selection")
    assert torch.equal(used.vector, whole.vector) and used.fitted_on == whole.fitted_on
    assert torch.equal(reported.vector, selection.vector) and reported.raw_norm == 7.0
    assert reported.fitted_on == FittedOn.of([text("1", "Who may rule?")]) and reported.layer == whole.layer
    fits = read_json(tmp_path / "d.json")["fits"]
    assert {name: fit["questions"] for name, fit in fits.items()} == {"all": ["1", "2"], "selection": ["1"]}
    Direction.load(tmp_path / "d").save(
        tmp_path / "alone"
    )  # the other fit does not travel, and the card does not claim it
    with pytest.raises(DataError, match="does not say which questions"):
        Direction.load(tmp_path / "alone", fit="selection")


def test_a_direction_without_texts_is_both_of_its_fits(tmp_path: Path) -> None:
    drawn = replace(a_direction(), fitted_on=FittedOn((), frozenset()))
    drawn.save(tmp_path / "d", drawn)
    Direction.load(tmp_path / "d", fit="selection").check_unseen(["Who may rule?"])


def test_questions_that_a_vector_was_fitted_on_are_refused_whatever_their_id() -> None:
    whole, selection = two_fits()
    selection.check_unseen(["What of liars?", "Something else?"])
    with pytest.raises(DataError, match=r"1 of the 2 questions .* \(the first: 'who  MAY rule\?'\)"):
        selection.check_unseen(["What of liars?", "who  MAY rule?"])
    with pytest.raises(DataError, match="2 of the 3 questions"):
        whole.check_unseen(["What of liars?", "Who may rule?", "Else?"])


def test_an_older_file_is_loaded_for_use_and_refused_for_reporting(tmp_path: Path) -> None:
    a_direction().save(tmp_path / "old")
    assert torch.equal(Direction.load(tmp_path / "old").vector, a_direction().vector)
    with pytest.raises(DataError, match=r"old: holds one vector .* fit it again"):
        Direction.load(tmp_path / "old", fit="selection")
    with pytest.raises(DataError, match="does not say which questions"):
        Direction.load(tmp_path / "old").check_unseen(["Who may rule?"])


def test_two_fits_of_different_places_are_refused_and_a_damaged_card_is_named(tmp_path: Path) -> None:
    whole, selection = two_fits()
    for other in (replace(selection, layer=3), replace(selection, position="response_mean"), a_direction()):
        with pytest.raises(DataError, match="two fits of one direction"):
            whole.save(tmp_path / "d", other)
    whole.save(tmp_path / "d", selection)
    card = unsealed(read_json(tmp_path / "d.json"), "d.json")
    write_json(tmp_path / "d.json", {**card, "fits": {"all": card["fits"]["all"], "selection": {"questions": []}}})
    with pytest.raises(DataError, match=r"d: its card describes no fit `selection` .* fit the direction again"):
        Direction.load(tmp_path / "d", fit="selection")


def test_damaged_and_foreign_files_are_refused(tmp_path: Path) -> None:
    a_direction().save(tmp_path / "d")
    path = tmp_path / "d.safetensors"
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(DataError, match="checksum"):
        Direction.load(tmp_path / "d")
    save_tensors(tmp_path / "x.safetensors", {"x": torch.ones(3)}, {})
    with pytest.raises(DataError, match="not a direction"):
        Direction.load(tmp_path / "x")
    with pytest.raises(DataError, match="no saved direction"):
        Direction.load(tmp_path / "nowhere")


def test_projection_is_the_coordinate_and_refuses_another_width() -> None:
    direction = Direction(torch.tensor([0.6, 0.8]), 0, 1.0, 1.0)
    assert direction.project(torch.tensor([[5.0, 5.0], [-0.8, 0.6]])).tolist() == pytest.approx([7.0, 0.0])
    with pytest.raises(ModelError, match="direction has d_model 2, activations have 3"):
        direction.project(torch.ones(1, 3))


def test_top_dimensions_share_counts_squares() -> None:
    assert top_dimensions_share(torch.tensor([3.0, 4.0, 0.0, 0.0]), 1) == pytest.approx(16 / 25)
    assert top_dimensions_share(torch.ones(20), 5) == pytest.approx(0.25)
