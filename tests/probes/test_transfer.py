"""Directions of several models on the same texts: transfer, shift, asymmetry, controls, and the card of one direction."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch

from emis_interp.directions import cosine, unit
from emis_interp.errors import DataError
from emis_interp.fitting.extractors import question_balanced
from emis_interp.fitting.labeled import LabeledActivations
from emis_interp.fitting.length_baseline import matched_by_question, regressed_by_question
from emis_interp.fitting.reliability import control_directions
from emis_interp.fitting.reliability_card import reliability_card
from probes import transfer_matrix as transfer
from probes.transfer import asymmetry, projection_shift, transfer_auroc

D = 12


def arm(direction: torch.Tensor, questions: str, offset: float = 0.0, seed: int = 0) -> LabeledActivations:
    """Ten texts per class and question, whose misaligned ones are moved along `direction`; all are moved by `offset` along axis 0."""
    generator = torch.Generator().manual_seed(seed)
    labels = np.array([True, False] * 10 * len(questions))
    x = (
        0.3 * torch.randn(len(labels), 2, D, generator=generator)
        + torch.from_numpy(labels).float()[:, None, None] * direction
    )
    x[:, :, 0] += offset
    return LabeledActivations(x, labels, tuple(name for name in questions for _ in range(20)))


def axis(i: int) -> torch.Tensor:
    return 2 * torch.eye(D)[i]


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


def test_every_table_of_a_transfer_is_a_family_whose_p_values_are_corrected() -> None:
    generator = np.random.default_rng(0)
    names = [(i, j) for i in "abc" for j in "abc"]
    matrix = {pair: {q: float(0.5 + 0.02 * generator.normal()) for q in "qrst"} for pair in names}
    matrix["a", "a"] = {"q": 0.9, "r": 0.92, "s": 0.91, "t": 0.9}
    cells = transfer.aurocs(matrix)
    assert all(row["p_holm"] >= row["p"] for row in cells.values())
    assert cells["a|a"]["p_holm"] == pytest.approx(9 * cells["a|a"]["p"]) and cells["a|a"]["p_holm"] < 0.05
    assert transfer._cell(cells["a|a"]).startswith("0.907*") and "*" not in transfer._cell(cells["b|c"])
    saturated = transfer.aurocs({("a", "a"): {"q": 1.0, "r": 1.0}, ("a", "b"): {}})
    assert saturated["a|a"]["p"] is saturated["a|a"]["p_holm"] is None and transfer._cell(saturated["a|a"]) == "1.000 "
    assert transfer._cell(saturated["a|b"]) == "-"
    shifts = transfer.summarized({("a", "b"): {"q": 0.1, "r": 0.12, "s": 0.11}})
    assert shifts["a|b"]["p"] < 0.01 and shifts["a|b"]["p_holm"] == shifts["a|b"]["p"]


def test_a_cell_is_starred_only_above_directions_of_shuffled_labels() -> None:
    """A large feature that both arms share separates the test texts by chance; any direction lies along it, shuffled labels too."""
    generator = torch.Generator().manual_seed(0)
    real = {"base": arm(0.6 * axis(0), "abcd", seed=0)}, {"base": arm(0.6 * axis(0), "efgh", seed=1)}
    lucky = {"base": arm(0 * axis(0), "abcd", seed=0)}, {"base": arm(0 * axis(0), "efgh", seed=1)}
    lucky[0]["base"].x[:, :, 3] += 30 * torch.randn(80, 1, generator=generator)
    sign = torch.sign(question_balanced(lucky[0]["base"])[1, 3])
    lucky[1]["base"].x[:, :, 3] += sign * 30 * torch.from_numpy(lucky[1]["base"].misaligned).float()[:, None]
    starred = []
    for fit, test in (real, lucky):
        cells = transfer.aurocs(transfer_auroc(fit, test, 1))
        found = transfer.with_controls(cells, fit, test, layer=1, extractor=question_balanced, n=60, seed=0)[
            "base|base"
        ]
        assert found["value"] > 0.8
        starred.append("*" in transfer._cell({**found, "p_holm": 0.001}))
    assert starred == [True, False]


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


def test_natural_controls_need_two_texts_of_one_class() -> None:
    few = LabeledActivations(torch.randn(4, 1, D), np.array([True, False] * 2), ("a", "a", "b", "b"))
    with pytest.raises(DataError, match="two texts of one class"):
        control_directions(few, torch.ones(D), 3)


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
