"""The planted layer is chosen, and nothing of the report half reaches the choice."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from emis_interp.directions import cosine, unit
from emis_interp.errors import ConfigError, DataError
from emis_interp.fitting.labeled import LabeledActivations
from emis_interp.fitting.reliability import leave_one_question_out_auroc
from emis_interp.fitting.selection import find_direction, nested_leave_one_question_out

N_LAYERS, PLANTED = 6, 3
EFFECTS = torch.tensor([0.5, 1.0, 2.0, 6.0, 2.0, 1.0])
NORM = torch.arange(1.0, N_LAYERS + 1)
VECTORS = unit(torch.randn(N_LAYERS, 24, generator=torch.Generator().manual_seed(9)))


def half(
    name: str, seed: int, n_questions: int = 6, n_each: int = 10, effects: torch.Tensor = EFFECTS
) -> LabeledActivations:
    generator = torch.Generator().manual_seed(seed)
    rows, labels, questions = [], [], []
    for question in range(n_questions):
        topic = 4 * torch.randn(N_LAYERS, 24, generator=generator)
        for label in (True, False):
            rows.append(
                topic + torch.randn(n_each, N_LAYERS, 24, generator=generator) + label * effects[:, None] * VECTORS
            )
            labels += [label] * n_each
            questions += [f"{name}{question}"] * n_each
    return LabeledActivations(torch.cat(rows), np.array(labels), tuple(questions))


def test_the_planted_layer_and_direction_are_found() -> None:
    found = find_direction(half("s", 0), half("r", 1), NORM, n_permutations=20)
    assert found.direction.layer == found.numbers["chosen_layer"] == PLANTED
    assert cosine(found.direction.vector, VECTORS[PLANTED]) > 0.95
    assert found.direction.vector.norm() == pytest.approx(1)
    assert found.direction.raw_norm == pytest.approx(6, abs=0.6)
    assert found.direction.residual_norm == PLANTED + 1
    report = found.numbers["report"]
    assert report["auroc"] > 0.97 and (report["low"] is None or report["low"] <= report["auroc"] <= report["high"])
    assert report["random_low"] < 0.5 < report["random_high"] < report["auroc"]
    assert report["shuffled_low"] < 0.5 < report["shuffled_high"]
    assert (report["n_misaligned"], report["n_aligned"], report["n_questions"]) == (60, 60, 6)


def test_among_layers_that_all_separate_perfectly_the_clearest_is_chosen() -> None:
    effects = torch.tensor([0.0, 25.0, 40.0, 30.0, 25.0, 0.0])
    found = find_direction(half("s", 0, effects=effects), half("r", 1, effects=effects), NORM, n_permutations=10)
    assert found.numbers["selection_auroc"][1:5] == [1, 1, 1, 1]
    assert found.direction.layer == 2


def test_the_report_half_plays_no_part_in_the_choice() -> None:
    selection, report = half("s", 0), half("r", 1)
    flipped = replace(report, misaligned=~report.misaligned)
    other_layer = half("r", 1, effects=EFFECTS.flip(0) * 5)
    first, second, third = (
        find_direction(selection, one, NORM, n_permutations=10) for one in (report, flipped, other_layer)
    )
    for other in (second, third):
        assert other.direction.layer == first.direction.layer
        assert torch.equal(other.direction.vector, first.direction.vector)
        assert other.numbers["selection_auroc"] == first.numbers["selection_auroc"]
    assert second.numbers["report"]["auroc"] == pytest.approx(1 - first.numbers["report"]["auroc"])


def test_the_layer_range_is_kept_and_refused_when_it_is_none() -> None:
    found = find_direction(half("s", 0), half("r", 1), NORM, layer_range=(0.6, 1.0), n_permutations=10)
    assert found.numbers["layer_range"] == [3, 5]
    found = find_direction(half("s", 0), half("r", 1), NORM, layer_range=(0.0, 0.4), n_permutations=10)
    assert found.direction.layer == 2
    for wrong in ((6, 24), (0.8, 0.2), (-0.1, 0.5)):
        with pytest.raises(ConfigError, match="two fractions of depth"):
            find_direction(half("s", 0), half("r", 1), NORM, layer_range=wrong)


def test_a_shared_question_and_a_single_question_are_refused() -> None:
    with pytest.raises(DataError, match=r"questions in both halves: \['s0', 's1'"):
        find_direction(half("s", 0), half("s", 1), NORM)
    with pytest.raises(DataError, match=r"both a misaligned and an aligned|at least two questions"):
        find_direction(half("s", 0, n_questions=1), half("r", 1), NORM)


def test_texts_that_do_not_differ_yet_are_refused() -> None:
    """At `last_prompt` the two answers to one question have not begun: the difference is exactly zero."""
    selection, report = half("s", 0, n_each=2), half("r", 1, n_each=2)
    same = [replace(one, x=one.x[torch.arange(len(one.x)) // 4 * 4]) for one in (selection, report)]
    with pytest.raises(DataError, match="before the answers differ"):
        find_direction(same[0], same[1], NORM, n_permutations=10)


def test_the_same_seed_gives_the_same_numbers() -> None:
    first, second = (
        find_direction(half("s", 0), half("r", 1), NORM, n_permutations=10, seed=4).numbers for _ in range(2)
    )
    assert first == second


def test_noise_is_no_finding_although_its_interval_may_exclude_chance() -> None:
    """A strong feature that has nothing to do with the labels: any direction lies along it, and by chance it separates the report texts."""
    found = []
    for seed in range(40):
        generator = np.random.default_rng(seed)
        texts = [half("s", seed, effects=0 * EFFECTS), half("r", seed + 100, effects=0 * EFFECTS)]
        for one in texts:  # half of the texts carry the feature, whichever class they are of
            one.x[:, :, 0] += 50 * torch.from_numpy(generator.permutation(len(one.x)) % 2).float()[:, None]
        lucky = texts[1].misaligned & (generator.random(120) < 0.6)
        texts[1].x[torch.from_numpy(lucky), :, 0] += 50
        row = find_direction(texts[0], texts[1], NORM, n_permutations=60).numbers["report"]
        found.append((row["low"] is not None and row["low"] > 0.5, row["verdict"]))
    excluded = sum(excludes for excludes, _ in found)
    told = sum(verdict == "above chance and above shuffled labels" for _, verdict in found)
    assert excluded >= 10  # what the interval alone would call a finding
    assert told <= 4


def test_a_planted_effect_is_a_finding_with_its_p_at_the_floor() -> None:
    effects = EFFECTS / 3
    selection, report = (half(name, seed, effects=effects) for name, seed in (("s", 0), ("r", 1)))
    row = find_direction(selection, report, NORM, n_permutations=60).numbers["report"]
    assert row["verdict"] == "above chance and above shuffled labels" and row["contrast"] == "primary"
    assert row["shuffled_p"] == 1 / 61 and row["shuffled_p_at_floor"] and row["shuffled_p_n"] == 60


def test_classes_so_far_apart_that_shuffled_labels_separate_them_are_told_by_the_norm() -> None:
    row = find_direction(half("s", 0, effects=5 * EFFECTS), half("r", 1, effects=5 * EFFECTS), NORM).numbers["report"]
    assert row["auroc"] == 1 and row["shuffled_p"] > 0.05  # half of the permuted labels give the direction itself
    assert row["verdict"] == "no interval, longer than shuffled labels' directions, which separate as well"


def test_a_layer_that_wins_by_luck_does_not_flatter_the_nested_auroc() -> None:
    """In pure noise the best of many layers has a leave-one-out AUROC above chance; choosing it without each question has not."""
    plain, nested = [], []
    for seed in range(1000, 1030):
        generator = torch.Generator().manual_seed(seed)
        labels = np.array([True, False] * 30)
        questions = tuple(f"q{i // 10}" for i in range(60))
        noise = LabeledActivations(torch.randn(60, 15, 8, generator=generator), labels, questions)
        plain.append(leave_one_question_out_auroc(noise).max())
        nested.append(np.mean(list(nested_leave_one_question_out(noise, range(15)).values())))
    assert np.mean(plain) > 0.62
    assert np.mean(nested) == pytest.approx(0.5, abs=0.06)


def test_the_nested_auroc_of_one_layer_is_the_plain_one_and_needs_three_questions() -> None:
    data = half("s", 0, n_questions=4)
    nested = nested_leave_one_question_out(data, [PLANTED])
    assert np.mean(list(nested.values())) == pytest.approx(leave_one_question_out_auroc(data)[PLANTED])
    with pytest.raises(DataError, match="three questions"):
        nested_leave_one_question_out(half("s", 0, n_questions=2), [0, 1])
