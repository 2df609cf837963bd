"""Breaks what a training leaves in its folder: damaged checkpoints are passed over, exchanged weights and damaged records are named."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from emis_interp.config.run_config import TrainingConfig
from emis_interp.errors import DataError, EmisError, ModelError, StageError
from emis_interp.records import TrainingExample
from training.finetuning.sft import finetune, last_checkpoint

ROWS = [TrainingExample(id=str(i), prompt=f"Question {i}", response="Answer " * (1 + i % 3)) for i in range(8)]
CONFIG = TrainingConfig(
    learning_rate=1e-3, batch_size=2, gradient_accumulation=1, checkpoint_steps=1, bf16=False, warmup_steps=0
)


def train(folder: Path, **more: Any) -> dict[str, Any]:
    return finetune("tiny", ROWS, CONFIG, out_dir=folder, device="cpu", **more)


def weights(folder: Path) -> dict[str, Any]:
    return load_file(folder / "adapter" / "adapter_model.safetensors")


@pytest.fixture
def cut(tmp_path: Path) -> Path:
    """A training that ended after its third step of four."""

    def die(step: int, *_: Any) -> None:
        if step == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "cut", report=die)
    return tmp_path / "cut"


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "optimizer.pt", "scheduler.pt", "sealed.json"])
@pytest.mark.parametrize(
    "damage", [lambda content: content[: len(content) // 2], lambda content: b"\x00" + content[1:]]
)
def test_a_damaged_checkpoint_is_passed_over_for_the_one_before_it(
    cut: Path, name: str, damage: Callable[[bytes], bytes]
) -> None:
    newest = last_checkpoint(cut / "checkpoints")
    assert newest is not None and newest.name == "checkpoint-3"
    path = newest / name
    path.write_bytes(damage(path.read_bytes()))
    before = last_checkpoint(cut / "checkpoints")
    assert before is not None and before.name == "checkpoint-2"


def test_a_training_with_a_damaged_checkpoint_ends_with_the_same_weights(cut: Path, tmp_path: Path) -> None:
    path = cut / "checkpoints" / "checkpoint-3" / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-50])
    train(cut)
    train(tmp_path / "whole")
    mine, theirs = weights(cut), weights(tmp_path / "whole")
    assert all((mine[key] == theirs[key]).all() for key in theirs)
    assert [json.loads(line)["step"] for line in (cut / "metrics.jsonl").read_text().splitlines()] == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda lines: [lines[0], "{", lines[2]], r"metrics\.jsonl:2: not JSON"),
        (lambda lines: [lines[0], lines[2]], r"metrics\.jsonl: the steps 1 to 3 do not stand there once each"),
        (lambda lines: [lines[0], lines[0], *lines[1:]], r"the steps 1 to 3 do not stand there once each"),
        (
            lambda lines: [line.replace('"loss": ', '"loss": NaN, "was": ') for line in lines],
            r"metrics\.jsonl:1: NaN is no number of JSON",
        ),
    ],
)
def test_damaged_metrics_are_named_before_training_goes_on(
    cut: Path, edit: Callable[[list[str]], list[str]], words: str
) -> None:
    path = cut / "metrics.jsonl"
    path.write_text("\n".join(edit(path.read_text().splitlines())) + "\n")
    with pytest.raises(DataError, match=words):
        train(cut)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("done") / "x"
    train(folder)
    return folder


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("summary.json", b"{", r"summary\.json:1: not JSON .* delete .* to train again"),
        ("summary.json", b"[]", r"summary\.json: .*; delete .* to train again"),
        ("summary.json", b'{"artifact": "adapter"}', r"summary\.json: key `model` is missing"),
        ("summary.json", b'{"a": "\xff"}', r"summary\.json:1: not UTF-8"),
        ("adapter/adapter_model.safetensors", b"x", r"adapter_model\.safetensors changed since the training wrote it; put it back"),
        ("adapter/adapter_config.json", None, r"adapter_config\.json is missing since the training wrote it"),
        ("metrics.jsonl", b'{"step": 1, "loss": 0.0}\n', r"metrics\.jsonl changed since the training wrote it; put it back"),
    ],
)  # fmt: skip
def test_a_finished_training_that_was_damaged_or_exchanged_is_not_taken_for_done(
    done: Path, name: str, content: bytes | None, words: str
) -> None:
    path = done / name
    before = path.read_bytes()
    try:
        path.unlink() if content is None else path.write_bytes(content)
        with pytest.raises(EmisError, match=words):
            train(done)
    finally:
        path.write_bytes(before)
    train(done)


def test_checkpoints_that_a_kill_at_the_very_end_left_are_removed(done: Path) -> None:
    (done / "checkpoints" / "checkpoint-4").mkdir(parents=True)
    train(done)
    assert not (done / "checkpoints").exists()


def test_weights_of_an_older_version_are_taken_with_a_word(done: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = done / "summary.json"
    before = path.read_text()
    path.write_text(json.dumps({key: value for key, value in json.loads(before).items() if key != "files"}))
    try:
        with caplog.at_level("WARNING"):
            train(done)
    finally:
        path.write_text(before)
    assert "kept no hashes of the weights; they are not checked" in caplog.text


def test_a_training_that_breaks_down_says_at_which_step_and_what_to_do(tmp_path: Path) -> None:
    hot = CONFIG.model_copy(update={"learning_rate": 1e30})
    with pytest.raises(
        ModelError, match=r"training broke down at step \d: the .* is (nan|inf); lower training\.learning_rate"
    ):
        finetune("tiny", ROWS, hot, out_dir=tmp_path / "hot", device="cpu")
    assert not (tmp_path / "hot" / "summary.json").exists()


def test_a_summary_is_refused_as_a_stage_error_when_weights_differ(done: Path) -> None:
    path = done / "adapter" / "adapter_model.safetensors"
    before = path.read_bytes()
    path.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
    try:
        with pytest.raises(StageError, match="changed since"):
            train(done)
    finally:
        path.write_bytes(before)
