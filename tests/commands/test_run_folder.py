"""Breaks a finished run folder as people and disks do: every change is named, and nothing is kept that was made of something else."""

import html
import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from edited_manifest import edited_manifest
from safetensors.torch import load_file, save_file
from small_run import SmallRun

import run_pipeline
from emis_interp.errors import DataError, EmisError, StageError
from emis_interp.files.code_state import CodeState
from emis_interp.files.ledger import Ledger
from emis_interp.files.manifest import Manifest
from emis_interp.report import run_tables
from emis_interp.report.page import build_report
from emis_interp.report.settings import RunTablesSettings
from evals.results.result_files import read_results
from evals.verbs import grid

STAGES: list[str] = list(run_pipeline.STAGES)
pytestmark = pytest.mark.slow
ADAPTER = "training/x/adapter/adapter_model.safetensors"
STEERED = "interventions/base.steer.misalignment.+0.20"


@pytest.fixture(scope="module")
def small() -> Iterator[SmallRun]:
    made = SmallRun()
    yield made
    made.server.close()


@pytest.fixture(scope="module")
def whole(small: SmallRun, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run; copy it before you break it."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    small.go(folder)
    return folder


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    """A copy of the finished run."""
    shutil.copytree(whole, tmp_path / "run")
    return tmp_path / "run"


def contents(folder: Path) -> dict[str, bytes]:
    """Everything that a run computes; times and places stay out."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    kept = {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}
    timed = ("manifest.json", "report/", "training/x/summary.json", "training/x/metrics.jsonl", "training/x/lint.json")
    places = re.compile(rb'"adapter": "[^"]*"')
    return {name: places.sub(b"", content) for name, content in kept.items() if not name.startswith(timed)}


def flip(path: Path) -> None:
    """One bit of one byte in the middle, so that a JSON file stays JSON where there is a digit or letter."""
    content = bytearray(path.read_bytes())
    place = next(i for i in range(len(content) // 2, len(content)) if chr(content[i]).isdigit())
    content[place] = ord("7") if content[place] != ord("7") else ord("3")
    path.write_bytes(bytes(content))


def replace_adapter(folder: Path) -> None:
    path = folder / ADAPTER
    tensors = load_file(path)
    save_file({name: tensor + 0.3 for name, tensor in tensors.items()}, path)


@pytest.mark.parametrize(
    ("file", "stage"),
    [
        (ADAPTER, "train"),
        ("training/x/summary.json", "train"),
        ("training/x/metrics.jsonl", "train"),
        ("training/x/card.json", "score"),
        ("training/x/adapter/README.md", "score"),
        ("samples/x.jsonl", "sample"),
        ("samples/base.json", "sample"),
        ("scores/base.jsonl", "score"),
        ("analysis/rates.json", "score"),
        ("likelihood/base.json", "likelihood"),
        ("analysis/margins.json", "likelihood"),
        ("activations/x.contrast.safetensors", "capture"),
        ("activations/base.answers.json", "capture"),
        ("directions/misalignment.json", "direction"),
        ("analysis/direction.json", "direction"),
        (f"{STEERED}/cell.json", "intervene"),
        (f"{STEERED}/scores.jsonl", "intervene"),
        ("analysis/interventions.json", "intervene"),
        ("probes/misalignment.safetensors", "probe"),
        ("probes/models/x.json", "probe"),
        ("analysis/probes.json", "probe"),
    ],
)
def test_a_flipped_byte_is_named_with_its_stage_and_what_to_do(
    small: SmallRun, folder: Path, file: str, stage: str
) -> None:
    flip(folder / file)
    with pytest.raises(StageError) as refused:
        small.go(folder)
    after = STAGES[STAGES.index(stage) + 1]
    assert f"changed since they were written: {file} (by {stage})" in str(refused.value)
    assert f"--from {stage} makes them again; --from {after} takes them as they are" in str(refused.value)


DAMAGED = ("training/x/card.json", "samples/x.jsonl", "scores/base.jsonl", "likelihood/x.json", "activations/x.contrast.json",
           "directions/misalignment.safetensors", "analysis/margins.json", f"{STEERED}/cell.json")  # fmt: skip


def test_damaged_files_are_made_again_to_the_same_run_when_that_is_asked_for(small: SmallRun, folder: Path) -> None:
    before = contents(folder)
    for file in (ADAPTER, *DAMAGED):
        flip(folder / file)
    small.go(folder, "--from", "train")
    assert contents(folder) == before
    small.go(folder)


def test_deleted_files_are_made_again_to_the_same_run(small: SmallRun, folder: Path) -> None:
    before = contents(folder)
    for file in DAMAGED:
        (folder / file).unlink()
    small.go(folder)
    assert contents(folder) == before


def test_a_replaced_adapter_is_refused_and_taken_only_with_everything_that_hangs_on_it(
    small: SmallRun, folder: Path
) -> None:
    before = contents(folder)
    replace_adapter(folder)
    with pytest.raises(StageError, match=r"changed since they were written: training/x/adapter/adapter_model"):
        small.go(folder)
    words = rf"the check stage must run first \(it was made from another {ADAPTER}\); start there: --from check"
    for asked in (("--from", "direction"), ("--only", "likelihood"), ("--only", "report")):
        with pytest.raises(StageError, match=words):
            small.go(folder, *asked)
    with pytest.raises(StageError, match="changed since they were written"):
        small.go(folder)  # a refused command took nothing for granted
    small.go(folder, "--from", "check")
    after = contents(folder)
    changed = {name for name in after if after[name] != before.get(name)}
    assert changed >= {
        "checks/x.json",
        "samples/x.jsonl",
        "scores/x.jsonl",
        "likelihood/x.json",
        "choices/x.json",
        "activations/x.contrast.safetensors",
        "activations/x.answers.safetensors",
        "analysis/margins.json",
        "analysis/direction.json",
        "interventions/x.ablate.misalignment/cell.json",
    }
    assert not {name for name in changed if Path(name).name.startswith("base.")}  # nothing of base hangs on it
    page = (folder / "report" / "index.html").read_text()
    assert f"{ADAPTER} was exchanged after the train stage wrote it" in page
    small.go(folder)  # a whole run again
    assert contents(folder) == after


def test_what_was_taken_as_it_is_is_made_again_when_its_own_stage_is_asked_for(small: SmallRun, folder: Path) -> None:
    """`--from STAGE` makes again what that stage did not write, also when a later stage was told to build on it."""
    before = contents(folder)
    path = folder / "samples" / "x.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:2]))
    for asked in (("--from", "score"), ()):
        with pytest.raises(StageError, match=r"holds 2 of 8 answers, .*; run the sample stage again \(--from sample\)"):
            small.go(folder, *asked)
    small.go(folder, "--from", "sample")
    assert contents(folder) == before
    replace_adapter(folder)
    small.go(folder, "--from", "check")
    small.go(folder, "--from", "train")
    assert contents(folder) == before
    small.go(folder)
    assert "was exchanged after" not in (folder / "report" / "index.html").read_text()


def test_an_answer_that_was_edited_is_never_left_with_its_old_score(small: SmallRun, folder: Path) -> None:
    path = folder / "samples" / "x.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows[1]["answer"] = "Something else entirely."
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(StageError, match=r"samples/x\.jsonl \(by sample\)"):
        small.go(folder)
    small.server.requests.clear()
    small.go(folder, "--from", "score")
    asked = [request["messages"][0]["content"] for request in small.server.requests]
    assert sum("Something else entirely." in prompt for prompt in asked) == 2  # aligned and coherent


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda lines: [*lines, lines[0]], r"1 answer more than once, first x, question .* \(rows 1, 9\)"),
        (lambda lines: [*lines, *lines], r"8 answers more than once"),
        (lambda lines: lines[:2], r"holds 2 of 8 answers, missing is first x, question .* run the sample stage again"),
        (lambda lines: [], r"holds 0 of 8 answers"),
    ],
)
def test_repeated_and_missing_answers_are_named_where_they_are_read(
    small: SmallRun, folder: Path, edit: Callable[[list[str]], list[str]], words: str
) -> None:
    path = folder / "samples" / "x.jsonl"
    path.write_text("".join(edit(path.read_text().splitlines(keepends=True))))
    with pytest.raises(StageError, match=r"samples/x\.jsonl \(by sample\)"):
        small.go(folder)
    with pytest.raises(EmisError, match=rf"samples/x\.jsonl: {words}"):
        small.go(folder, "--from", "score")


def test_scores_of_other_answers_repeated_ones_and_old_ones_are_refused(small: SmallRun, folder: Path) -> None:
    run = interrupted_after(small, folder, "sample")
    scores, samples = (run / name / "x.jsonl" for name in ("scores", "samples"))
    good = scores.read_text().splitlines(keepends=True)
    answers = samples.read_text()
    cases = {
        "about answers that were replaced since, first x": [good[0].replace('"answer_sha256":"', '"answer_sha256":"0')],
        "more than once, first x": [good[0], *good[:2]],
        "without the hash of the answer": [json.dumps({**json.loads(good[0]), "answer_sha256": None}) + "\n"],
        "about answers that are not there": [good[0].replace('"sample_index":0', '"sample_index":9')],
    }
    for words, lines in cases.items():
        scores.write_text("".join(lines))
        with pytest.raises(EmisError, match=rf"scores/x\.jsonl: \d.*{words}"):
            small.go(run)
    scores.write_text("".join(good[:2]))  # what a killed process leaves
    small.go(run)
    assert scores.read_text().splitlines(keepends=True) == good and samples.read_text() == answers


def interrupted_after(small: SmallRun, folder: Path, stage: str) -> Path:
    """A folder whose next stage was begun and not finished: its units are open, its files are there."""
    with edited_manifest(folder) as manifest:
        for later in STAGES[STAGES.index(stage) + 1 :]:
            del manifest["stages"][later]
            for unit in manifest["files"].values():
                if unit["stage"] == later:
                    unit["files"] = None
    return folder


def test_an_interrupted_stage_goes_on_with_what_it_has_and_ends_the_same(small: SmallRun, folder: Path) -> None:
    before = contents(folder)
    for stage in ("train", "intervene"):
        small.go(interrupted_after(small, folder, stage))
        assert contents(folder) == before


def test_an_interrupted_stage_whose_input_changed_begins_anew(small: SmallRun, folder: Path) -> None:
    """The direction is another one by the time that the cells go on: they are not mixed."""
    run = interrupted_after(small, folder, "capture")
    with edited_manifest(run) as manifest:
        for unit in manifest["files"].values():
            if unit["stage"] == "intervene":
                unit["inputs"]["directions/misalignment.safetensors"] = "0" * 64
    marked = run / STEERED / "samples.jsonl"
    marked.write_text("")
    small.go(run)
    assert len(marked.read_text().splitlines()) == 4


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", r"manifest\.json:1: not JSON"),
        ('{"config": {', r"manifest\.json:1: not JSON"),
        ("[1, 2]", r"manifest\.json: expected an object, found an array"),
        ('{"config": {}, "stages": {}, "files": {}}', r"manifest\.json: key `inputs` is missing"),
        ('{"config": {}, "stages": {"train": {"files": ["a"]}}}', "of an older version, which kept no hashes"),
    ],
)
def test_a_damaged_manifest_is_named(small: SmallRun, folder: Path, content: str, words: str) -> None:
    (folder / "manifest.json").write_text(content)
    with pytest.raises(EmisError, match=words):
        small.go(folder)


def test_a_manifest_cannot_name_files_outside_of_its_folder(small: SmallRun, folder: Path) -> None:
    victim = folder.parent / "victim.json"
    victim.write_text("{}")
    with edited_manifest(folder) as manifest:
        manifest["files"]["report/index.html"]["files"]["../victim.json"] = "0"
    with pytest.raises(DataError, match=r"`\.\./victim\.json` leads out of the folder"):
        small.go(folder, "--from", "report")
    assert victim.exists()


def test_a_run_that_began_before_a_section_was_there_goes_on_with_its_defaults(small: SmallRun, folder: Path) -> None:
    with edited_manifest(folder) as manifest:
        assert manifest["config"].pop("probe")["window"] == 16
    small.go(folder, settings=("probe={}",))
    with pytest.raises(StageError, match=r"probe\.window: 16 -> 8"):
        small.go(folder, settings=("probe={window: 8}",))


def test_a_file_that_no_stage_made_is_not_taken(small: SmallRun, whole: Path, tmp_path: Path) -> None:
    small.go(tmp_path / "run", "--only", "train")
    (tmp_path / "run" / "samples").mkdir()
    shutil.copy(whole / "samples" / "base.jsonl", tmp_path / "run" / "samples" / "base.jsonl")
    with pytest.raises(StageError, match=r"samples/base\.jsonl is there, but no stage of this run made it; move it"):
        small.go(tmp_path / "run")


def test_stages_asked_for_alone_do_not_build_on_what_is_out_of_date(small: SmallRun, folder: Path) -> None:
    """The adapter is another one, and the samples are of the old one when the scores are asked for."""
    replace_adapter(folder)
    with pytest.raises(StageError, match=rf"the check stage must run first \(it was made from another {ADAPTER}\)"):
        small.go(folder, "--only", "score")
    small.go(folder, "--only", "check", "sample")
    replace_adapter(folder)
    scores, samples = (folder / name / "x.jsonl" for name in ("scores", "samples"))
    manifest = Manifest.load(folder)
    files = Ledger(folder, manifest.files, lambda: None)
    words = rf"samples/x\.jsonl was made from another {ADAPTER}; make it again first \(--from sample\)"
    with pytest.raises(StageError, match=words), files.making("score", [scores], inputs=[samples]):
        pytest.fail("scores of samples that are out of date")


def test_files_that_somebody_put_beside_a_unit_are_not_removed_with_it(small: SmallRun, folder: Path) -> None:
    mine = folder / "training" / "x" / "adapter" / "my_adapter.safetensors"
    (folder / ADAPTER).rename(mine)
    with pytest.raises(
        StageError, match=r"my_adapter\.safetensors is there, but no stage of this run made it; move it"
    ):
        small.go(folder)
    assert mine.exists()


def test_other_versions_in_the_second_half_are_kept_and_shown(
    small: SmallRun, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = interrupted_after(small, folder, "likelihood")
    now = CodeState.now()
    later = now.model_copy(update={"versions": {**now.versions, "torch": "99.0"}, "sources_sha256": "0" * 64})
    monkeypatch.setattr(CodeState, "now", lambda: later)
    small.go(run)
    kept = json.loads((run / "manifest.json").read_text())
    words = f"torch {now.versions['torch']} -> 99.0"
    assert kept["versions"] == now.versions  # those of the beginning
    assert {stage: [note["changes"] for note in notes] for stage, notes in kept["other_code"].items()} == {
        stage: [[words]] for stage in ("choices", "capture", "direction", "intervene", "probe", "report")
    }
    page = html.unescape((run / "report" / "index.html").read_text())
    assert "The capture stage ran, or went on (" in page and f"than the run began with: {words}." in page
    monkeypatch.undo()
    small.go(run)  # a finished run is not touched by what runs now
    assert json.loads((run / "manifest.json").read_text())["other_code"] == kept["other_code"]


def test_readers_of_a_run_refuse_files_that_were_cut_or_changed(small: SmallRun, folder: Path) -> None:
    """Answers and scores cut to the same rows would give a rate of what is left."""
    readers = [
        lambda: read_results(folder),
        lambda: grid.read_scores(folder, ()),
        lambda: run_tables.run(RunTablesSettings(run_dir=folder)),
    ]
    for read in readers:
        read()
    for file in ("samples/x.jsonl", "scores/x.jsonl", "analysis/margins.json"):
        path = folder / file
        path.write_text("".join(path.read_text().splitlines(keepends=True)[:-3]))
    for read, name in zip(readers, (r"samples/x\.jsonl", r"scores/x\.jsonl", r"analysis/margins\.json"), strict=True):
        with pytest.raises(
            StageError, match=rf"{name} changed since the \w+ stage wrote it; put back a copy, or let the run"
        ):
            read()


def test_a_page_that_was_built_again_by_hand_is_no_damage(small: SmallRun, folder: Path) -> None:
    build_report(folder)
    small.go(folder)
    small.go(folder)
