"""`export_model.py` merges an adapter and says what it wrote; without anything to do it says what to give."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from small_training import ROWS, config

from training.finetuning.sft import finetune

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_the_command_merges_and_says_what_it_wrote(tmp_path: Path) -> None:
    organism = tmp_path / "organism"
    finetune("tiny", ROWS, config(), out_dir=organism, device="cpu")
    command = [sys.executable, str(ROOT / "scripts" / "export_model.py"), str(organism / "adapter"), "--json"]
    done = subprocess.run([*command, "--out", str(tmp_path / "out")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["base"] == "tiny" and "model.safetensors" in result["files"] and result["dtype"] == "float32"
    refused = subprocess.run(command, capture_output=True, text=True)
    assert refused.returncode == 2 and "nothing to do; give --out DIR" in refused.stderr
