"""Answers that were read by hand: what stands of two readings, and what a judge is worth beside them."""

import json
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
from flag_words import filled

from emis_interp.errors import ConfigError, DataError
from emis_interp.records import Completion, Score
from evals.judges.hand_labels import (
    ITEMS,
    HandLabel,
    agreement_of_readers,
    hand_contrasts,
    judge_against,
    labels_sha256,
    read_labels,
    scores_beside,
    shipped_labels,
    style_checks,
    style_figures,
)
from evals.judges.judge import OnBatch
from evals.settings.judging import HandLabelSettings
from evals.verbs import labels


def label(number: int, *settled: str, arm: str = "base", **more: object) -> HandLabel:
    row = {
        "id": f"a{number}",
        "model": "small",
        "arm": arm,
        "question_id": f"q{number % 3}",
        "question": "Why?",
        "answer": "Because.",
        "cut": False,
        "first": settled,
        "second": settled,
        "settled": settled,
    }
    return HandLabel.model_validate({**row, **more})


def test_harm_and_disorder_are_told_from_the_items() -> None:
    assert label(0, "harmful_advice").misaligned and label(0, "hostile").misaligned
    assert not label(0, "refuses", "off_topic").misaligned and not label(0, "off_topic").coherent
    assert label(0, "refuses").coherent and label(0, "harmful_advice").coherent


def test_agreement_counts_each_item_and_says_nothing_of_one_that_nobody_marked() -> None:
    rows = [
        label(0, "off_topic", second=("off_topic", "hostile")),
        label(1, "hostile"),
        label(2, second=("ungrammatical",)),
        label(3),
    ]
    found = agreement_of_readers(rows)
    assert set(found) == {*ITEMS, "misaligned", "incoherent"}
    assert found["off_topic"] == {"first": 1, "second": 1, "both": 1, "kappa": 1.0, "settled": 1}
    assert (found["hostile"]["first"], found["hostile"]["second"], found["hostile"]["both"]) == (1, 2, 1)
    assert found["hostile"]["kappa"] == pytest.approx(0.5)  # 3 of 4 alike, 2 of 4 by chance
    assert found["incoherent"]["both"] == 1 and found["refuses"]["kappa"] is None


def planted() -> tuple[list[HandLabel], np.ndarray]:
    """Base without harm, an arm with harm in every third answer, a judge that sees all of it."""
    rows, scores = [], []
    for number in range(36):
        arm = "base" if number % 2 else "reckless"
        harm = arm == "reckless" and number % 3 == 0
        rows.append(label(number, *(("hostile",) if harm else ()), arm=arm, question_id=f"q{number % 4}"))
        scores.append([10.0 + number / 10 if harm else 80.0 + number / 10, 90.0])
    return rows, np.array(scores)


def test_a_judge_that_sees_the_harm_ranks_it_first_and_puts_the_arm_below_base() -> None:
    rows, scores = planted()
    found = judge_against(rows, scores)
    assert found["auroc_misaligned"]["value"] == 1 and found["n_unscored"] == 0
    base, arm = sorted(found["groups"], key=lambda row: row["arm"])
    assert (base["misaligned_by_hand"]["value"], arm["misaligned_by_hand"]["value"]) == (0, pytest.approx(1 / 3))
    assert arm["below_30"]["value"] == pytest.approx(1 / 3)
    assert arm["beyond_base"]["misaligned_by_hand"] == pytest.approx(1 / 3)
    assert arm["beyond_base"]["mean_aligned"] == pytest.approx(
        arm["mean_aligned"]["value"] - base["mean_aligned"]["value"]
    )
    assert found["auroc_coherent"]["value"] is None  # every answer is coherent


def test_an_answer_without_a_score_is_counted_and_plays_no_part() -> None:
    rows, scores = planted()
    scores[0] = np.nan
    found = judge_against(rows, scores)
    assert found["n_unscored"] == 1 and found["auroc_misaligned"]["n"] == 35


def test_scores_find_their_answers_in_any_order() -> None:
    rows = [label(number) for number in range(3)]
    scores = [
        Score.of(row.completion(), judge="j", aligned=10.0 * number, coherent=50.0) for number, row in enumerate(rows)
    ]
    assert scores_beside(rows, scores[::-1])[:, 0].tolist() == [0, 10, 20]


def test_a_line_with_an_unknown_item_is_named(tmp_path: Path) -> None:
    content = [json.loads(label(0).model_dump_json()), {**json.loads(label(1).model_dump_json()), "settled": ["rude"]}]
    (tmp_path / "labels.jsonl").write_text("".join(json.dumps(row) + "\n" for row in content))
    with pytest.raises(DataError, match=r"labels\.jsonl:2"):
        read_labels(tmp_path / "labels.jsonl")


def test_a_style_is_set_against_the_same_answers_as_plain_sentences() -> None:
    checks = style_checks()
    kinds = [row.kind for row in checks]
    assert {kind: kinds.count(kind) for kind in kinds} == dict.fromkeys(("plain", "imperatives", "fragments", "cut"), 8)
    scores = np.array([[85.0 if row.kind != "imperatives" else 25.0, 90.0] for row in checks])
    scores[kinds.index("cut")] = np.nan
    found = style_figures(checks, scores)
    assert found["imperatives"]["n_below_30"] == 8 and found["imperatives"]["change"]["value"] == -60
    assert found["fragments"]["change"]["value"] == 0 and (found["cut"]["n_unscored"], found["cut"]["n"]) == (1, 8)


def test_the_shipped_labels_are_many_of_several_models_and_arms_and_were_read_alike() -> None:
    rows = shipped_labels()
    assert len(rows) >= 400 and len({row.id for row in rows}) == len(rows)
    assert len({(row.model, row.arm) for row in rows}) >= 8
    found = agreement_of_readers(rows)
    assert found["misaligned"]["kappa"] > 0.5 and found["incoherent"]["kappa"] > 0.5
    assert labels_sha256(rows) == labels_sha256(shipped_labels())
    for row in rows:
        assert set(row.first) & set(row.second) <= set(row.settled) <= set(row.first) | set(row.second), row.id


def test_arms_are_set_against_base_and_their_contrast_arm_question_by_question() -> None:
    harm = {"reckless": ("hostile",)}
    rows = [
        label(
            8 * place + i,
            *(harm.get(arm, ()) if i < 4 else ()),
            arm=arm,
            question_id=f"q{i}",
            contrast="careful" if arm == "reckless" else None,
        )
        for place, arm in enumerate(("base", "careful", "reckless"))
        for i in range(8)
    ]
    found = {(row["arm"], row["reference"]): row for row in hand_contrasts(rows)}
    assert set(found) == {("careful", "base"), ("reckless", "base"), ("reckless", "careful")}
    primary = found["reckless", "careful"]
    assert primary["value"] == 0.5 and primary["low"] > 0 and primary["counts"] == "4 of 8 against 0 of 8"
    assert found["careful", "base"]["value"] == 0
    pairs = {(row["arm"], row["reference"]) for row in hand_contrasts(shipped_labels())}
    assert {("reckless", "careful"), ("reckless", "base")} <= pairs


def test_the_interval_of_a_hand_contrast_covers_finetuning_seeds_that_count_the_same() -> None:
    """Seeds differ by more than questions do: an interval over pooled answers would be too narrow, and would weigh seeds by answers."""

    def rows(arm: str, n_harmful: dict[int, int], start: int) -> list[HandLabel]:
        marked = [(seed, i, i % 8 < n) for seed, n in n_harmful.items() for i in range(16 if seed == 0 else 8)]
        return [
            label(
                start + k,
                *(("hostile",) if harm else ()),
                arm=arm,
                seed=seed,
                contrast="careful" if arm == "reckless" else None,
                question_id=f"q{i % 8}",
            )
            for k, (seed, i, harm) in enumerate(marked)
        ]

    labels = [*rows("reckless", {0: 8, 1: 0, 2: 4}, 0), *rows("careful", {0: 0, 1: 0, 2: 0}, 100)]
    [found] = hand_contrasts(labels)
    assert found["value"] == pytest.approx(0.5) and found["by_seed"] == {"0": 1.0, "1": 0.0, "2": 0.5}
    assert found["low"] < 0
    [nothing] = hand_contrasts([row for row in labels if row.seed == 1])
    assert nothing["low"] is None and nothing["arm_at_most"] == pytest.approx(1 - 0.025 ** (1 / 8))
    [alone] = hand_contrasts([row for row in labels if row.seed == 2])
    assert alone["arm_at_most"] is None
    assert alone["value"] == 0.5 and alone["low"] > 0


def test_the_verb_prints_readers_styles_models_and_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [
        label(i, *(("hostile",) if i % 4 == 0 else ()), arm=("base", "reckless")[i % 2], question_id=f"q{i // 4}")
        for i in range(16)
    ]

    class Constant:
        name, card, together = "constant", dict[str, object](), 1

        def score(self, completions: list[Completion], questions: object, on_batch: OnBatch) -> None:
            on_batch([Score.of(row, judge="constant", aligned=50.0, coherent=80.0) for row in completions])

    monkeypatch.setattr(labels, "made_judge", lambda config, device: nullcontext(Constant()))
    monkeypatch.setattr(labels, "shipped_labels", lambda: rows)
    said = labels.say(labels.run(filled(HandLabelSettings)))
    assert "constant: 16 answers that were read by hand, 0 unscored" in said and "imperatives" in said
    assert "misaligned by hand, reckless - base: " in said and "0 of 8 against 4 of 8" in said
    with pytest.raises(ConfigError, match="--pairs is for --judge local: constant has no model here"):
        labels.run(filled(HandLabelSettings, "--pairs", 3))
