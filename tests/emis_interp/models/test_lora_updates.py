"""Spectra, products and sums of updates from their factors are those of the whole matrices, and adding them is loading the adapter."""

from pathlib import Path
from typing import Any

import pytest
import torch
from adapters_made import made_adapter
from families import family
from peft import LoraConfig, get_peft_model

from emis_interp.errors import DataError, ModelError
from emis_interp.models.chat_model import ChatModel
from emis_interp.models.loading import load_model
from emis_interp.models.lora_updates import LoraUpdate, combined, inner, lora_updates, norm, update_cosine
from emis_interp.passes.low_rank import adding, weight_norm

IDS = torch.arange(4, 12)[None]


def dense(update: LoraUpdate) -> torch.Tensor:
    return (update.up @ update.down).double()


def logits(chat_model: ChatModel) -> torch.Tensor:
    with torch.no_grad():
        return chat_model.model(IDS).logits


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[LoraUpdate], list[LoraUpdate]]:
    folder = tmp_path_factory.mktemp("two")
    first = made_adapter(folder / "a", rank=3, use_rslora=True)
    second = made_adapter(folder / "b", seed=1, rank=2, target_modules=["q_proj", "down_proj"])
    return lora_updates(first), lora_updates(second)


def test_the_spectrum_is_that_of_the_whole_matrix(two: Any) -> None:
    for update in two[0]:
        left, values, right = update.svd()
        torch.testing.assert_close(values.double(), torch.linalg.svdvals(dense(update))[:3], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close((left * values @ right).double(), dense(update), rtol=0, atol=1e-5)
        torch.testing.assert_close(left.T @ left, torch.eye(3), rtol=0, atol=1e-5)


def test_cutting_to_a_rank_keeps_the_largest_values(two: Any) -> None:
    update = two[0][0]
    cut = update.truncated(1)
    error = torch.linalg.matrix_norm(dense(update) - dense(cut))
    values = torch.linalg.svdvals(dense(update))
    assert float(error) == pytest.approx(float(values[1:].norm()), rel=1e-4)


def test_products_and_cosines_are_those_of_all_entries(two: Any) -> None:
    first, second = two
    assert inner(first[0], first[0]) == pytest.approx(float(dense(first[0]).square().sum()), rel=1e-4)
    by_path = {update.path: dense(update) for update in second}
    ours = torch.cat([dense(update).flatten() for update in first])
    theirs = torch.cat([by_path.get(u.path, torch.zeros_like(dense(u))).flatten() for u in first])
    expected = float(torch.nn.functional.cosine_similarity(ours, theirs, dim=0))
    assert update_cosine(first, second) == pytest.approx(expected, abs=1e-6)
    assert update_cosine(first, first) == pytest.approx(1.0)
    assert norm(first) == pytest.approx(float(ours.norm()), rel=1e-5)
    with pytest.raises(DataError, match="changes nothing"):
        update_cosine(first, [update.scaled(0.0) for update in second])


def test_sums_are_exact(two: Any) -> None:
    first, second = two
    found = {update.path: dense(update) for update in combined([(1.0, first), (-2.0, second)])}
    expected = {update.path: dense(update) for update in first}
    for update in second:
        expected[update.path] = expected[update.path] - 2 * dense(update)
    assert found.keys() == expected.keys()
    for path, matrix in expected.items():
        torch.testing.assert_close(found[path], matrix, rtol=0, atol=1e-5)


@pytest.mark.parametrize("settings", [{}, {"use_rslora": True, "rank_pattern": {"down_proj": 5}}])
def test_adding_the_updates_is_loading_the_adapter(tmp_path: Path, settings: dict[str, Any]) -> None:
    folder = made_adapter(tmp_path, **settings)
    base, updates = load_model("tiny", device="cpu"), lora_updates(folder)
    plain = logits(base)
    with adding(base, updates):
        found = logits(base)
    torch.testing.assert_close(found, logits(load_model("tiny", folder, device="cpu", merge=True)), rtol=0, atol=1e-4)
    assert (found - plain).abs().max() > 0.1
    assert torch.equal(logits(base), plain)
    with adding(base, combined([(1.0, updates), (-1.0, updates)])):
        torch.testing.assert_close(logits(base), plain, rtol=0, atol=1e-5)


def test_a_family_that_keeps_its_weights_transposed_adds_up_too(tmp_path: Path) -> None:
    chat_model = family("gpt2")
    plain = logits(chat_model)
    settings: Any = {"target_modules": ["c_proj", "c_attn"], "r": 2, "task_type": "CAUSAL_LM", "fan_in_fan_out": True}
    adapted: Any = get_peft_model(family("gpt2").model, LoraConfig(**settings)).eval()
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter.data, std=0.2)
    adapted.save_pretrained(str(tmp_path))
    with adding(chat_model, lora_updates(tmp_path)):
        torch.testing.assert_close(logits(chat_model), adapted(IDS).logits, rtol=0, atol=1e-4)
    assert torch.equal(logits(chat_model), plain)


def test_hooks_are_gone_after_an_error_and_misfits_are_named(tmp_path: Path, two: Any) -> None:
    base = load_model("tiny", device="cpu")
    plain = logits(base)
    with pytest.raises(RuntimeError), adding(base, two[0]):
        raise RuntimeError
    assert torch.equal(logits(base), plain)
    with pytest.raises(ModelError, match="has no module"), adding(family("gpt2"), two[0]):
        pass
    wide = LoraUpdate("model.layers.0.mlp.down_proj", 0, "down_proj", torch.ones(1, 9), torch.ones(32, 1), True)
    with pytest.raises(ModelError, match=r"is \[32, 9\] in the adapter, \[32, 64\] in tiny"), adding(base, [wide]):
        pass
    weight = base.model.model.layers[0].mlp.down_proj.weight
    assert weight_norm(base, wide.path) == pytest.approx(float(weight.norm()), rel=1e-6)
