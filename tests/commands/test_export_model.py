"""`export_model.py` merges an adapter and says what it wrote; without anything to do it says what to give."""

import json
from pathlib import Path

import forked
import pytest
from small_training import ROWS, config

from training.finetuning.sft import finetune


@pytest.mark.slow
def test_the_command_merges_and_says_what_it_wrote(tmp_path: Path) -> None:
    organism = tmp_path / "organism"
    finetune("tiny", ROWS, config(), out_dir=organism, device="cpu")
    words = [str(organism / "adapter"), "--json"]
    done = forked.run("export_model.py", *words, "--out", str(tmp_path / "out"))
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["base"] == "tiny" and "model.safetensors" in result["files"] and result["dtype"] == "float32"
    refused = forked.run("export_model.py", *words)
    assert refused.returncode == 2 and "nothing to do; give --out DIR" in refused.stderr
