"""Every extractor finds a planted direction with its sign, and each differs from the others where it should."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from torch import Tensor

from emis_interp.directions import cosine, unit
from emis_interp.errors import DataError, ModelError
from emis_interp.fitting.extractors import EXTRACTORS, extractor_named, mass_mean, model_difference, question_balanced
from emis_interp.fitting.labeled import LabeledActivations
from emis_interp.fitting.reliability import bootstrap_directions, leave_one_question_out, leave_one_question_out_auroc
from emis_interp.models.lora_directions import lora_directions
from emis_interp.models.tiny import tiny_model


def planted(
    d_model: int = 32, n_each: int = 30, topic_size: float = 5.0, largest_noise: float = 0.6
) -> tuple[LabeledActivations, Tensor]:
    """Texts of five questions: topic + noise of unequal size per dimension + the direction when misaligned, at two layers."""
    generator = torch.Generator().manual_seed(0)
    vector = unit(torch.randn(d_model, generator=generator))
    noise = torch.linspace(0.2, largest_noise, d_model)
    rows, labels, questions = [], [], []
    for question in range(5):
        topic = topic_size * torch.randn(d_model, generator=generator)
        for label, n in ((True, n_each), (False, 2 * n_each if question % 2 else n_each)):
            x = topic + noise * torch.randn(n, d_model, generator=generator) + 2 * label * vector
            rows.append(torch.stack([x, 3 * x], dim=1))
            labels += [label] * n
            questions += [f"q{question}"] * n
    return LabeledActivations(torch.cat(rows), np.array(labels), tuple(questions)), vector


@pytest.mark.parametrize("name", [name for name in EXTRACTORS if name != "mean_difference"])
def test_a_planted_direction_is_found_with_its_sign_under_any_topic(name: str) -> None:
    data, _ = planted()
    found = extractor_named(name)(data)
    assert found.shape == (2, 32)
    assert leave_one_question_out_auroc(data, extractor_named(name))[0] > 0.75
    scores = torch.einsum("nld,ld->ln", data.x, found)[0].numpy()
    for positive, negative in data.cells.values():
        assert scores[positive].mean() > scores[negative].mean()


def test_the_plain_difference_carries_topic_and_the_balanced_one_does_not() -> None:
    data, vector = planted(topic_size=50.0)
    assert cosine(EXTRACTORS["mean_difference"](data)[0], vector) < 0.5
    assert cosine(question_balanced(data)[0], vector) > 0.7


def test_unequal_noise_is_divided_out_by_the_mass_mean_probe() -> None:
    data, _ = planted(n_each=100, largest_noise=3.0)
    held_out = {
        name: leave_one_question_out_auroc(data, EXTRACTORS[name])[0]
        for name in ("question_balanced", "mass_mean", "logistic")
    }
    assert held_out["mass_mean"] > held_out["question_balanced"] + 0.02
    assert held_out["logistic"] > held_out["question_balanced"] + 0.02


def test_a_massive_dimension_drowns_the_difference_of_means_but_not_the_standardised_one() -> None:
    data, _ = planted(n_each=100)
    noise = torch.randn(len(data.x), generator=torch.Generator().manual_seed(2))
    x = data.x.clone()
    x[:, :, 0] += 50 * noise[:, None]
    massive = LabeledActivations(x, data.misaligned, data.questions)
    held_out = {
        name: leave_one_question_out_auroc(massive, EXTRACTORS[name])[0]
        for name in ("question_balanced", "standardised")
    }
    assert held_out["standardised"] > held_out["question_balanced"] + 0.1


def test_the_standardised_difference_is_in_standard_deviations_whatever_the_unit_of_a_coordinate() -> None:
    data, _ = planted()
    unit_of_coordinate = torch.linspace(0.1, 100, 32)
    rescaled = LabeledActivations(data.x * unit_of_coordinate, data.misaligned, data.questions)
    assert torch.allclose(EXTRACTORS["standardised"](rescaled), EXTRACTORS["standardised"](data), rtol=1e-3, atol=1e-4)


def test_one_text_for_each_question_and_class_says_nothing_of_scatter() -> None:
    data = LabeledActivations(torch.randn(4, 1, 3), np.array([True, False] * 2), ("a", "a", "b", "b"))
    for name in ("standardised", "mass_mean"):
        with pytest.raises(DataError, match="two texts of one class"):
            EXTRACTORS[name](data)


def test_without_shrinkage_the_mass_mean_probe_is_fisher_s_discriminant() -> None:
    data, _ = planted(d_model=6, n_each=200, topic_size=0.0)
    one = data.only({"q0"})
    expected = LinearDiscriminantAnalysis(solver="lsqr").fit(one.x[:, 0].numpy(), one.misaligned).coef_[0]
    found = mass_mean(one, shrinkage=0.0)[0]
    assert cosine(found, torch.from_numpy(expected).float()) > 0.9999


def test_paired_pca_finds_the_axis_that_pairs_share_and_its_length() -> None:
    generator = torch.Generator().manual_seed(1)
    vector = unit(torch.randn(16, generator=generator))
    aligned = 10 * torch.randn(20, 1, 16, generator=generator)
    misaligned = aligned + (3 + torch.randn(20, 1, 1, generator=generator)) * vector
    x = torch.cat([misaligned, aligned])
    data = LabeledActivations(x, np.array([True] * 20 + [False] * 20), ("q",) * 40)
    found = EXTRACTORS["paired_pca"](data)[0]
    assert cosine(found, vector) > 0.9999
    assert float(found.norm()) == pytest.approx(
        float((misaligned - aligned).norm(dim=-1).square().mean().sqrt()), rel=1e-4
    )


def test_an_unknown_extractor_is_answered_with_the_nearest_name() -> None:
    with pytest.raises(DataError, match="did you mean `mass_mean`"):
        extractor_named("massmean")


def test_model_difference_refuses_other_texts() -> None:
    x = torch.randn(4, 2, 3)
    assert torch.allclose(model_difference(x + 1, x), torch.ones(2, 3), atol=1e-6)
    with pytest.raises(DataError, match="same texts"):
        model_difference(x, x[:3])


def test_drawn_directions_scatter_around_the_whole_one_and_leave_the_topic_out() -> None:
    data, _ = planted(topic_size=50.0)
    drawn = bootstrap_directions(data, 300)
    whole = question_balanced(data)
    assert torch.allclose(drawn.mean(0), whole, atol=0.25)
    assert 0.5 < float(cosine(drawn[:, 0], whole[0]).median()) < 1


def test_held_out_values_come_by_question() -> None:
    data, _ = planted()
    by_question = leave_one_question_out(data)
    assert list(by_question) == [f"q{i}" for i in range(5)]
    assert np.mean([value[0] for value in by_question.values()]) == leave_one_question_out_auroc(data)[0]


@pytest.mark.parametrize("rslora", [False, True])
def test_directions_of_an_adapter_are_the_left_singular_vectors_of_its_update(tmp_path: Path, rslora: bool) -> None:
    model, _ = tiny_model()
    config = LoraConfig(r=4, lora_alpha=8, use_rslora=rslora, target_modules=["down_proj", "o_proj", "q_proj"])
    adapted = get_peft_model(model, config)
    torch.manual_seed(0)
    for name, parameter in adapted.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter)
    adapted.save_pretrained(str(tmp_path))
    module: Any = adapted.get_submodule("base_model.model.model.layers.1.mlp.down_proj")
    left, values, _ = torch.linalg.svd(module.get_delta_weight("default"))
    found = lora_directions(tmp_path, n=3)
    assert [(row.layer, row.module) for row in found] == [
        (0, "down_proj"),
        (0, "o_proj"),
        (1, "down_proj"),
        (1, "o_proj"),
    ]
    last = found[2]
    torch.testing.assert_close(last.singular_values, values[:3], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close((last.vectors @ left[:, :3]).abs(), torch.eye(3), rtol=1e-3, atol=1e-3)


def test_an_adapter_that_writes_nothing_to_the_residual_stream_is_refused(tmp_path: Path) -> None:
    model, _ = tiny_model()
    get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj"])).save_pretrained(str(tmp_path))
    with pytest.raises(DataError, match=r"found \['q_proj'\]"):
        lora_directions(tmp_path)
    with pytest.raises(ModelError, match="no such folder; give the folder of a PEFT adapter"):
        lora_directions(tmp_path / "nowhere")
