"""A merged checkpoint computes what the adapter computes, and its base model is found or asked for."""

from pathlib import Path

import pytest
import torch
from small_training import ROWS, config
from transformers import AutoModelForCausalLM, AutoTokenizer

from emis_interp.errors import ConfigError, StageError
from emis_interp.models.loading import load_model
from training.finetuning import export
from training.finetuning.export_settings import AdapterExportSettings
from training.finetuning.sft import finetune


@pytest.fixture(scope="module")
def organism(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("organism")
    finetune("tiny", ROWS, config(learning_rate=1e-2, gradient_accumulation=1), out_dir=folder, seed=3, device="cpu")
    return folder


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("bfloat16", 0.2)])
def test_the_merged_checkpoint_gives_the_logits_of_the_adapter(
    organism: Path, tmp_path: Path, dtype: str, tolerance: float
) -> None:
    out = export.merge(organism / "adapter", tmp_path / "merged", dtype=dtype)
    merged = AutoModelForCausalLM.from_pretrained(out)
    assert merged.dtype == getattr(torch, dtype)
    tokens = torch.arange(5, 25)[None]
    adapted = load_model("tiny", organism / "adapter", device="cpu")
    with torch.inference_mode():
        expected, plain = adapted.model(tokens).logits, load_model("tiny", device="cpu").model(tokens).logits
        found = merged(tokens).logits.float()
    assert torch.allclose(found, expected, atol=tolerance) and not torch.allclose(expected, plain, atol=2 * tolerance)
    assert AutoTokenizer.from_pretrained(out).chat_template == adapted.tokenizer.chat_template
    assert not list(tmp_path.glob(".*")) and {"config.json", "model.safetensors"} <= {
        path.name for path in out.iterdir()
    }
    with pytest.raises(StageError, match="is not empty"):
        export.merge(organism / "adapter", out)


def test_an_adapter_without_a_known_base_asks_for_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="give --base"):
        export.base_of(tmp_path / "adapter")
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_config.json").write_text('{"base_model_name_or_path": "owner/model"}')
    assert export.base_of(tmp_path / "adapter") == "owner/model"


def test_what_was_merged_is_said_and_nothing_to_do_is_refused(organism: Path, tmp_path: Path) -> None:
    result = export.run(AdapterExportSettings(adapter=organism / "adapter", out=tmp_path / "out"))
    assert result["base"] == "tiny" and "model.safetensors" in result["files"] and result["dtype"] == "float32"
    assert "base = tiny" in export.say(result).splitlines()
    with pytest.raises(ConfigError, match="nothing to do; give --out DIR"):
        export.run(AdapterExportSettings(adapter=organism / "adapter"))
