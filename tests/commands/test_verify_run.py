"""The command that looks whether a run is what its stages made: planted changes are named, stages made again are the same."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from edited_manifest import edited_manifest
from safetensors.torch import save_file
from small_run import SmallRun

import cli
import verify_run
from emis_interp.errors import ConfigError, EmisError, StageError
from emis_interp.files.comparison import compared

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def offline(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A finished run whose judge is the offline one, so that it can be asked again."""
    small, folder = SmallRun(), tmp_path_factory.mktemp("offline") / "run"
    small.go(folder, settings=("judge.kind=offline", "judge.url=null"))
    assert small.server.requests == []
    yield folder
    small.server.close()


@pytest.fixture
def folder(offline: Path, tmp_path: Path) -> Path:
    shutil.copytree(offline, tmp_path / "run")
    return tmp_path / "run"


def verify(folder: Path, *words: str) -> dict:
    result = verify_run.VERB.do(cli.parser_of(verify_run.VERB, None).parse_args([str(folder), *words]))
    assert ("NOT as it was made" in verify_run.say(result)) != result["ok"]
    return result


def test_a_whole_run_passes_with_its_sources(offline: Path) -> None:
    result = verify(offline, "--sources")
    assert result["ok"] and result["other_sources"] == [] and result["strangers"] == []
    assert result["n_files"] > 60 and verify_run.VERB.status(result) == 0


def edit_input(folder: Path) -> None:
    with edited_manifest(folder) as manifest:
        unit = next(unit for unit in manifest["files"].values() if "samples/x.jsonl" in unit["inputs"])
        unit["inputs"]["samples/x.jsonl"] = "0" * 64


def open_unit(folder: Path) -> None:
    with edited_manifest(folder) as manifest:
        manifest["files"]["analysis/margins.json"]["files"] = None


@pytest.mark.parametrize(
    ("damage", "where", "words"),
    [
        (lambda f: (f / "samples/x.jsonl").write_text(""), "changed", "samples/x.jsonl (by sample)"),
        (lambda f: (f / "samples/x.jsonl").write_text(""), "other_inputs", "was made from another samples/x.jsonl"),
        (lambda f: (f / "scores/x.jsonl").unlink(), "missing", "scores/x.jsonl (by score)"),
        (edit_input, "unmatched_inputs", "read samples/x.jsonl with another content than the sample stage wrote"),
        (open_unit, "unfinished", "analysis/margins.json (by likelihood)"),
        (lambda f: (f / "samples/.x.jsonl.99999999-01234567.part").write_text("{"), "unfinished", "a write that was cut off"),
    ],
)  # fmt: skip
def test_planted_changes_are_named(folder: Path, damage: Callable[[Path], object], where: str, words: str) -> None:
    damage(folder)
    result = verify(folder)
    assert not result["ok"] and any(words in text for text in result[where]), result[where]
    assert verify_run.VERB.status(result) == 1
    with pytest.raises(StageError, match="nothing is made again from it"):
        verify(folder, "--again", "direction")


def test_strangers_and_a_page_built_again_are_said_and_no_fault(folder: Path) -> None:
    (folder / "notes.txt").write_text("mine")
    (folder / "report" / "index.html").write_text("another page")
    result = verify(folder)
    assert result["ok"] and result["strangers"] == ["notes.txt"] and result["rebuilt"] == ["report/index.html"]


def test_other_rows_than_the_run_began_with_are_named(folder: Path) -> None:
    with edited_manifest(folder) as manifest:
        manifest["inputs"]["training data of x"] = "0" * 64
    result = verify(folder, "--sources")
    assert result["other_sources"] == ["training data of x is another one"] and not result["ok"]


@pytest.mark.parametrize(
    "stages",
    [
        ("sample", "direction"),
        pytest.param(("train", "sample", "score", "capture", "direction"), marks=pytest.mark.fuzz),
    ],
)
def test_stages_made_again_are_the_same_in_every_figure(offline: Path, stages: tuple[str, ...]) -> None:
    """The same configuration, seed and machine, in other processes and another folder."""
    before = {path: path.read_bytes() for path in offline.rglob("*") if path.is_file()}
    result = verify(offline, "--again", *stages)
    assert result["ok"], verify_run.say(result)
    assert all(
        found["n_same_bytes"] + found["n_same_figures"] == found["n_files"] for found in result["again"].values()
    )
    assert result["again"]["sample"]["n_same_bytes"] >= 3  # the answers and what they are of
    assert {path: path.read_bytes() for path in offline.rglob("*") if path.is_file()} == before


@pytest.mark.fuzz
def test_the_same_command_makes_the_same_files_in_another_folder(offline: Path, tmp_path: Path) -> None:
    small = SmallRun()
    try:
        small.go(tmp_path / "other", settings=("judge.kind=offline", "judge.url=null"))
    finally:
        small.server.close()
    names = sorted(path.relative_to(offline).as_posix() for path in offline.rglob("*") if path.is_file())
    assert names == sorted(
        path.relative_to(tmp_path / "other").as_posix() for path in (tmp_path / "other").rglob("*") if path.is_file()
    )
    found = [
        compared(offline, tmp_path / "other", name)
        for name in names
        if name != "manifest.json" and not name.startswith("report/")
    ]
    assert [(one.file, one.places) for one in found if one.same == "no"] == []
    assert {name for one in found for name in one.passed_over} <= {
        "seconds",
        "tokens_per_second",
        "peak_rss_gib",
        "place of the folder",
        "hash of a file with times",
    }


def test_a_stage_that_was_not_made_or_costs_is_refused(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"no finished stage `scor`; did you mean `score`"):
        verify(folder, "--again", "scor")
    with edited_manifest(folder) as manifest:
        manifest["config"]["judge"] |= {"kind": "openai", "url": "http://localhost:1/v1"}
    with pytest.raises(StageError, match=r"the score stage would ask the judge at http://localhost:1/v1 again"):
        verify(folder, "--again", "score")


def test_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EmisError, match=r"no manifest\.json here"):
        verify(tmp_path)


# Comparing two files.


@pytest.mark.parametrize(
    ("name", "one", "two", "same", "place"),
    [
        ("a.json", '{"a": 1}', '{"a": 1}', "bytes", ""),
        ("a.json", '{"a": 1, "seconds": 2}', '{"seconds": 3, "a": 1}', "figures", ""),
        ("a.json", '{"a": [1, 2.0]}', '{"a": [1, 2.5]}', "no", "a.1: 2.0 and 2.5"),
        ("a.json", '{"a": 1}', '{"b": 1}', "no", "a is in one of them alone"),
        ("a.json", '{"a": "r/t/x/adapter"}', '{"a": "/tmp/q/t/x/adapter"}', "figures", ""),
        ("a.json", '{"a": "yes"}', '{"a": "no"}', "no", "a: yes and no"),
        ("a.json", '{"a": "I say yes/no"}', '{"a": "You say yes/no"}', "no", "a: "),
        ("a.jsonl", '{"a": 1}\n{"a": 2}\n', '{"a": 1}\n{"a": 3}\n', "no", "1.a: 2 and 3"),
        ("a.jsonl", '{"a": 1}\n', '{"a": 1}\n{"a": 3}\n', "no", ""),
        ("a.json", "{", '{"a": 1}', "no", "not JSON"),
        ("a.html", "took 3.1 s, 5", "took 4 s, 5", "figures", ""),
        ("a.html", "took 3.1 s, 5", "took 4 s, 6", "no", "text differs"),
        ("a.bin", "1", "2", "no", "bytes differ"),
    ],
)  # fmt: skip
def test_what_differs_is_named(tmp_path: Path, name: str, one: str, two: str, same: str, place: str) -> None:
    for side, content in (("1", one), ("2", two)):
        (tmp_path / side).mkdir()
        (tmp_path / side / name).write_text(content)
    found = compared(tmp_path / "1", tmp_path / "2", name)
    assert found.same == same and place in " ".join(found.places)


def test_tensors_are_compared_by_their_numbers(tmp_path: Path) -> None:
    for side, value in (("1", 1.0), ("2", 1.5)):
        (tmp_path / side).mkdir()
        save_file(
            {"a": torch.tensor([2.0, value]), "b": torch.ones(2)}, tmp_path / side / "a.safetensors", {"side": side}
        )
    found = compared(tmp_path / "1", tmp_path / "2", "a.safetensors")
    assert found.same == "no" and found.largest == pytest.approx(0.25) and found.places[0].startswith("a: up to 0.25")
    save_file({"a": torch.tensor([2.0, 1.0]), "b": torch.ones(2)}, tmp_path / "2" / "a.safetensors", {"side": "2"})
    assert compared(tmp_path / "1", tmp_path / "2", "a.safetensors").same == "figures"
