"""AUROC against scikit-learn; held-out numbers, split halves and nulls on activations whose truth is planted."""

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from emis_interp.directions import unit
from emis_interp.errors import DataError
from emis_interp.fitting.extractors import question_balanced
from emis_interp.fitting.labeled import LabeledActivations
from emis_interp.fitting.reliability import (
    auroc_by_question,
    auroc_estimate,
    auroc_verdict,
    direction_auroc,
    held_out_scores,
    leave_one_question_out_auroc,
    mean_auroc,
    project,
    random_directions,
    shuffled_directions,
    split_half_cosine,
    stratified_half,
)
from emis_interp.stats.permutation import null_p


def planted(
    effect: tuple[float, ...],
    n_questions: int = 8,
    n_each: int = 12,
    d_model: int = 32,
    seed: int = 0,
    topic_size: float = 5.0,
) -> LabeledActivations:
    """Noise of size 1 per dimension, a topic per question, and `effect[layer]` x a direction for misaligned texts."""
    generator = torch.Generator().manual_seed(seed)
    vectors = unit(torch.randn(len(effect), d_model, generator=generator))
    rows, labels, questions = [], [], []
    for question in range(n_questions):
        topic = topic_size * torch.randn(len(effect), d_model, generator=generator)
        for label in (True, False):
            noise = torch.randn(n_each, len(effect), d_model, generator=generator)
            rows.append(topic + noise + label * torch.tensor(effect)[:, None] * vectors)
            labels += [label] * n_each
            questions += [f"q{question}"] * n_each
    return LabeledActivations(torch.cat(rows), np.array(labels), tuple(questions))


@pytest.mark.parametrize("n_values", [1000, 3, 1])
def test_auroc_is_that_of_scikit_learn_in_every_question_also_with_ties(n_values: int) -> None:
    generator = np.random.default_rng(n_values)
    scores = generator.integers(n_values, size=(2, 3, 60)).astype(float)
    labels = generator.random(60) < 0.4
    questions = [f"q{i}" for i in generator.integers(4, size=60)]
    found = auroc_by_question(scores, labels, questions)
    for question, values in found.items():
        rows = np.array([name == question for name in questions])
        for i, j in np.ndindex(2, 3):
            assert values[i, j] == pytest.approx(roc_auc_score(labels[rows], scores[i, j, rows]))
    assert set(found) == set(questions)
    np.testing.assert_allclose(mean_auroc(scores, labels, questions), np.mean(list(found.values()), axis=0))
    if n_values == 1:
        assert all((value == 0.5).all() for value in found.values())


def test_questions_with_one_class_have_no_auroc() -> None:
    labels = np.array([True, False, True, True])
    assert list(auroc_by_question(np.arange(4.0), labels, ["a", "a", "b", "b"])) == ["a"]
    with pytest.raises(DataError, match="no AUROC can be stated"):
        auroc_by_question(np.arange(4.0), labels, ["a", "b", "c", "c"])


def test_topics_cannot_help_the_auroc() -> None:
    """The score tells questions apart perfectly and texts of one question not at all."""
    labels = np.array([True] * 9 + [False] + [True] + [False] * 9)
    scores = np.array([10.0] * 10 + [0.0] * 10)
    questions = ["mostly bad"] * 10 + ["mostly good"] * 10
    assert roc_auc_score(labels, scores) == pytest.approx(0.9)
    assert mean_auroc(scores, labels, questions) == 0.5


def test_a_planted_direction_is_held_out_and_noise_is_chance() -> None:
    auroc = leave_one_question_out_auroc(planted((0.0, 5.0)))
    assert auroc[1] > 0.95
    chance = np.mean([leave_one_question_out_auroc(planted((0.0,), seed=seed))[0] for seed in range(20)])
    assert chance == pytest.approx(0.5, abs=0.03)


def test_a_question_that_is_tested_plays_no_part_in_the_fit() -> None:
    """In-sample, noise in many dimensions separates perfectly; held out it must not."""
    noise = planted((0.0,), n_questions=3, n_each=6, d_model=512)
    assert direction_auroc(question_balanced(noise), noise)[0] > 0.9
    assert leave_one_question_out_auroc(noise)[0] == pytest.approx(0.5, abs=0.2)


def test_leave_one_out_equals_a_loop_by_hand() -> None:
    data = planted((1.0, 0.3), n_questions=4, n_each=5)
    names = np.array(data.questions)
    values = []
    for question in ("q0", "q1", "q2", "q3"):
        others = [name for name in ("q0", "q1", "q2", "q3") if name != question]
        differences = [
            data.x[(names == name) & data.misaligned].mean(0) - data.x[(names == name) & ~data.misaligned].mean(0)
            for name in others
        ]
        direction = torch.stack(differences).mean(0)
        rows = names == question
        scores = (data.x[rows] * direction).sum(-1)
        values.append([roc_auc_score(data.misaligned[rows], scores[:, layer]) for layer in range(2)])
    np.testing.assert_allclose(leave_one_question_out_auroc(data), np.mean(values, axis=0))


def test_split_halves_agree_on_a_planted_direction_and_not_on_noise() -> None:
    cosines = split_half_cosine(planted((0.0, 8.0), n_each=20), n_splits=30)
    assert cosines.shape == (30, 2)
    assert cosines[:, 1].mean() > 0.9
    chance = np.mean([split_half_cosine(planted((0.0,), seed=seed), n_splits=4).mean() for seed in range(20)])
    assert chance == pytest.approx(0, abs=0.06)


def test_split_halves_of_few_questions_split_the_texts() -> None:
    data = planted((8.0,), n_questions=2, n_each=21)
    assert split_half_cosine(data, n_splits=5).mean() > 0.9
    half = stratified_half(data, np.random.default_rng(0))
    assert half.sum() == 4 * 10
    for question in ("q0", "q1"):
        for label in (True, False):
            assert half[(np.array(data.questions) == question) & (data.misaligned == label)].sum() == 10


def test_questions_with_one_class_do_not_break_split_halves() -> None:
    usable, one_class = planted((8.0,), n_questions=4, n_each=8), planted((8.0,), n_questions=9, n_each=2, seed=1)
    alone = one_class.rows(np.flatnonzero(one_class.misaligned))
    mixed = LabeledActivations(
        torch.cat([usable.x, alone.x]),
        np.concatenate([usable.misaligned, alone.misaligned]),
        (*usable.questions, *(f"one {question}" for question in alone.questions)),
    )
    np.testing.assert_allclose(split_half_cosine(mixed, seed=3), split_half_cosine(usable, seed=3), rtol=1e-5)


def test_shuffled_labels_find_nothing_and_keep_the_classes_of_each_question() -> None:
    train, test = planted((6.0,)), planted((6.0,), seed=0, n_each=12)
    real = direction_auroc(question_balanced(train), test)[0]
    null = direction_auroc(shuffled_directions(train, 60), test)[:, 0]
    assert real > 0.99
    assert null.mean() == pytest.approx(0.5, abs=0.12)
    # One text of each class: a permutation within the question gives plus or minus the same difference, never a topic.
    pairs = planted((6.0,), n_questions=1, n_each=1, topic_size=100)
    raw = question_balanced(pairs)
    signs = {int(torch.sign((found * raw).sum())) for found in shuffled_directions(pairs, 20)}
    assert signs == {-1, 1}
    assert all(torch.allclose(found.abs(), raw.abs()) for found in shuffled_directions(pairs, 20))


def test_random_directions_are_unit_isotropic_and_seeded() -> None:
    drawn = random_directions(500, 2, 16, seed=1)
    torch.testing.assert_close(drawn.norm(dim=-1), torch.ones(500, 2))
    assert drawn.mean(0).abs().max() < 0.05
    assert torch.equal(drawn, random_directions(500, 2, 16, seed=1))
    assert not torch.equal(drawn, random_directions(500, 2, 16, seed=2))


def test_the_interval_of_an_auroc_holds_the_value_narrows_with_questions_and_stays_inside_0_to_1() -> None:
    widths = []
    for n_questions in (4, 30):
        data = planted((1.5,), n_questions=n_questions, n_each=12)
        direction = unit(question_balanced(planted((1.5,), n_questions=n_questions, n_each=12)))
        scores = project(direction, data.x)[0]
        row = auroc_estimate(auroc_by_question(scores, data.misaligned, data.questions))
        assert row["value"] == pytest.approx(direction_auroc(direction, data)[0]) and row["n_questions"] == n_questions
        assert 0 < row["low"] <= row["value"] <= row["high"] < 1
        widths.append(row["high"] - row["low"])
    assert widths[1] < widths[0] / 2
    near_one = auroc_estimate({"a": 1.0, "b": 0.9, "c": 1.0})
    assert near_one["high"] < 1 and near_one["low"] < 0.9


@pytest.mark.parametrize("values", [{"a": 0.7}, {"a": 1.0, "b": 1.0}, {}])
def test_questions_that_cannot_give_an_interval_give_none(values: dict[str, float]) -> None:
    row = auroc_estimate(values)
    assert row["low"] is row["high"] is None and row["n_questions"] == len(values)


@pytest.mark.parametrize(
    ("low", "value", "high", "null", "words"),
    [
        (0.7, 0.8, 0.9, 0.5, "above chance and above shuffled labels"),
        (0.7, 0.8, 0.9, 0.85, "above chance but not told from shuffled labels"),
        (0.4, 0.6, 0.8, 0.5, "not told from chance"),
        (0.1, 0.2, 0.3, 0.5, "below chance: the direction points the other way on these questions"),
        (None, 1.0, None, 0.5, "no interval, above shuffled labels"),
        (None, 0.7, None, 0.8, "no interval, not told from shuffled labels"),
    ],
)
def test_an_auroc_is_a_finding_only_beside_its_control(
    low: float | None, value: float, high: float | None, null: float, words: str
) -> None:
    shuffled = null_p(np.full(99, null), value)
    assert auroc_verdict({"value": value, "low": low, "high": high}, shuffled) == words


def test_where_every_direction_separates_the_norm_decides() -> None:
    one, saturated = {"value": 1.0, "low": None, "high": None}, null_p(np.ones(99), 1.0)
    longer, as_long = null_p(np.ones(99), 5.0), null_p(np.ones(99), 0.9)
    assert auroc_verdict(one, saturated, longer).startswith("no interval, longer than shuffled labels'")
    assert auroc_verdict(one, saturated, as_long) == "no interval, not told from shuffled labels"
    middling = {"value": 0.8, "low": 0.7, "high": 0.9}
    assert auroc_verdict(middling, null_p(np.full(99, 0.9), 0.8), longer).endswith("not told from shuffled labels")


def test_held_out_scores_give_the_held_out_auroc() -> None:
    data = planted((1.0, 0.3), n_questions=4, n_each=5)
    kept, scores = held_out_scores(data)
    np.testing.assert_allclose(mean_auroc(scores, kept.misaligned, kept.questions), leave_one_question_out_auroc(data))


def test_counts_that_disagree_are_refused() -> None:
    with pytest.raises(DataError, match="3 activations, 2 labels, 3 questions"):
        LabeledActivations(torch.zeros(3, 1, 4), np.array([True, False]), ("a", "b", "c"))
