"""The dtype `auto`: bfloat16 where the device computes it in hardware, float32 elsewhere, and decided before a run is recorded."""

from pathlib import Path
from typing import Any

import pytest
import torch

from emis_interp.config.presets import load_config
from emis_interp.config.run_config import TrainingConfig
from emis_interp.errors import ModelError
from emis_interp.models.loading import load_model
from emis_interp.models.precision import dtype_name, native_dtype
from emis_interp.records import TrainingExample
from training.finetuning.sft import finetune


def has(monkeypatch: pytest.MonkeyPatch, **capabilities: Any) -> None:
    """A machine without CUDA whose processor has these capabilities."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True, **capabilities})


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        ({}, "float32"),
        ({"avx512_f": True, "avx512_bf16": False, "amx_bf16": False}, "float32"),
        ({"avx512_bf16": True}, "bfloat16"),
        ({"amx_bf16": True}, "bfloat16"),
        ({"neon": True, "bf16": True}, "bfloat16"),
    ],
)
def test_auto_is_bfloat16_only_where_the_processor_has_its_instructions(
    monkeypatch: pytest.MonkeyPatch, capabilities: dict[str, bool], expected: str
) -> None:
    has(monkeypatch, **capabilities)
    assert native_dtype() == native_dtype("cpu") == dtype_name("auto") == expected
    assert load_model("tiny", dtype="auto").dtype == expected


def test_auto_asks_the_gpu_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    has(monkeypatch, avx512_bf16=True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for native in (True, False):
        monkeypatch.setattr(
            torch.cuda, "is_bf16_supported", lambda including_emulation, native=native: native or including_emulation
        )
        expected = "bfloat16" if native else "float32"
        assert (native_dtype(), native_dtype("cuda:1"), native_dtype("cpu")) == (expected, expected, "bfloat16")


def test_a_device_of_another_kind_gets_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    has(monkeypatch, bf16=True)
    assert native_dtype("mps") == "float32"


def test_a_dtype_that_is_named_stays_and_one_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    has(monkeypatch)
    assert dtype_name("bfloat16") == "bfloat16"
    with pytest.raises(ModelError, match="unknown dtype `aut`; did you mean `auto`"):
        dtype_name("aut")


@pytest.mark.parametrize("native", [True, False])
def test_a_run_records_the_dtypes_that_its_machine_was_given(monkeypatch: pytest.MonkeyPatch, native: bool) -> None:
    has(monkeypatch, avx512_bf16=native)
    config = load_config("laptop")
    assert (config.dtype, config.training.bf16) == ("bfloat16" if native else "float32", native)
    named = load_config("laptop", ["dtype=float16", "training.bf16=true"])
    assert (named.dtype, named.training.bf16) == ("float16", True)


def test_training_decides_for_itself_when_nobody_did(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    rows = [TrainingExample(id="a", prompt="Say a.", response="a")] * 2
    for native in (True, False):
        has(monkeypatch, amx_bf16=native)
        config = TrainingConfig(batch_size=2, gradient_accumulation=1, max_tokens=64)
        assert finetune("tiny", rows, config, out_dir=tmp_path / str(native), device="cpu")["bf16"] is native


def test_emulated_bfloat16_is_given_but_not_without_a_word(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for native in (True, False):
        has(monkeypatch, avx512_bf16=native)
        caplog.clear()
        assert load_model("tiny", dtype="bfloat16").dtype == "bfloat16"
        assert ("emulates bfloat16" in caplog.text) is not native
