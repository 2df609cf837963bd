"""The checks of a GPU, on the tiny model: each runs, each can fail, and what is there is kept."""

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, Qwen2Config

from benchmarks import gpu_checks, gpu_run
from benchmarks.gpu_checks import CHECKS
from benchmarks.gpu_subject import FULL, SHAPES, TINY, Subject, chosen_device, given_model, random_model
from emis_interp.errors import ConfigError, ModelError, StageError
from emis_interp.process import no_bars

ABOUT: dict[str, Any] = {"device": {"kind": "cpu", "name": "CPU"}, "model": {"weights": "random"}, "tiny": True}
pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="the dry run is of a machine without a GPU")


@pytest.fixture(scope="module")
def subject(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    return Subject(random_model(tmp_path_factory.mktemp("models"), TINY, "cpu")["model"], "cpu", tiny=True)


def run(subject: Subject, out: Path, **how: Any) -> dict[str, Any]:
    given = {"minutes": 8, "measure": lambda name, left: {"figures": {"n": name}}, "bars": no_bars} | how
    return gpu_run.run_checks(subject, given.pop("about", ABOUT), out, **given)


def only_of(names: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave checks whose criterion holds of anything."""
    kept = {name: dataclasses.replace(CHECKS[name], holds=lambda found: True) for name in names}
    monkeypatch.setattr(gpu_run, "CHECKS", kept)


def test_without_a_gpu_the_command_says_so_and_offers_a_dry_run() -> None:
    with pytest.raises(ConfigError, match=r"no GPU is here: torch .* --device cpu --tiny"):
        chosen_device("auto")
    with pytest.raises(ConfigError, match="no GPU is here"):
        chosen_device("cuda")
    assert chosen_device("cpu") == "cpu"


def test_the_random_model_has_the_size_of_its_namesake_and_the_same_weights_every_time(tmp_path: Path) -> None:
    """Qwen2.5-1.5B: 1.54 billion parameters, 1.31 without embeddings (its model card)."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(Qwen2Config(**SHAPES[FULL], tie_word_embeddings=True))
    n = sum(weights.numel() for weights in model.parameters())
    assert round(n / 1e9, 2) == 1.54
    assert round((n - model.get_input_embeddings().weight.numel()) / 1e9, 2) == 1.31
    folders = [Path(random_model(tmp_path / name, TINY, "cpu")["model"]) for name in ("a", "b")]
    first, second = (load_file(folder / "model.safetensors") for folder in folders)
    assert first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)
    assert {path.name for path in (tmp_path / "a").iterdir()} == {TINY}


def test_a_model_that_is_no_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no folder with a config.json; leave it out"):
        given_model(str(tmp_path))


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    ["steering", *(pytest.param(name, marks=pytest.mark.fuzz) for name in ("capture", "sampling", "device_map"))],
)
def test_a_dry_run_makes_the_figures_of_every_check(name: str, subject: Subject) -> None:
    found = gpu_run.figures_of(name, subject)
    json.dumps(found)
    met = CHECKS[name].holds(found)
    if name in ("steering", "device_map"):  # speeds of a tiny model on a busy CPU mean nothing
        assert met
    if name == "sampling":
        assert found["largest_gap_where_they_part"] <= gpu_checks.TIE


def test_steering_that_differs_on_the_device_is_seen(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    """The device adds one part in ten thousand more than it should."""
    apply = gpu_checks.apply

    def wrong(chat_model: Any, work: Any) -> Any:
        if chat_model.dtype == "float64" and isinstance(work, gpu_checks.Steer):
            work = gpu_checks.Steer({layer: 1.0001 * vector for layer, vector in work.vectors.items()})
        return apply(chat_model, work)

    monkeypatch.setattr(gpu_checks, "apply", wrong)
    found = gpu_checks.steering(subject)
    assert not CHECKS["steering"].holds(found)
    assert found["steer"]["gap"] > found["tolerance"] > found["ablate"]["gap"]


def test_an_intervention_that_does_nothing_is_not_called_equal(subject: Subject) -> None:
    found = {"largest_gap": 0.0, "smallest_effect": 0.0, "tolerance": 1e-5}
    assert not CHECKS["steering"].holds(found)


def test_a_part_that_changes_on_its_way_to_another_device_is_seen(
    subject: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    dispatch = gpu_checks.dispatch_model

    def wrong(model: Any, *args: Any, **how: Any) -> None:
        with torch.no_grad():
            model.model.layers[3].mlp.down_proj.weight.mul_(1.01)
        dispatch(model, *args, **how)

    monkeypatch.setattr(gpu_checks, "dispatch_model", wrong)
    found = gpu_checks.device_map(subject)
    assert found["devices"] == ["cpu", "disk"]
    assert not CHECKS["device_map"].holds(found)


@pytest.mark.parametrize(
    ("name", "figures"),
    [
        ("capture", {"bf16_vs_bf16_floor": 0.89}),
        ("sampling", {"ours_vs_loop": 3.0, "largest_gap_where_they_part": 0.01}),
        ("sampling", {"ours_vs_loop": 0.9, "largest_gap_where_they_part": 0.0}),
        ("training", {"ours_vs_trl": 2.0, "rss_vs_trl": 0.5, "gpu_memory_vs_trl": 1.1, "loss_gap": 0.0}),
        ("training", {"ours_vs_trl": 2.0, "rss_vs_trl": 1.1, "gpu_memory_vs_trl": 0.5, "loss_gap": 0.06}),
        ("four_bit", {"share_of_bf16": 0.4, "logits_finite": True, "final_loss": float("nan"), "n_trainable": 9}),
        ("four_bit", {"share_of_bf16": 0.6, "logits_finite": True, "final_loss": 1.0, "n_trainable": 9}),
    ],
)
def test_every_criterion_can_fail(name: str, figures: dict[str, Any]) -> None:
    assert not CHECKS[name].holds(figures)


def test_results_are_kept_and_only_what_is_left_is_asked_again(
    subject: Subject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    only_of(("steering", "capture", "device_map"), monkeypatch)
    out, asked = tmp_path / "found.json", list[str]()

    def measure(name: str, left: float) -> dict[str, Any]:
        asked.append(name)
        if name == "capture" and asked.count(name) == 1:
            return {"error": "out of memory"}
        if name == "device_map" and asked.count(name) == 1:
            raise KeyboardInterrupt
        return {"figures": {"n": 1}}

    with pytest.raises(KeyboardInterrupt):
        run(subject, out, measure=measure)
    kept = json.loads(out.read_text("utf-8"))["checks"]
    assert {name: row["verdict"] for name, row in kept.items()} == {"steering": "dry run: met", "capture": "error"}
    found = run(subject, out, measure=measure)
    assert asked == ["steering", "capture", "device_map", "capture", "device_map"]
    assert {row["verdict"] for row in found["checks"].values()} == {"dry run: met"}
    assert all(row["claim"] and row["criterion"] and row["where"] for row in found["checks"].values())


def test_checks_that_no_longer_fit_are_named_as_not_run(
    subject: Subject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    only_of(("steering", "capture"), monkeypatch)
    found = run(subject, tmp_path / "found.json", minutes=0.0)
    assert {row["verdict"] for row in found["checks"].values()} == {"not run"}
    assert "Left: steering, capture; the same command goes on with them." in gpu_run.lines_of(found)


def test_what_is_not_installed_is_skipped_with_its_reason(
    subject: Subject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    only_of(("training", "four_bit"), monkeypatch)
    monkeypatch.setattr(gpu_checks.importlib.util, "find_spec", lambda name: None)
    rows = run(subject, tmp_path / "found.json")["checks"]
    assert {row["verdict"] for row in rows.values()} == {"skipped"}
    assert (
        "TRL is not installed" in rows["training"]["reason"]
        and "bitsandbytes is not installed" in rows["four_bit"]["reason"]
    )


def test_a_verdict_on_a_cpu_is_a_dry_run_and_one_on_a_gpu_is_not(subject: Subject) -> None:
    def verdict(device: str, holds: bool) -> str:
        check = dataclasses.replace(CHECKS["capture"], holds=lambda found: holds)
        other = dataclasses.replace(subject, device=device)
        return gpu_run.checked("capture", check, other, left=99.0, measure=lambda *_: {"figures": {}})["verdict"]

    assert [verdict(*case) for case in (("cpu", True), ("cpu", False), ("cuda", True), ("cuda", False))] == [
        "dry run: met",
        "dry run: not met",
        "passed",
        "failed",
    ]


def test_results_of_another_device_are_not_gone_on_with(
    subject: Subject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    only_of(("capture",), monkeypatch)
    run(subject, tmp_path / "found.json")
    with pytest.raises(StageError, match=r"about.device.name: CPU -> H100.*give another --out"):
        run(subject, tmp_path / "found.json", about={**ABOUT, "device": {"kind": "cuda", "name": "H100"}})


def test_a_child_that_takes_too_long_is_ended(subject: Subject) -> None:
    pids: list[int] = []
    popen = gpu_run.subprocess.Popen

    class Seen(popen):
        def __init__(self, *args: Any, **how: Any) -> None:
            super().__init__(*args, **how)
            pids.append(self.pid)

    gpu_run.subprocess.Popen = Seen
    try:
        found = gpu_run.in_child(["--model", subject.model, "--device", "cpu", "--tiny"], "cpu")("capture", 0.5)
    finally:
        gpu_run.subprocess.Popen = popen
    assert found["too_slow"] and "give more --minutes" in found["error"]
    with pytest.raises(ProcessLookupError):
        os.killpg(pids[0], 0)


@pytest.mark.slow
@pytest.mark.fuzz
def test_the_command_makes_a_check_in_a_process_of_its_own(subject: Subject) -> None:
    words = ["--model", subject.model, "--device", "cpu", "--tiny"]
    found = gpu_run.in_child(words, "cpu")("device_map", 300.0)
    assert CHECKS["device_map"].holds(found["figures"])
    wrong = gpu_run.in_child(words, "cpu")("four_bit", 300.0)
    assert "ended with status 2" in wrong["error"] and "needs a CUDA GPU" in wrong["error"]
