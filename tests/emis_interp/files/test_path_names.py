"""Names of arms, runs and recipes become names of files: none leads out of its folder, and every one can be written on every machine."""

import json
from pathlib import Path
from typing import Any

import made_records
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from emis_interp.config.presets import load_config
from emis_interp.errors import ConfigError
from emis_interp.files.path_names import LONGEST_NAME, check_path_name, path_name_problem
from emis_interp.files.store import RecordLog
from emis_interp.report.contents import load_contents
from emis_interp.report.page import build_report
from training.recipes import load_recipe

HOSTILE = [
    *("..", "../x", "/etc/passwd", "a/../../b", "a\\b", "C:x", "a\0b", "a\nb", "", ".", ".hidden", "x.", "x "),
    *("con", "nul", "NUL", "aux.txt", "com1", "lpt9.jsonl", "a" * 300, "ä" * 60, "a*", "\ud800" * 40),
]


@pytest.mark.parametrize("name", HOSTILE)
def test_a_name_that_is_no_file_name_everywhere_says_why(name: str) -> None:
    problem = path_name_problem(name)
    assert problem and problem.isprintable() and len(problem) < 250


@pytest.mark.parametrize("name", ["base", "insecure-2", "laptop-0.5b", "console", "nullify", "com", "a" * LONGEST_NAME])
def test_ordinary_names_are_taken(name: str) -> None:
    assert check_path_name(name) == name


@given(
    st.text(st.characters(), max_size=12)
    | st.lists(st.sampled_from(["..", "/", "\\", "a", ".", "nul", "\0", " "])).map("".join)
)
def test_what_is_taken_stays_in_its_folder(name: str) -> None:
    if path_name_problem(name) is None:
        path = Path("/run/samples") / f"{name}.jsonl"
        assert path.resolve().parent == Path("/run/samples") and path.name == f"{name}.jsonl"


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("what", ["run", "arm", "recipe"])
def test_a_preset_or_recipe_cannot_choose_such_a_name(name: str, what: str, tmp_path: Path) -> None:
    arms: list[dict[str, Any]] = [{"name": "base"}, {"name": name if what == "arm" else "a", "dataset": "insecure"}]
    path = tmp_path / "p.yaml"
    if what == "recipe":
        path.write_text(json.dumps({"name": name, "summary": "s", "data": {"dataset": "insecure"}}))
        with pytest.raises(ConfigError, match=r"name|surrogate"):
            load_recipe(str(path))
        return
    path.write_text(json.dumps({"name": name if what == "run" else "r", "model": "tiny", "arms": arms}))
    with pytest.raises(ConfigError, match=r"name|surrogate"):
        load_config(str(path))


@pytest.mark.parametrize("name", ["../../secret", "..", "a/b", "nul"])
def test_the_page_of_somebody_s_run_reads_no_file_elsewhere(name: str, tmp_path: Path) -> None:
    """The names of a manifest are shown, and lead to no file: what is read is what lies in the folder."""
    answer = made_records.completion("kept to itself", arm=name)
    for place in ("secret.jsonl", "run/a/b.jsonl", "run/nul.jsonl"):
        RecordLog(tmp_path / place).append([answer])
    run = tmp_path / "run"
    (run / "manifest.json").write_text(json.dumps({"config": {"arms": [{"name": name}]}, "stages": {}}))
    RecordLog(run / "samples" / "base.jsonl").append([answer.model_copy(update={"arm": "base", "answer": "shown"})])
    contents = load_contents(run)
    assert [one.completion.answer for one in contents.answers] == ["shown"] and contents.arms == [name]
    before = {path for path in tmp_path.rglob("*") if not path.is_relative_to(run / "report")}
    build_report(run, contents)
    assert {path for path in tmp_path.rglob("*") if not path.is_relative_to(run / "report")} == before


def test_yaml_tags_make_no_objects(tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    victim = tmp_path / "victim"
    path.write_text(f"name: !!python/object/apply:os.mkdir ['{victim}']\n")
    with pytest.raises(ConfigError):
        load_config(str(path))
    assert not victim.exists()
    yaml.unsafe_load(path.read_text())
    assert victim.exists()  # it would have run
