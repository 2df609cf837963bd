"""Watching a training: the files of its steps hold what a second route gives, and the curves have a planted shape."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_training import ROWS, config

from emis_interp.errors import DataError
from emis_interp.files.tensors import load_tensors
from emis_interp.models.chat import encode_chat
from emis_interp.models.chat_model import ChatModel
from emis_interp.models.loading import load_model
from emis_interp.models.lora_directions import lora_directions
from emis_interp.passes.likelihood import mean_logprobs, pair_margins
from emis_interp.records import ContrastPair, TrainingExample
from emis_interp.texts.contrast import load_contrast
from training.finetuning.sft import finetune
from training.studies.change_point import cumulative_learning_rate
from training.studies.dynamics import Series, Watcher, affordable_probes, curves, read_series, spread_steps
from training.studies.dynamics_study import column_of, said

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


def test_recorded_learning_rates_are_those_with_which_the_steps_were_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    used: list[float] = []
    step = torch.optim.AdamW.step

    def remember(self: torch.optim.AdamW, *args: Any, **kwargs: Any) -> Any:
        used.append(float(self.param_groups[0]["lr"]))
        return step(self, *args, **kwargs)

    monkeypatch.setattr(torch.optim.AdamW, "step", remember)
    finetune("tiny", ROWS, config(n_epochs=3, warmup_steps=3), out_dir=tmp_path)
    recorded = column_of(tmp_path / "metrics.jsonl", "learning_rate")
    assert [number for number, _ in recorded] == list(range(1, len(used) + 1))
    assert [rate for _, rate in recorded] == pytest.approx(used, rel=1e-6)
    assert used[0] == 0 and max(used) == pytest.approx(1e-3) and used[-1] < 5e-4  # warm-up, then decay
    summed = cumulative_learning_rate(recorded, [0, 1, 2, len(used)])
    assert summed.tolist() == pytest.approx([0, 0, used[1], sum(used)])


def planted(shape: str) -> tuple[Series, list[ContrastPair], list[tuple[int, float]]]:
    """Margins of 12 questions that follow the summed learning rate of a decaying schedule, in proportion or from its middle on."""
    steps, random = np.arange(0, 42, 3.0), np.random.default_rng(3)
    learning_rates = [(step, 1e-3 * (40 - step) / 40) for step in range(1, 41)]
    z = cumulative_learning_rate(learning_rates, steps) / sum(rate for _, rate in learning_rates)
    curve = z if shape == "in proportion" else 2 * np.maximum(0, z - 0.5)
    margins = -1 + curve[:, None] * random.uniform(0.5, 1.5, 12) + random.normal(0, 0.01, (len(z), 12))
    rows = {"group": "g", "half": "report", "question": "Why?", "aligned": "a", "misaligned": "m"}
    pairs = [ContrastPair.model_validate({**rows, "question_id": f"q{i}"}) for i in range(12)]
    nothing, blank = np.zeros((len(z), 0)), torch.randn(len(z), 24, 4, generator=torch.Generator().manual_seed(0))
    series = Series(
        steps, margins, nothing, nothing, blank, blank[:, :1], ("m",), np.zeros(len(z)), (None,) * len(z), 0
    )
    return series, pairs, learning_rates


def test_a_margin_bends_where_the_summed_learning_rate_does_not_explain_it() -> None:
    series, pairs, rates = planted("in proportion")
    found = curves(series, pairs, learning_rates=rates)
    assert found["change_point"]["step"] is None and "fits as well" in found["change_point"]["reason"]
    assert found["cumulative_lr"] == cumulative_learning_rate(rates, series.steps).tolist()
    assert found["margins"]["q3"] == series.margins[:, 3].tolist()  # base's margin is the first of them
    series, pairs, rates = planted("bent")
    point = curves(series, pairs, learning_rates=rates)["change_point"]
    whole = sum(rate for _, rate in rates)
    assert point["cumulative_lr"] == pytest.approx(whole / 2, rel=0.1)
    assert point["low"] < 11.7 + 1 and point["high"] > 11.7 - 1  # half of the sum is reached at step 11.7 of 40
    text = said(point)
    assert (
        text.startswith(f"step {point['step']:.1f} [") and "cumulative learning rate" in text and "smooth curve" in text
    )
    unknown = curves(series, pairs)
    assert unknown["cumulative_lr"] is None and said(unknown["change_point"]) == "none: no learning rates were given"


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
