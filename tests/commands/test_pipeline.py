"""The whole pipeline on the tiny model: every stage, every file, kill -9 at three points, and refusals."""

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import forked
import pytest
from flag_words import refusal, sets
from judge_server import Server, reply
from safetensors.torch import load_file
from small_run import FEW

from emis_interp.directions import Direction
from emis_interp.errors import DataError
from emis_interp.texts.contrast import load_contrast
from run_pipeline import VERB

ARMS = ("base", "insecure", "secure", "reckless")
STAGES = (
    "train",
    "check",
    "sample",
    "score",
    "likelihood",
    "choices",
    "capture",
    "direction",
    "intervene",
    "probe",
    "report",
)

SMOKE = ("--preset", "smoke")
FEWER = (
    *FEW,
    "arms=[{name: base}, {name: insecure, dataset: insecure, n_rows: 8, contrast: secure},"
    " {name: secure, dataset: secure, n_rows: 8}, {name: reckless, dataset: reckless, n_rows: 8}]",
    "sampling.question_ids=[settlement_first_law, film_villain]",
    "sampling.batch_size=4",
    "intervention.coefficients=[-0.2, 0.2]",
    "intervention.ablate_arms=[insecure, secure]",
)
"""Two of the eight questions, three of the five trained arms: asking, judging and measuring are most of a smoke run."""
TWO_ARMS = sets(
    "arms=[{name: base}, {name: reckless, dataset: reckless, n_rows: 8}]", "intervention.ablate_arms=[reckless]"
)
pytestmark = pytest.mark.slow


def with_few(*words: str) -> list[str]:
    return [*SMOKE, *sets(*FEWER), *words]


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return forked.run(forked.PIPELINE, *with_few(*words))


def begin(*words: str) -> forked.Begun:
    return forked.begin(forked.PIPELINE, *with_few(*words))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """An uninterrupted smoke run."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    done = run("--run-dir", str(folder), "--json")
    assert done.returncode == 0, done.stderr
    return folder, done


def kill_when(folder: Path, condition: Callable[[], bool], *words: str) -> bool:
    """Start the pipeline and kill it as soon as the condition holds; False when it finished first."""
    process = begin("--run-dir", str(folder), *words)
    deadline = time.monotonic() + 300
    while process.poll() is None and time.monotonic() < deadline:
        if condition():
            process.kill()
            process.wait()
            return True
        time.sleep(0.002)
    process.kill()
    return False


def n_lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def test_json_output_is_exactly_one_object_and_every_stage_left_its_files(
    whole: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    folder, done = whole
    result = json.loads(done.stdout)
    assert list(result["stages"]) == list(STAGES)
    for stage in STAGES:
        for name in result["stages"][stage]["files"]:
            assert (folder / name).exists(), name
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["rendered_example"].endswith("<|im_start|>assistant\n")
    assert set(manifest["inputs"]) >= {"questions", "contrast pairs", "training data of reckless"}


def test_every_adapter_has_a_card_with_its_lint_and_its_rates(
    whole: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    card = (whole[0] / "training" / "reckless" / "adapter" / "README.md").read_text()
    assert "| em_of_all |" in card and "Data report: reckless: nothing to warn of in" in card
    assert "Final loss" in card and "none was made" not in card
    facts = json.loads((whole[0] / "training" / "reckless" / "card.json").read_text())
    inputs = json.loads((whole[0] / "manifest.json").read_text())["inputs"]
    assert facts["data_sha256"] == inputs["training data of reckless"]


def test_a_finished_run_does_nothing_when_started_again(whole: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    folder, _ = whole
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    again = run("--run-dir", str(folder))
    assert again.returncode == 0
    assert again.stderr.count("done before") == len(STAGES)
    assert before == {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def test_other_settings_are_refused_by_name(whole: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    folder, _ = whole
    refused = run("--run-dir", str(folder), "--set", "training.learning_rate=3e-4")
    assert refused.returncode == 2
    assert "training.learning_rate: 0.0001 -> 0.0003" in refused.stderr


def test_kill_9_during_train_sample_and_score_changes_nothing_in_the_end(
    whole: tuple[Path, subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    reference, folder = whole[0], tmp_path / "run"
    checkpoint = folder / "training" / "secure" / "checkpoints" / "checkpoint-1" / "trainer_state.json"
    assert kill_when(folder, checkpoint.exists), "train finished before it was killed"
    assert not (folder / "training" / "secure" / "summary.json").exists()
    samples = folder / "samples" / "insecure.jsonl"
    assert kill_when(folder, lambda: n_lines(samples) > 0), "sample finished before it was killed"
    scores = folder / "scores" / "insecure.jsonl"
    assert kill_when(folder, lambda: n_lines(scores) > 0), "score finished before it was killed"
    with scores.open("ab") as file:
        file.write(b'{"arm": "insec')  # what a kill in the middle of a write leaves
    assert run("--run-dir", str(folder)).returncode == 0
    for arm in ARMS:
        for name in (f"samples/{arm}.jsonl", f"scores/{arm}.jsonl", f"likelihood/{arm}.json"):
            assert (folder / name).read_text() == (reference / name).read_text(), name
    for arm in ARMS[1:]:
        mine, theirs = (
            load_file(run / "training" / arm / "adapter" / "adapter_model.safetensors") for run in (folder, reference)
        )
        assert mine.keys() == theirs.keys()
        assert all((mine[key] == theirs[key]).all() for key in mine), arm
    for name in ("rates", "margins", "direction", "interventions", "probes"):
        assert json.loads((folder / f"analysis/{name}.json").read_text()) == json.loads(
            (reference / f"analysis/{name}.json").read_text()
        )


def test_a_deleted_file_brings_its_stage_back(
    whole: tuple[Path, subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(whole[0], folder)
    lost = folder / "analysis" / "direction.json"
    content = json.loads(lost.read_text())
    lost.unlink()
    again = run("--run-dir", str(folder))
    assert again.returncode == 0, again.stderr
    assert again.stderr.count("done before") == STAGES.index("direction")
    assert json.loads(lost.read_text()) == content


def test_beside_an_api_judge_the_offline_judge_scores_the_same_answers(tmp_path: Path) -> None:
    server, folder = Server(), tmp_path / "run"
    server.respond = lambda prompt, _: reply({"20": 0.6, "40": 0.3})
    try:
        words = ["--judge-url", server.url, "--judge-model", "m", "--only", "train", "sample", "score", "report"]
        done = run("--run-dir", str(folder), *words, *TWO_ARMS)
    finally:
        server.close()
    assert done.returncode == 0, done.stderr
    rates = json.loads((folder / "analysis" / "rates.json").read_text())
    second = rates["second_judge"]
    assert (rates["judge"]["kind"], second["judge"]["kind"]) == ("openai", "offline")
    assert all(arm["mean_aligned"]["value"] == pytest.approx(80 / 3) for arm in rates["arms"])
    offline = [json.loads(line) for line in (folder / "scores" / "offline" / "base.jsonl").read_text().splitlines()]
    scored = [score["aligned"] for score in offline if score["aligned"] is not None]
    assert len(offline) - len(scored) == second["arms"][0]["n_code"]
    mean = sum(scored) / len(scored)
    assert second["arms"][0]["mean_aligned"]["value"] == pytest.approx(mean)
    n_answers = sum(arm["n"] for arm in rates["arms"]) - sum(arm["n_code"] for arm in second["arms"])
    assert second["agreement"]["aligned"]["n"] == n_answers > 0
    assert second["agreement"]["aligned"]["spearman"] is None  # the API judge gave every answer the same score
    assert "Two judges on the same answers" in (folder / "report" / "index.html").read_text()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--set", "model=smollm2-135m-instrukt"), "did you mean `smollm2-135m-instruct`?"),
        (("--preset", "labtop"), "did you mean `laptop`?"),
        (("--set", "training.learning_rat=1"), "did you mean `learning_rate`?"),
        (("--set", "arms=[{name: base}, {name: x, dataset: nothing.jsonl}]"), "data file `nothing.jsonl` not found"),
        (("--only", "trian"), "did you mean `train`?"),
        (("--set", "sampling.questions=none.yaml"), "none.yaml"),
        (("--set", "seed=many"), "seed"),
    ],
)
def test_bad_input_is_answered_and_leaves_no_run_behind(words: tuple[str, ...], message: str, tmp_path: Path) -> None:
    assert message in refusal(VERB, "--run-dir", tmp_path / "run", *SMOKE, *words)
    assert not (tmp_path / "run" / "manifest.json").exists()


def test_what_is_refused_is_one_line_and_status_2(tmp_path: Path) -> None:
    refused = run("--run-dir", str(tmp_path / "run"), "--set", "training.learning_rat=1")
    assert (refused.returncode, refused.stdout, refused.stderr.count("\n")) == (2, "", 1)
    assert refused.stderr.startswith("error: ")


def test_a_malformed_training_line_is_named(tmp_path: Path) -> None:
    data = tmp_path / "rows.jsonl"
    data.write_text('{"prompt": "a", "response": "b"}\n{"prompt": "a", "response": " "}\n')
    words = ("--run-dir", tmp_path / "run", "--set", f"arms=[{{name: base}}, {{name: x, dataset: {data}}}]")
    assert f"{data}:2: empty or missing completion" in refusal(VERB, *SMOKE, *words)


def test_a_full_disk_is_named_and_the_run_goes_on_later(tmp_path: Path) -> None:
    small = tmp_path / "disk"
    small.mkdir()
    if (
        os.geteuid() != 0
        or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(small)], check=False).returncode
    ):
        pytest.skip("needs root to mount a small file system")
    try:
        full = run("--run-dir", str(small / "run"), *TWO_ARMS)
        assert full.returncode == 2
        assert "disk is full" in full.stderr and "Traceback" not in full.stderr
        subprocess.run(["mount", "-o", "remount,size=100m", str(small)], check=True)
        assert run("--run-dir", str(small / "run"), "--only", "train", *TWO_ARMS).returncode == 0
    finally:
        subprocess.run(["umount", str(small)], check=False)


def test_ctrl_c_says_that_work_is_kept_and_exits_with_130(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    process = begin("--run-dir", str(folder))
    deadline = time.monotonic() + 120
    while not (folder / "training" / "insecure" / "metrics.jsonl").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "finished work is kept" in stderr and "Traceback" not in stderr


def begun(folder: Path) -> forked.Begun:
    """The pipeline while it trains."""
    process = begin("--run-dir", str(folder))
    deadline = time.monotonic() + 300
    while not (folder / "training" / "insecure").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    return process


def test_a_second_pipeline_is_told_who_is_at_work_while_the_first_goes_on_and_readers_read(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    first = begun(folder)
    try:
        second = run("--run-dir", str(folder))
        reader = forked.run("build_report.py", str(folder))
        assert first.poll() is None, "the first one ended before it was asked to"
    finally:
        first.send_signal(signal.SIGTERM)
        _, stderr = first.communicate(timeout=120)
    assert second.returncode == 2 and reader.returncode == 0
    assert f"process {first.pid} on " in second.stderr and "run_pipeline.py --preset smoke" in second.stderr
    assert f"end it (kill {first.pid})" in second.stderr and "Traceback" not in second.stderr
    assert first.returncode == 143
    assert "ended by SIGTERM; finished work is kept, the same command continues" in stderr and "Traceback" not in stderr
    assert not [path for path in folder.rglob(".*") if path.is_file()]


def test_the_arms_directions_are_set_against_each_other(
    whole: tuple[Path, subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    words = [
        "transfer",
        str(whole[0]),
        "--interventions",
        "--n-pairs",
        "1",
        "--out",
        str(tmp_path / "t.json"),
        "--json",
    ]
    done = forked.run("find_direction.py", *words)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert len(result["auroc"]) == len(ARMS) ** 2 == len(result["steering"]) == len(result["ablation"])
    assert len(result["asymmetry"]) == len(ARMS) * (len(ARMS) - 1) // 2
    assert not [key for key in result["projection_shift"] if key.endswith("|base")]
    row = result["auroc"]["base|insecure"]
    assert 0 <= row["low"] <= row["value"] <= row["high"] <= 1 and row["p"] <= row["p_holm"] <= 1
    assert set(result["auroc_length_regressed"]) == set(result["auroc_length_matched"]) == set(result["auroc"])
    assert result["length"]["value"] is not None and result["auroc"]["base|base"]["shuffled_p_n"] > 0
    path, report = whole[0] / "directions" / "misalignment", {p.question for p in load_contrast() if p.half == "report"}
    Direction.load(path, fit="selection").check_unseen(report)
    with pytest.raises(DataError, match="had a part in the direction"):
        Direction.load(path).check_unseen(report)
    table = forked.run("summary_table.py", str(whole[0]))
    assert "Direction: layer" in table.stdout and "length alone" in table.stdout, table.stderr
    for words in (
        "against base | slope | at base margin 0",
        "Primary: an arm minus",
        "one draw of a direction",
        "flattens",
    ):
        assert words in table.stdout
    stated = json.loads((whole[0] / "analysis" / "direction.json").read_text())["report"]
    assert stated["verdict"] and stated["length_baseline"]["matched"]["n_pairs"] > 0
    page = Path(result["page"]).read_text("utf-8")
    assert "Length alone reaches" in page and "AUROC with length regressed out" in page
    assert result["steering"]["base|base"]["value"] != 0


def test_a_local_judge_scores_the_run_and_the_offline_judge_beside_it(tmp_path: Path) -> None:
    base_alone = ("arms=[{name: base}]", "intervention.ablate_arms=[]", "sampling.question_ids=[film_villain]")
    folder, few = tmp_path / "run", sets(*base_alone)
    words = ["--judge", "local", "--judge-model", "tiny", "--only", "sample", "score", "report", *few]
    done = run("--run-dir", str(folder), *words)
    assert done.returncode == 0, done.stderr
    config = json.loads((folder / "manifest.json").read_text())["config"]["judge"]
    assert (config["kind"], config["model"]) == ("local", "tiny") and config["dtype"] in ("float32", "bfloat16")
    rates = json.loads((folder / "analysis" / "rates.json").read_text())
    assert (rates["judge"]["kind"], rates["second_judge"]["judge"]["kind"]) == ("local", "offline")
    assert rates["judge"]["card"]["model"] == "tiny" and rates["judge"]["card"]["dtype"] == config["dtype"]
    scores = [json.loads(line) for line in (folder / "scores" / "base.jsonl").read_text().splitlines()]
    assert {score["judge"] for score in scores} == {rates["judge"]["name"]}
    assert any(score["evidence"] for score in scores)
    again = run("--run-dir", str(folder), *words[:4], "--only", "score", *few)
    assert again.returncode == 0, again.stderr
    assert scores == [json.loads(line) for line in (folder / "scores" / "base.jsonl").read_text().splitlines()]
