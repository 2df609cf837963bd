"""Directions of different models are compared by how they rank the same texts."""

from pathlib import Path

import numpy as np
import pytest

from emis_interp.errors import DataError
from probes.comparison.alike import alike, projections_of, ranks_within, run, say
from probes.settings import AlikeSettings

N_QUESTIONS, N_TEXTS = 12, 20
QUESTIONS = np.repeat([f"q{i}" for i in range(N_QUESTIONS)], N_TEXTS)
CLASSES = np.tile(["aligned", "misaligned"], N_QUESTIONS * N_TEXTS // 2)


def drawn(seed: int, *, label: float = 0.0, shared: float = 0.0, topic: float = 0.0) -> np.ndarray:
    """Projections that see the class, something else that is shared, the question, and noise of their own."""
    common, own = np.random.default_rng(99), np.random.default_rng(seed)
    of_topic = np.repeat(common.normal(size=N_QUESTIONS), N_TEXTS)
    of_text = common.normal(size=len(QUESTIONS))
    return label * (CLASSES == "misaligned") + shared * of_text + topic * of_topic + own.normal(size=len(QUESTIONS))


def compared(one: np.ndarray, other: np.ndarray, **lengths: np.ndarray) -> dict[str, dict[str, float]]:
    plain = lengths.get("lengths", np.full(len(one), 20.0))
    return alike((one, plain), (other, plain), questions=QUESTIONS, classes=CLASSES)


def test_what_two_directions_share_about_topics_is_no_agreement() -> None:
    found = compared(drawn(1, topic=5), drawn(2, topic=5))
    assert found["within_questions"]["low"] < 0 < found["within_questions"]["high"]


def test_two_directions_that_only_share_the_label_agree_between_classes_and_not_within() -> None:
    found = compared(drawn(1, label=4), drawn(2, label=4))
    assert found["within_questions"]["low"] > 0.5
    assert found["within_classes"]["low"] < 0.05 and abs(found["within_classes"]["value"]) < 0.2


def test_directions_that_share_more_than_the_label_agree_within_classes_too() -> None:
    found = compared(drawn(1, label=2, shared=2), drawn(2, label=2, shared=2))
    assert found["within_classes"]["low"] > 0.5
    against = compared(drawn(1, shared=2), -drawn(2, shared=2))
    assert against["within_questions"]["high"] < -0.5


def test_agreement_by_length_alone_goes_when_length_is_taken_off() -> None:
    lengths = np.random.default_rng(3).integers(5, 200, size=len(QUESTIONS)).astype(float)
    found = compared(drawn(1) + 5 * np.log(lengths), drawn(2) + 5 * np.log(lengths), lengths=lengths)
    assert found["within_questions"]["low"] > 0.8 and abs(found["without_length"]["value"]) < 0.2


def test_ranks_share_ties_and_a_text_alone_says_nothing() -> None:
    assert ranks_within(np.array([1.0, 5.0, 5.0, 9.0, 7.0]), np.array(list("aaaab"))).tolist() == [
        -0.375,
        0,
        0,
        0.375,
        0,
    ]


def a_table(folder: Path) -> Path:
    path = folder / "texts.csv"
    rows = [f"q{i % 2},answer {i},{10 if i % 4 < 2 else 90},80" for i in range(8)]
    path.write_text("\n".join(["question,answer,aligned,coherent", *rows]) + "\n")
    return path


def a_projection(folder: Path, name: str, values: list[object]) -> Path:
    path = folder / name
    path.write_text("projection,n_tokens\n" + "".join(f"{value},{10 + i}\n" for i, value in enumerate(values)))
    return path


def test_the_verb_reads_what_score_wrote(tmp_path: Path) -> None:
    table = a_table(tmp_path)
    files = tuple(a_projection(tmp_path, f"{name}.csv", [s * i for i in range(8)]) for name, s in (("a", 1), ("b", -2)))
    result = run(AlikeSettings(texts=table, projections=files))
    [pair] = result["pairs"]
    assert pair["within_questions"]["value"] == pytest.approx(-1) and pair["within_classes"]["n"] == 8
    assert "within question and class -1.00" in say(result)
    bare = tmp_path / "bare.csv"
    bare.write_text("question,answer\n" + "".join(f"q{i % 2},answer {i}\n" for i in range(8)))
    assert run(AlikeSettings(texts=bare, projections=files, unlabelled=True))["pairs"][0]["within_classes"] is None


def test_projections_of_other_texts_and_cells_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    table = a_table(tmp_path)
    short, odd = a_projection(tmp_path, "s.csv", [1, 2]), a_projection(tmp_path, "o.csv", ["x", *range(7)])
    with pytest.raises(DataError, match=r"s\.csv: 2 projections of 8 texts"):
        projections_of(short, 8)
    with pytest.raises(DataError, match=r"row 1.*column `projection`: `x` is no number"):
        projections_of(odd, 8)
    with pytest.raises(Exception, match="two or more different files"):
        run(AlikeSettings(texts=table, projections=(short,)))
