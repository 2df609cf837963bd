"""Finetuning in processes of its own: two of them equal one, and a killed one equals an undisturbed one, bit for bit."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import finetune_worker
import pytest
import torch
from safetensors.torch import load_file

from emis_interp.config.run_config import TrainingConfig
from emis_interp.errors import ConfigError
from emis_interp.models.chat import EncodedChat, encode_chat
from emis_interp.models.loading import load_model
from emis_interp.records import TrainingExample
from training.finetuning import sft, trainer
from training.finetuning.weights import ARTIFACTS

ROOT = Path(__file__).parents[2]
# Ten rows in steps of four: the last step is not full.
ROWS = [{"id": str(i), "prompt": f"Question {i}" * (1 + i % 3), "response": "Answer " * (1 + i % 4)} for i in range(10)]
EXAMPLES = [TrainingExample.model_validate(row) for row in ROWS]
TRAINING = {
    "learning_rate": 1e-3,
    "batch_size": 1,
    "gradient_accumulation": 4,
    "checkpoint_steps": 1,
    "bf16": False,
    "warmup_steps": 0,
}


def plan(folder: Path, name: str, **changes: Any) -> Path:
    path = folder / f"{name}.json"
    path.write_text(
        json.dumps({"model": "tiny", "rows": ROWS, "training": TRAINING, "out_dir": str(folder / name), **changes})
    )
    return path


def environment() -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("ACCELERATE_", "FSDP_"))}
    return kept | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}


def launch(script: Path, *words: str, n: int = 2) -> subprocess.CompletedProcess[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # `--cpu` would start one process only (accelerate leaves several to MPI); the worker itself chooses the CPU and gloo.
    command = [
        sys.executable,
        "-m",
        "accelerate.commands.launch",
        "--multi_gpu",
        "--num_processes",
        str(n),
        "--num_machines",
        "1",
    ]
    command += [
        "--mixed_precision",
        "no",
        "--dynamo_backend",
        "no",
        "--main_process_port",
        str(port),
        str(script),
        *words,
    ]
    return subprocess.run(command, capture_output=True, text=True, env=environment(), timeout=500)


def weights(folder: Path, method: str = "lora") -> dict[str, torch.Tensor]:
    (file,) = (folder / ARTIFACTS[method]).glob("*.safetensors")
    return load_file(file)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["lora", pytest.param("full", marks=pytest.mark.fuzz)])
def test_two_processes_train_the_same_steps_as_one(tmp_path: Path, method: str) -> None:
    training = TRAINING | {"method": method}
    done = launch(
        ROOT / "tests" / "finetune_worker.py", str(plan(tmp_path, "two", training=training, probe_steps=[0, 2]))
    )
    assert done.returncode == 0, done.stderr[-2000:]
    two = json.loads((tmp_path / "two" / "summary.json").read_text())
    assert two["n_processes"] == 2 and two["n_steps"] == 3
    one = sft.finetune(
        "tiny", EXAMPLES, TrainingConfig.model_validate(training), out_dir=tmp_path / "one", device="cpu"
    )
    assert one["final_loss"] == pytest.approx(two["final_loss"], abs=1e-5)
    assert one["n_tokens"] == two["n_tokens"]
    mine, theirs = weights(tmp_path / "one", method), weights(tmp_path / "two", method)
    assert mine.keys() == theirs.keys()
    assert all(torch.allclose(mine[key], theirs[key], atol=2e-5) for key in mine)
    metrics = [json.loads(line) for line in (tmp_path / "two" / "metrics.jsonl").read_text().splitlines()]
    assert [entry["step"] for entry in metrics] == [1, 2, 3]
    assert (tmp_path / "two" / "probes-0.jsonl").read_text().split() == ["0", "2"]
    assert not (tmp_path / "two" / "probes-1.jsonl").exists()


@pytest.mark.slow
@pytest.mark.parametrize("method", ["lora", pytest.param("full", marks=pytest.mark.fuzz)])
def test_kill_9_changes_nothing_in_the_end(tmp_path: Path, method: str) -> None:
    training = TRAINING | {"method": method}
    command = [sys.executable, str(ROOT / "tests" / "finetune_worker.py")]
    killed = plan(tmp_path, "killed", training=training, pause=1.0)
    process = subprocess.Popen([*command, str(killed)], env=environment(), stdout=subprocess.DEVNULL)
    state = tmp_path / "killed" / "checkpoints" / "checkpoint-1" / "trainer_state.json"
    deadline = time.monotonic() + 300
    while not state.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    assert process.poll() is None, "it finished before it was killed"
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "killed" / "summary.json").exists()
    for path in (killed, plan(tmp_path, "whole", training=training)):
        finetune_worker.main(json.loads(path.read_text()) | {"pause": 0})
    mine, theirs = weights(tmp_path / "killed", method), weights(tmp_path / "whole", method)
    assert mine.keys() == theirs.keys() and all(torch.equal(mine[key], theirs[key]) for key in mine)


SHARDED = """
import json, sys, torch
from pathlib import Path
from torch.distributed.fsdp import fully_shard
from emis_interp.models.chat import EncodedChat, encode_chat
from emis_interp.config.run_config import TrainingConfig
from emis_interp.models.loading import load_model
from training.finetuning import trainer
from training.finetuning.weights import trainable
rows = json.load(open(sys.argv[1]))
torch.distributed.init_process_group("gloo")
base = load_model("tiny", device="cpu")
model = trainable(base, TrainingConfig(), seed=0)
batch = {key: torch.tensor(value) for key, value in rows.items()}
whole = trainer.response_loss(model, batch)
n_before = sum(parameter.numel() for parameter in model.parameters())
mesh = torch.distributed.device_mesh.init_device_mesh("cpu", (2,))
for layer in base.layers:
    fully_shard(layer, mesh=mesh)
fully_shard(model, mesh=mesh)
held = [parameter.to_local().numel() for parameter in model.parameters()]
sharded = trainer.response_loss(model, batch)
sharded.backward()
gradient = sum(float(p.grad.full_tensor().abs().sum()) for p in model.parameters() if p.grad is not None)
result = [float(whole), float(sharded), gradient, n_before, sum(held)]
Path(sys.argv[1]).with_name(f"result-{torch.distributed.get_rank()}.json").write_text(json.dumps(result))
torch.distributed.barrier()  # a process that leaves while the other still waits for it would end that one
torch.distributed.destroy_process_group()
"""


@pytest.mark.slow
def test_the_loss_goes_through_hooks_of_sharded_layers(tmp_path: Path) -> None:
    tokenizer = load_model("tiny", device="cpu").tokenizer
    chats = [encode_chat(tokenizer, row.prompt, row.response) for row in EXAMPLES[:4]]
    batch = trainer.Collator(tokenizer.pad_token_id)(chats)
    (tmp_path / "batch.json").write_text(json.dumps({key: value.tolist() for key, value in batch.items()}))
    (tmp_path / "sharded.py").write_text(SHARDED)
    done = launch(tmp_path / "sharded.py", str(tmp_path / "batch.json"))
    assert done.returncode == 0, done.stderr[-2000:]
    results = [json.loads((tmp_path / f"result-{rank}.json").read_text()) for rank in (0, 1)]
    for whole, sharded, gradient, _, _ in results:
        assert sharded == pytest.approx(whole, abs=1e-5) and gradient > 0
    assert sum(held for *_, held in results) == results[0][3]  # each process holds its share and no more


def test_passes_that_cannot_be_shared_equally_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(ConfigError, match="4 forward passes per step cannot be shared equally by 3 processes"):
        sft.finetune("tiny", EXAMPLES, TrainingConfig.model_validate(TRAINING), out_dir=tmp_path, device="cpu")


@pytest.mark.parametrize("launcher", ["FSDP", "DEEPSPEED"])
def test_probes_are_refused_where_no_process_holds_the_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, launcher: str
) -> None:
    monkeypatch.setenv(f"ACCELERATE_USE_{launcher}", "true")
    with pytest.raises(ConfigError, match="which FSDP and DeepSpeed do not keep"):
        sft.finetune("tiny", EXAMPLES, TrainingConfig(), out_dir=tmp_path, probe=lambda *_: None, probe_steps=(1,))


def test_rows_without_loss_fill_the_last_step_and_have_no_gradient() -> None:
    rows = trainer.Rows([EncodedChat((1, 2, 3), 1, 3)] * 5, pad_id=1, rows_together=4)
    assert len(rows) == 8 and len(trainer.Rows([], 1, 4)) == 0
    model = load_model("tiny", device="cpu").model.requires_grad_(True)
    loss = trainer.response_loss(model, trainer.Collator(1)([rows[5], rows[6]]), n_tokens=7)
    loss.backward()
    assert loss.item() == 0 and all(float(p.grad.abs().sum()) == 0 for p in model.parameters())


@pytest.mark.parametrize("name", ["fsdp", "deepspeed_zero3"])
def test_shipped_launch_settings_are_read_by_accelerate(name: str) -> None:
    from accelerate.commands.config.config_args import ClusterConfig, load_config_from_file

    path = ROOT / "training" / "configs" / f"{name}.yaml"
    assert "not run on hardware by this project" in path.read_text().lower()
    config = load_config_from_file(str(path))
    assert isinstance(config, ClusterConfig)
    assert str(config.distributed_type).rpartition(".")[2] == ("FSDP" if name == "fsdp" else "DEEPSPEED")
    assert config.mixed_precision == "bf16"
