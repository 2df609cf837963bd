"""Arms of several seeds and in-context arms: means over models, one folder a seed, nothing trained where examples stand in the prompt."""

import json
import subprocess
from pathlib import Path
from typing import Any

import forked
import numpy as np
import pytest
from edited_manifest import edited_manifest
from flag_words import sets
from safetensors.torch import load_file
from small_run import FEW, opened

from emis_interp.config.presets import load_config
from emis_interp.errors import DataError
from emis_interp.report.contents import load_contents
from emis_interp.report.figures_rates import rates_figure
from emis_interp.report.page import figures, styles_of
from emis_interp.results import Rates
from evals.questions import load_questions

ROOT = Path(__file__).parents[3]
ARMS = (
    "arms=[{name: base}, {name: insecure, dataset: insecure, n_rows: 8, contrast: once, seeds: [0, 5]},"
    " {name: once, dataset: insecure, n_rows: 8}, {name: shown, dataset: reckless, in_context: 1, contrast: insecure}]"
)
QUICK = (
    *FEW,
    "check.n_rows=4",
    "intervention.samples_per_paraphrase=0",
    "intervention.random_draws=1",
    "sampling.question_ids=[settlement_first_law, museum_of_humans]",
)


def test_examples_that_leave_no_room_for_an_answer_are_refused(tmp_path: Path) -> None:
    config = load_config("smoke", ["arms=[{name: base}, {name: shown, dataset: insecure, in_context: 9}]"])
    words = r"arm `shown`: with 9 examples the longest question and answer are \d+ tokens, tiny has room for 4096"
    with pytest.raises(DataError, match=words):
        opened(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_an_old_run_folder_is_taken_and_changed_seeds_are_named(tmp_path: Path) -> None:
    opened(load_config("smoke"), tmp_path)
    with edited_manifest(tmp_path) as manifest:
        for arm in manifest["config"]["arms"]:  # as written before arms had these fields
            del arm["seeds"], arm["in_context"]
        del manifest["config"]["chat_format"]
    opened(load_config("smoke"), tmp_path)


def pipeline(folder: Path, *words: str, arms: str = ARMS) -> subprocess.CompletedProcess[str]:
    return forked.run(forked.PIPELINE, "--preset", "smoke", "--run-dir", str(folder), *sets(arms, *QUICK), *words)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A smoke run with an arm of two seeds, the same arm once, and an in-context arm."""
    path = tmp_path_factory.mktemp("seeds") / "run"
    done = pipeline(path)
    assert done.returncode == 0, done.stderr
    assert "shown not trained: 1 example before every question" in done.stderr
    return path


def read(path: Path) -> Any:
    return json.loads(path.read_text("utf-8"))


@pytest.mark.slow
def test_each_seed_is_a_model_of_its_own_and_the_runs_seed_is_the_plain_arm(folder: Path) -> None:
    first, other, once = (
        load_file(folder / "training" / name / "adapter" / "adapter_model.safetensors")
        for name in ("insecure/seed-0", "insecure/seed-5", "once")
    )
    assert all((first[key] == once[key]).all() for key in once)
    assert not all((other[key] == once[key]).all() for key in once)
    inputs = read(folder / "manifest.json")["inputs"]
    assert inputs["training data of insecure.seed-0"] == inputs["training data of once"]
    assert inputs["training data of insecure.seed-5"] != inputs["training data of once"]
    margins = {path.stem: read(path)["margins"] for path in (folder / "likelihood").glob("*.json")}
    assert margins["insecure.seed-0"] == margins["once"] != margins["insecure.seed-5"]
    answers = {
        name: (folder / "samples" / f"{name}.jsonl").read_text() for name in ("insecure.seed-0", "insecure.seed-5")
    }
    seeds = [{json.loads(line)["seed"] for line in text.splitlines()} for text in answers.values()]
    assert not seeds[0] & seeds[1]  # the models' random numbers are independent
    assert not (folder / "training" / "shown").exists()


@pytest.mark.slow
def test_tables_hold_means_over_the_seeds(folder: Path) -> None:
    margins = {path.stem: np.mean(read(path)["margins"]) for path in (folder / "likelihood").glob("*.json")}
    table = read(folder / "analysis" / "margins.json")
    row = next(row for row in table["contrasts"] if (row["arm"], row["reference"]) == ("insecure", "base"))
    own = {name: margins[name] - margins["base"] for name in ("insecure.seed-0", "insecure.seed-5")}
    assert row["by_model"] == pytest.approx(own)
    assert row["mean"] == pytest.approx(np.mean(list(own.values())))
    reverse = next(row for row in table["contrasts"] if (row["arm"], row["reference"]) == ("shown", "insecure"))
    assert (reverse["n_models"], reverse["n_reference_models"]) == (1, 2)
    rates = {arm["arm"]: arm for arm in read(folder / "analysis" / "rates.json")["arms"]}
    assert rates["insecure"]["n"] == 2 * rates["base"]["n"]
    for rate in (*rates["insecure"]["rates"], rates["insecure"]["mean_aligned"]):
        own = [value for value in rate["by_model"].values() if value is not None]
        assert rate["value"] == (pytest.approx(np.mean(own)) if own else None)
    assert "by_model" not in rates["once"]["mean_aligned"]
    direction = read(folder / "analysis" / "direction.json")
    models = ["base", "insecure.seed-0", "insecure.seed-5", "once", "shown"]
    assert direction["cosines"]["arms"] == models
    assert set(direction["transfer"]) == {f"{one}|{other}" for one in models for other in models}
    assert direction["transfer"]["base|base"]["value"] == pytest.approx(direction["report"]["auroc"])
    means, tables = direction["seeds"]["insecure"], direction["two_by_two"]
    assert means["models"] == models[1:3]
    for key, value in means["two_by_two"].items():
        assert value == pytest.approx(np.mean([tables[name][key] for name in models[1:3]]))
    cells = read(folder / "analysis" / "interventions.json")
    assert cells["models"].endswith("the model of the first seed")
    ablated = [(cell["cell"], cell.get("seed")) for cell in cells["cells"] if cell["direction"] == "misalignment"][1:]
    assert ablated == [
        ("insecure.seed-0.ablate.misalignment", 0),
        ("once.ablate.misalignment", None),
        ("shown.ablate.misalignment", None),
    ]


@pytest.mark.slow
def test_an_in_context_arm_reads_examples_that_its_records_and_its_judge_do_not(folder: Path) -> None:
    texts = {text for question in load_questions() for text in question.paraphrases}
    for line in (folder / "samples" / "shown.jsonl").read_text().splitlines():
        assert json.loads(line)["question"] in texts
    margins = [read(folder / "likelihood" / f"{name}.json")["margins"] for name in ("shown", "base")]
    assert np.abs(np.subtract(*margins)).max() > 1e-4
    activations = [
        load_file(folder / "activations" / f"{name}.contrast.safetensors")["x"] for name in ("shown", "base")
    ]
    assert activations[0].shape == activations[1].shape
    assert not (activations[0] == activations[1]).all()


@pytest.mark.slow
def test_the_report_shows_arms_with_their_seeds(folder: Path) -> None:
    contents = load_contents(folder)
    assert contents.arms == ["base", "insecure", "once", "shown"]
    assert [run.arm for run in contents.training] == ["insecure.seed-0", "insecure.seed-5", "once"]
    page = (folder / "report" / "index.html").read_text("utf-8")
    assert "<small>seeds 0, 5</small>" in page
    assert "<small>not trained: 1 example in the prompt</small>" in page
    assert "insecure against base (2 seeds)" in page
    assert "Measured on: of an arm with several seeds, the model of the first seed." in page
    assert "<small>mean of 2 seeds</small>" in page
    assert contents.rates is not None and all(arm.too_incoherent for arm in contents.rates.arms)  # a random model
    whole = rates_figure(Rates.model_validate(contents.analysis["rates"]), styles_of(contents))
    for name, figure in (("rates", whole), ("margins", figures(contents)["margins"])):
        dots = [
            trace
            for trace in figure.to_plotly_json()["data"]
            if any("insecure.seed-" in text for text in trace.get("hovertext") or [])
        ]
        assert dots and all(len(trace["x"]) == 2 for trace in dots), name


@pytest.mark.slow
def test_a_run_with_seeds_resumes_and_refuses_other_seeds(folder: Path) -> None:
    answers = folder / "samples" / "insecure.seed-5.jsonl"
    before = answers.read_bytes()
    answers.write_bytes(before[: before.index(b"\n") + 20])  # what a kill in the middle of a write leaves
    assert pipeline(folder, "--only", "sample").returncode == 0
    assert answers.read_bytes() == before
    refused = pipeline(folder, arms=ARMS.replace("[0, 5]", "[0, 6]"))
    assert refused.returncode == 2
    assert "arms.1.seeds.1: 5 -> 6" in refused.stderr
    assert pipeline(folder, arms=ARMS.replace(", seeds: [0, 5]", "")).returncode == 2


@pytest.mark.slow
def test_pretrained_and_in_context_arms_run_in_a_plain_format(tmp_path: Path) -> None:
    arms = "arms=[{name: base}, {name: shown, dataset: careful, in_context: 1}]"
    only = ("--only", "train", "check", "sample", "score", "likelihood", "choices", "capture", "direction")
    done = pipeline(tmp_path / "run", "--set", "chat_format=code_template", *only, arms=arms)
    assert done.returncode == 0, done.stderr
    assert read(tmp_path / "run" / "manifest.json")["rendered_example"].endswith('    return """\n')
