from pathlib import Path

import pytest
import torch

from emis_interp.errors import DataError, ModelError
from emis_interp.files.tensors import save_tensors
from probes.classifiers.probe import AttentionProbe, LinearProbe, load_probe


def test_a_probe_is_found_by_its_folder_its_stem_and_either_file(tmp_path: Path) -> None:
    probe = LinearProbe(torch.randn(8), -0.5, 3, "first_4", {"model": "tiny", "method": "lda"})
    probe.save(tmp_path / "probe")
    for name in ("", "probe", "probe.safetensors", "probe.json"):
        read = load_probe(tmp_path / name)
        assert isinstance(read, LinearProbe)
        assert torch.equal(read.weight, probe.weight)
        assert (read.bias, read.layer, read.position, read.card) == (-0.5, 3, "first_4", probe.card)


def test_a_saved_attention_probe_scores_as_before(tmp_path: Path) -> None:
    probe = AttentionProbe(torch.randn(8), torch.randn(8), 0.25, 1)
    probe.save(tmp_path / "qwen2.5")
    x = torch.randn(3, 5, 8)
    read = load_probe(tmp_path / "qwen2.5")
    assert isinstance(read, AttentionProbe)
    assert torch.equal(read.score(x), probe.score(x))


def test_attention_over_equal_tokens_is_the_linear_score_of_one() -> None:
    value = torch.randn(8)
    attended = AttentionProbe(torch.randn(8), value, 0.3, 1)
    token = torch.randn(8)
    assert attended.score(token.expand(7, 8)).item() == pytest.approx(
        float(LinearProbe(value, 0.3, 1).score(token)), abs=1e-5
    )


def test_residuals_of_another_width_and_single_tokens_for_attention_are_refused() -> None:
    with pytest.raises(ModelError, match="d_model 8, residuals have 9"):
        LinearProbe(torch.zeros(8), 0.0, 0).score(torch.zeros(2, 9))
    with pytest.raises(ModelError, match="whole answers"):
        AttentionProbe(torch.zeros(8), torch.zeros(8), 0.0, 0).score(torch.zeros(8))


def test_a_direction_is_not_taken_for_a_probe(tmp_path: Path) -> None:
    save_tensors(tmp_path / "direction.safetensors", {"vector": torch.zeros(8)}, {"layer": 1})
    with pytest.raises(DataError, match="not a probe"):
        load_probe(tmp_path / "direction")
    with pytest.raises(DataError, match="no saved probe"):
        load_probe(tmp_path / "nowhere")
