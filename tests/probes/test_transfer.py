"""Directions of several models on the same texts: transfer, shift, asymmetry, controls, and the card of one direction."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from planted import D, arm, axis

from emis_interp.directions import cosine, unit
from emis_interp.errors import DataError
from emis_interp.fitting.extractors import question_balanced
from emis_interp.fitting.labeled import LabeledActivations
from emis_interp.fitting.length_baseline import matched_by_question, regressed_by_question
from emis_interp.fitting.reliability import control_directions
from emis_interp.fitting.reliability_card import reliability_card
from probes.transfer import asymmetry, projection_shift, transfer_auroc


def models(questions: str, seed: int) -> dict[str, LabeledActivations]:
    """Two models share a direction, the third has another."""
    return {
        "base": arm(axis(0), questions, seed=seed),
        "like base": arm(axis(0), questions, offset=3.0, seed=seed),
        "other": arm(axis(1), questions, seed=seed),
    }


def test_a_direction_transfers_where_it_is_shared_and_not_where_it_is_not() -> None:
    matrix = transfer_auroc(models("abc", 0), models("de", 1), layer=1)
    assert set(matrix["base", "other"]) == {"d", "e"}
    means = {pair: np.mean(list(row.values())) for pair, row in matrix.items()}
    assert means["base", "like base"] > 0.98 and means["other", "other"] > 0.98
    assert means["base", "other"] == pytest.approx(0.5, abs=0.2)


def test_a_shift_is_in_residual_norms_and_has_the_sign_of_misaligned() -> None:
    shift = projection_shift(models("abc", 0), models("de", 1), layer=0, residual_norm=6.0)
    assert shift["base", "like base"] == pytest.approx({"d": 0.5, "e": 0.5}, abs=0.01)
    assert ("base", "base") not in shift
    with pytest.raises(DataError, match="needs the base model"):
        projection_shift({"x": arm(axis(0), "a")}, {"x": arm(axis(0), "b")}, 0, residual_norm=1.0)


def test_a_direction_of_length_transfers_and_stands_beside_what_length_gives() -> None:
    """Misaligned answers are longer, and the only thing that the activations hold is length."""

    def of_length(questions: str, seed: int) -> LabeledActivations:
        data = arm(0 * axis(0), questions, seed=seed)
        lengths = np.exp(
            3 + 0.5 * data.misaligned + 0.5 * np.random.default_rng(seed).normal(size=len(data.misaligned))
        )
        data.x[:, :, 2] += torch.from_numpy(np.log(lengths)).float()[:, None]
        return replace(data, lengths=lengths)

    fit, test = {"a": of_length("abcdefgh", 0)}, {"a": of_length("ijklmnop", 1)}
    lengths = test["a"].lengths
    assert lengths is not None

    def regressed(scores: np.ndarray, labels: np.ndarray, questions: Sequence[str]) -> dict[str, float]:
        return regressed_by_question(scores, lengths, labels, questions=questions)

    def matched(scores: np.ndarray, labels: np.ndarray, questions: Sequence[str]) -> dict[str, float]:
        return matched_by_question(scores, lengths, labels, questions=questions)[0]

    plain = transfer_auroc(fit, test, 1)["a", "a"]
    assert np.mean(list(plain.values())) > 0.7
    for separation in (regressed, matched):
        left = transfer_auroc(fit, test, 1, separation=separation)["a", "a"]
        assert np.mean(list(left.values())) == pytest.approx(0.5, abs=0.12)


def test_asymmetry_is_the_difference_across_the_diagonal_by_question() -> None:
    matrix = {("a", "b"): {"q": 0.9, "r": 0.8}, ("b", "a"): {"q": 0.6}, ("a", "a"): {"q": 1.0}}
    assert asymmetry(matrix) == {("a", "b"): {"q": pytest.approx(0.3)}}


def test_fit_and_test_must_not_share_a_question() -> None:
    with pytest.raises(DataError, match=r"both halves: \['b'\]"):
        transfer_auroc(models("ab", 0), models("bc", 1), 0)


def test_controls_are_unit_and_natural_ones_avoid_the_direction() -> None:
    data = arm(axis(0), "abc").at([0])
    raw = question_balanced(data)[0]
    controls = control_directions(data, raw, 25, seed=3)
    for vectors in controls.values():
        assert vectors.shape == (25, D)
        torch.testing.assert_close(vectors.norm(dim=-1), torch.ones(25))
    assert (controls["orthogonal"] @ unit(raw)).abs().max() < 1e-5
    assert cosine(controls["shuffled"], raw).abs().mean() < 0.6
    again = control_directions(data, raw, 25, seed=3)
    assert all(torch.equal(again[kind], vectors) for kind, vectors in controls.items())


def test_natural_controls_are_left_out_with_a_word_where_no_question_has_two_texts_of_one_class(
    caplog: pytest.LogCaptureFixture,
) -> None:
    few = LabeledActivations(torch.randn(4, 1, D), np.array([True, False] * 2), ("a", "a", "b", "b"))
    assert set(control_directions(few, torch.ones(D), 3)) == {"random", "shuffled"}
    assert "need a question with two texts of one class" in caplog.text


def test_the_card_tells_a_planted_direction_from_noise() -> None:
    lengths = 1 + np.arange(100.0)
    good = reliability_card(replace(arm(axis(0), "abcde"), lengths=lengths), 1, n_draws=39)
    noise = reliability_card(replace(arm(0 * axis(0), "abcde"), lengths=lengths), 1, n_draws=39)
    assert good["norm_p"] == 1 / 40 and good["norm_p_at_floor"] and good["norm_p_n"] == 39
    assert noise["norm_p"] > 0.05 and not noise["norm_p_at_floor"]
    assert good["split_half_cosine"]["low"] > 0.9 > noise["split_half_cosine"]["mean"] + 0.3
    assert good["bootstrap_cosine"]["mean"] > 0.97
    assert good["held_out_auroc"]["mean"] > 0.98
    assert good["balance"]["by_question"]["a"] == {"misaligned": 10, "aligned": 10}
    assert good["length"]["mean_misaligned"] == pytest.approx(50.0)
    assert good["top5_dims_share"] > 0.9


def test_the_card_sees_length_and_massive_dimensions() -> None:
    data = arm(axis(0), "ab", offset=50.0)
    card = reliability_card(replace(data, lengths=np.where(data.misaligned, 9.0, 3.0)), 0, n_draws=9)
    assert card["length"]["auroc"] == 1.0
    assert (
        card["length"]["baseline"]["matched"]["n_pairs"] == 0 and card["length"]["baseline"]["matched"]["value"] is None
    )
    assert (
        card["length"]["baseline"]["regressed"]["value"] < 0.9
    )  # classes that differ in length share it with the class
    with pytest.raises(DataError, match="needs the length of every answer"):
        reliability_card(data, 0)
    assert card["massive_dims_share"] > 0.8  # the direction lies along the dimension that is large in every text
