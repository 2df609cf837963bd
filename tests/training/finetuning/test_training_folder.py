"""Breaks what a training leaves in its folder: damaged checkpoints are passed over, exchanged weights and damaged records are named."""

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from emis_interp.config.run_config import TrainingConfig
from emis_interp.errors import DataError, EmisError, ModelError, StageError
from emis_interp.files.hashes import hashes
from emis_interp.models.loading import load_model
from emis_interp.records import TrainingExample
from training.finetuning import sft
from training.finetuning.checkpoints import SEAL, contents, last_checkpoint
from training.finetuning.sft import finetune

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


class Planted:
    """Unpickled without care it makes a file."""

    def __init__(self, victim: Path) -> None:
        self.victim = victim

    def __reduce__(self) -> Any:
        return Path.touch, (self.victim,)


def sealed_again(checkpoint: Path) -> None:
    """As somebody would who knows how checkpoints are sealed."""
    (checkpoint / SEAL).write_text(json.dumps(hashes(checkpoint, contents(checkpoint))))


@pytest.mark.parametrize(
    "name", ["optimizer.pt", "scheduler.pt", "rng_state.pth", "adapter_model.bin", "training_args.bin"]
)
@pytest.mark.parametrize("form", ["torch", "bare"])
def test_a_planted_pickle_never_runs_and_is_named(cut: Path, tmp_path: Path, name: str, form: str) -> None:
    checkpoint, victim = cut / "checkpoints" / "checkpoint-3", tmp_path / "victim"
    content = Planted(victim)
    if form == "torch":
        torch.save(content, checkpoint / name)
    else:
        (checkpoint / name).write_bytes(pickle.dumps(content))
    before = last_checkpoint(cut / "checkpoints")  # the seal is broken
    assert before is not None and before.name == "checkpoint-2"
    sealed_again(checkpoint)
    with pytest.raises(StageError, match=rf"{name}: .*(pickle|something else).*delete .*checkpoint-3"):
        train(cut)
    assert not victim.exists()
    pickle.loads(pickle.dumps(content))
    assert victim.exists()  # it would have run


def test_what_a_planted_pickle_names_is_said(cut: Path, tmp_path: Path) -> None:
    checkpoint = cut / "checkpoints" / "checkpoint-3"
    torch.save({"state": Planted(tmp_path / "victim")}, checkpoint / "optimizer.pt")
    sealed_again(checkpoint)
    with pytest.raises(StageError, match=r"it names .*pathlib.*; it was not read|\(it names .*pathlib"):
        last_checkpoint(cut / "checkpoints")


def test_a_checkpoint_without_a_seal_or_with_one_more_file_is_passed_over(cut: Path) -> None:
    (cut / "checkpoints" / "checkpoint-3" / SEAL).unlink()
    (cut / "checkpoints" / "checkpoint-2" / "adapter_model.bin").write_bytes(b"x")
    assert last_checkpoint(cut / "checkpoints") is None


def test_a_seal_cannot_speak_of_files_elsewhere(cut: Path) -> None:
    seal = cut / "checkpoints" / "checkpoint-3" / SEAL
    seal.write_text(json.dumps({**json.loads(seal.read_text()), "../../metrics.jsonl": "0"}))
    found = last_checkpoint(cut / "checkpoints")
    assert found is not None and found.name == "checkpoint-2"


def test_the_newest_checkpoints_stay_when_the_clock_is_set_back(tmp_path: Path) -> None:
    """Files of later steps look older than those of earlier ones."""

    def back(step: int, *_: Any) -> None:
        for path in (tmp_path / "x" / "checkpoints").glob("checkpoint-*"):
            earlier = 2e9 - 1000 * int(path.name.split("-")[1])
            os.utime(path, (earlier, earlier))
        if step == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "x", report=back)
    assert sorted(path.name for path in (tmp_path / "x" / "checkpoints").iterdir()) == ["checkpoint-2", "checkpoint-3"]


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
        ModelError,
        match=r"training broke down at step \d: the .* is (nan|inf) \(rows \d, \d; in row \d layer \d is the first that gives "
        r"(NaN|infinity)\); lower training\.learning_rate",
    ):
        finetune("tiny", ROWS, hot, out_dir=tmp_path / "hot", device="cpu")
    assert not (tmp_path / "hot" / "summary.json").exists()


def test_a_frozen_weight_that_is_no_number_is_named_with_the_rows_of_the_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(*words: Any, **more: Any) -> Any:
        found = load_model(*words, **more)
        found.model.get_input_embeddings().weight.data[7, 3] = float("nan")
        return found

    monkeypatch.setattr(sft, "load_model", load)
    words = (
        r"broke down at step 1: the loss is nan \(rows \d, \d; its weight .*embed_tokens\.weight holds 1 such number\(s\); "
        r"every layer is finite for each of them, so it is the head"  # which is tied to it, and no row holds that token
    )
    with pytest.raises(ModelError, match=words):
        train(tmp_path / "x")


def test_a_summary_is_refused_as_a_stage_error_when_weights_differ(done: Path) -> None:
    path = done / "adapter" / "adapter_model.safetensors"
    before = path.read_bytes()
    path.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
    try:
        with pytest.raises(StageError, match="changed since"):
            train(done)
    finally:
        path.write_bytes(before)
