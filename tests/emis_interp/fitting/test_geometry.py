"""The 2x2 of planted effects, the massive dimensions, and the published geometry of real organisms."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from planted import axes, padded

from emis_interp.directions import cosine
from emis_interp.errors import DataError
from emis_interp.fitting.extractors import EXTRACTORS, paired_pca, question_balanced
from emis_interp.fitting.geometry import TwoByTwo, cosine_matrix, extractor_cosines, massive_dimensions, share_in
from emis_interp.fitting.labeled import LabeledActivations


def test_planted_effects_are_told_apart() -> None:
    table = axes()
    norms = {name: float(value) for name, value in table.norms().items()}
    assert norms["text_in_base"] == pytest.approx(2)
    assert norms["text_in_organism"] == pytest.approx(20**0.5)
    assert norms["model_on_aligned"] == pytest.approx(3)
    assert norms["model_on_misaligned"] == pytest.approx(5)
    assert norms["interaction"] == pytest.approx(2)
    cosines = table.cosines()
    assert float(cosines["text_in_organism", "text_in_base"]) == pytest.approx(2 / 20**0.5)
    assert float(cosines["interaction", "text_in_base"]) == pytest.approx(0)
    assert len(cosines) == 21


def test_the_summary_of_a_layer_has_the_planted_effects() -> None:
    base, text, model, both = torch.eye(4).double() * torch.tensor([5.0, 2.0, 3.0, 0.5]).double()[:, None]
    sign = {"misaligned": 1, "aligned": -1, "organism": 1, "base": -1}
    cells = [
        (base + sign[t] * text / 2 + sign[m] * model / 2 + sign[t] * sign[m] * both / 2)[None]
        for m in ("organism", "base")
        for t in ("misaligned", "aligned")
    ]
    summary = padded(TwoByTwo(*cells)).summary(0)
    assert summary["text_effect_norm"] == pytest.approx(2)
    assert summary["model_effect_norm"] == pytest.approx(3)
    assert summary["interaction_norm"] == pytest.approx(0.5)
    assert summary["cos_model_text"] == pytest.approx(0, abs=1e-6)
    assert summary["cos_text_organism_base"] == pytest.approx((4 - 0.25) / (4 + 0.25))


def test_effects_add_up_to_the_simple_effects() -> None:
    om, oa, bm, ba = torch.randn(4, 1, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    effects = TwoByTwo(om, oa, bm, ba).summary(0)
    # |text + interaction|^2 + |text - interaction|^2 = 2 |text|^2 + 2 |interaction|^2
    simple = (om - oa).square().sum() + (bm - ba).square().sum()
    assert 2 * effects["text_effect_norm"] ** 2 + 2 * effects["interaction_norm"] ** 2 == pytest.approx(float(simple))
    simple = (om - bm).square().sum() + (oa - ba).square().sum()
    assert 2 * effects["model_effect_norm"] ** 2 + 2 * effects["interaction_norm"] ** 2 == pytest.approx(float(simple))
    reading_alone = TwoByTwo(bm, ba, bm, ba).summary(0)  # the same model twice
    assert reading_alone["model_effect_norm"] == reading_alone["interaction_norm"] == 0
    assert reading_alone["cos_text_organism_base"] == pytest.approx(1)


def test_massive_dimensions_are_those_of_the_mean_and_shares_are_of_the_effect() -> None:
    table = axes()
    assert massive_dimensions(table.organism_aligned, 1).tolist() == [[3]]
    assert float(table.massive_shares(1)["text"]) == 0
    assert float(table.massive_shares(2)["model"]) == pytest.approx(9 / (9 + 4))
    assert float(share_in(torch.ones(1, 4), torch.tensor([[0, 3]]))) == 0.5


def activations(seed: int, shift: torch.Tensor) -> LabeledActivations:
    """Texts that depend on the seed of the texts alone, moved by the model."""
    generator = torch.Generator().manual_seed(seed)
    labels = np.array([True, False] * 40)
    x = torch.randn(80, 2, 8, generator=generator) + torch.from_numpy(labels).float()[:, None, None] * shift
    return LabeledActivations(x, labels, tuple(f"q{i // 10}" for i in range(80)))


def test_the_table_of_two_models_has_balanced_means() -> None:
    shift = torch.zeros(8)
    shift[0] = 5.0
    organism, base = activations(0, 2 * shift), activations(0, shift)
    table = TwoByTwo.of(organism, base)
    torch.testing.assert_close(table.effects["text_in_organism"], question_balanced(organism))
    torch.testing.assert_close(table.effects["interaction"], shift.expand(2, 8) / 2)
    with pytest.raises(DataError, match="different texts"):
        TwoByTwo.of(organism, base.rows(np.arange(70)))
    with pytest.raises(DataError, match="differ in shape"):
        replace(table, base_aligned=torch.zeros(1, 8))


def test_a_model_that_only_rescales_massive_dimensions_agrees_with_base_without_them() -> None:
    """Text moves both models along axis 0; finetuning damps how text moves one dimension that is large everywhere."""
    table = padded(axes())
    base_only = torch.zeros(1, 9)
    base_only[0, 4] = 6.0
    damped = replace(table, base_misaligned=table.base_misaligned + base_only)
    summary = damped.summary(0)
    assert summary["cos_text_organism_base"] < 0.2
    assert summary["cos_text_organism_base_rest"] == pytest.approx(2 / 20**0.5)  # as without the five
    torch.testing.assert_close(damped.without_massive().effects["interaction"][:, 4:], torch.zeros(1, 5))


def test_cosines_of_models_have_intervals_that_widen_with_noise() -> None:
    shift = torch.zeros(8)
    shift[0] = 1.0
    data = {
        "strong": activations(0, 20 * shift),
        "also strong": activations(0, 20 * shift),
        "weak": activations(0, 0.2 * shift),
    }
    found = cosine_matrix(data, layer=1)
    assert found["strong", "also strong"] == pytest.approx((1, 1, 1), abs=1e-5)
    value, low, high = found["strong", "weak"]
    assert low < value < high and high - low > 0.1
    with pytest.raises(DataError, match="read other texts"):
        cosine_matrix({**data, "other": activations(0, shift).rows(np.arange(70))}, layer=0)


def test_extractors_agree_with_themselves_in_every_draw_and_an_interval_holds_the_draws() -> None:
    generator = torch.Generator().manual_seed(0)
    labels = np.array([True, False] * 12)
    x = torch.randn(24, 1, 8, generator=generator) + torch.from_numpy(labels)[:, None, None] * torch.eye(8)[0] * 6
    data = LabeledActivations(x, labels, tuple("abc"[i // 8] for i in range(24)))
    found = extractor_cosines(
        data, {"a": question_balanced, "minus": lambda one: -question_balanced(one), "pca": paired_pca}, n_bootstrap=20
    )
    assert found["a", "minus"] == pytest.approx((-1, -1, -1))
    value, low, high = found["a", "pca"]
    assert (
        low is not None
        and high is not None
        and 0.8 < low <= high <= 1
        and value == pytest.approx(float(cosine(question_balanced(data)[0], paired_pca(data)[0])))
    )
    assert extractor_cosines(data, {"a": question_balanced, "pca": paired_pca}, n_bootstrap=0)["a", "pca"][1:] == (
        None,
        None,
    )


def test_draws_that_leave_an_extractor_too_few_texts_cost_the_interval_and_not_the_fit() -> None:
    generator = torch.Generator().manual_seed(1)
    # Only question a has two texts of a class: a draw without it says nothing about the scatter within questions.
    labels = np.array([True, True, False, False, True, False, True, False])
    questions = ("a", "a", "a", "a", "b", "b", "c", "c")
    data = LabeledActivations(torch.randn(8, 1, 6, generator=generator), labels, questions)
    extractors = {name: EXTRACTORS[name] for name in ("question_balanced", "mass_mean")}
    value, low, high = extractor_cosines(data, extractors, n_bootstrap=40)["question_balanced", "mass_mean"]
    assert -1 <= value <= 1
    assert (low, high) == (None, None)
