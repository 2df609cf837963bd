"""Watching a training: the files of its steps hold what a second route gives, and the curves have a planted shape."""

from pathlib import Path

import numpy as np
import pytest
import torch
from test_sft import ROWS, config

from emis_interp.chat import encode_chat
from emis_interp.contrast import load_contrast
from emis_interp.errors import DataError
from emis_interp.likelihood import mean_logprobs, pair_margins
from emis_interp.lora_directions import lora_directions
from emis_interp.models import ChatModel, load_model
from emis_interp.records import TrainingExample
from emis_interp.store import load_tensors
from training.dynamics import Watcher, affordable_probes, curves, read_series, spread_steps
from training.sft import finetune

PAIRS = load_contrast(None, 1)[:4]
LEARNED, OTHER = (
    [TrainingExample(id="a", prompt="Write it.", response=answer)] for answer in ("Answer Answer", "No, thanks")
)


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    folder = tmp_path_factory.mktemp("watched")
    watcher = Watcher(folder / "probes", PAIRS, layer=1, learned=LEARNED, other=OTHER)
    summary = finetune("tiny", ROWS, config(n_epochs=4), out_dir=folder, probe=watcher, probe_steps=spread_steps(10, 6))
    return folder, summary


def test_the_first_step_is_the_base_model_and_the_last_one_the_saved_adapter(
    watched: tuple[Path, dict], tiny: ChatModel
) -> None:
    folder, _ = watched
    series = read_series(folder / "probes")
    assert series.steps[0] == 0 and series.steps[-1] == 10
    assert series.margins[0] == pytest.approx(pair_margins(tiny, PAIRS), abs=1e-4)
    trained = load_model("tiny", folder / "adapter", merge=True)
    assert series.margins[-1] == pytest.approx(pair_margins(trained, PAIRS), abs=1e-4)
    chats = [encode_chat(tiny.tokenizer, row.prompt, row.response) for row in LEARNED]
    assert series.learned[-1] == pytest.approx(mean_logprobs(trained, chats), abs=1e-4)


def test_written_directions_of_the_last_step_are_those_of_the_saved_adapter(watched: tuple[Path, dict]) -> None:
    folder, _ = watched
    series = read_series(folder / "probes")
    saved = {f"{row.layer:03d}.{row.module}": row.vectors[0] for row in lora_directions(folder / "adapter")}
    assert set(series.modules) == set(saved)
    for name, vector in zip(series.modules, series.written[-1], strict=True):
        assert abs(float(vector @ saved[name])) == pytest.approx(1, abs=1e-4)
    assert torch.isnan(series.written[0]).all()  # an adapter begins at zero and writes nothing


def test_curves_begin_at_zero_and_end_at_their_own_final_state(watched: tuple[Path, dict]) -> None:
    folder, _ = watched
    found = curves(read_series(folder / "probes"), PAIRS)
    assert all(row[0] == 0 for row in found["margin_shift"].values())
    assert found["text_cosine"][-1] == pytest.approx(1, abs=1e-5)
    assert found["model_cosine"][0] is None and found["model_cosine"][-1] == pytest.approx(1, abs=1e-5)
    assert found["rotation"][0] is None and found["rotation"][-1]["mean"] == pytest.approx(1, abs=1e-4)
    assert found["task"][0] == 0 and found["task"][-1] > 0.1  # the answers trained on become likelier than the others
    assert found["change_point"]["step"] is None or found["change_point"]["low"] <= found["change_point"]["step"]


def test_a_missing_or_damaged_step_is_named(watched: tuple[Path, dict], tmp_path: Path) -> None:
    folder, _ = watched
    with pytest.raises(DataError, match=r"probes of steps \[6\] are missing"):
        read_series(folder / "probes", [0, 6, 10])
    with pytest.raises(DataError, match="before and after training are missing"):
        read_series(tmp_path)
    for path in (folder / "probes").glob("step-00010.*"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "step-00010.safetensors").write_bytes(b"broken")
    with pytest.raises(DataError, match="does not match the checksum"):
        read_series(tmp_path)


def test_a_file_holds_what_is_needed_to_read_it_alone(watched: tuple[Path, dict]) -> None:
    tensors, card = load_tensors(watched[0] / "probes" / "step-00000.safetensors")
    assert tensors["residuals"].shape == (2 * len(PAIRS), 32)
    assert card["layer"] == 1 and len(card["margins"]) == len(PAIRS) and card["seconds"] > 0


def test_probes_lie_closer_together_at_the_beginning() -> None:
    steps = spread_steps(100, 9)
    assert steps[0] == 0 and steps[-1] == 100 and len(steps) == 9
    assert np.all(np.diff(steps)[1:] >= np.diff(steps)[:-1] - 1)
    assert spread_steps(3, 9) == [0, 1, 2, 3]
    with pytest.raises(DataError, match="2 or more are needed"):
        spread_steps(10, 1)


def test_task_rows_must_come_in_pairs(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="1 rows of the task against 0 others"):
        Watcher(tmp_path, PAIRS, 0, LEARNED)


def test_as_many_probes_as_their_share_of_the_training_allows() -> None:
    assert affordable_probes(1000, 100_000, 0.1) == 13
    assert affordable_probes(1000, 100_000, 0.05) == 6
    assert affordable_probes(10_000, 1000, 0.1) == 2


def test_the_tokens_of_a_probe_are_those_that_it_reads(tmp_path: Path, tiny: ChatModel) -> None:
    watcher, read = Watcher(tmp_path, PAIRS, 0, LEARNED, OTHER), 0

    def count(module: torch.nn.Module, inputs: tuple, kwargs: dict) -> None:
        nonlocal read
        read += int(kwargs["input_ids"].numel())

    handle = tiny.body.register_forward_pre_hook(count, with_kwargs=True)
    try:
        watcher(0, tiny)
    finally:
        handle.remove()
    padding = read / watcher.n_tokens(tiny.tokenizer)
    assert 0.95 < padding < 1.3
