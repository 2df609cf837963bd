"""The list of runs: every run with its verdicts, the newest first; what cannot be read is said, never left out."""

import json
from pathlib import Path

import pytest
from hostile_strings import HOSTILE_STRINGS
from planted_page import write, write_run

from emis_interp.errors import StageError
from emis_interp.report import build
from emis_interp.report.cards import verdicts
from emis_interp.report.contents import load_contents
from emis_interp.report.page import build_report
from emis_interp.report.page_frame import MARK
from emis_interp.report.run_index import read_runs
from emis_interp.report.settings import PageSettings


def started(run: Path, at: str, *stages: str) -> Path:
    manifest = json.loads((run / "manifest.json").read_text())
    made = {name: {"seconds": 1, "finished": "2026-03-04T05:06:07+00:00"} for name in stages}
    write(run / "manifest.json", manifest | {"started": at, "stages": made})
    return run


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    folder = tmp_path / "runs"
    started(write_run(folder / "old"), "2026-01-01T10:00:00+00:00", "train", "report")
    started(write_run(folder / "seeds" / "deep"), "2026-01-02T10:00:00+00:00", "train")
    write(
        folder / "new" / "manifest.json",
        {"config": {"model": "/home/me/models/mine"}, "started": "2026-01-03T10:00:00+00:00"},
    )
    write(folder / "broken" / "manifest.json", {"config": 3})
    (folder / "half").mkdir()
    (folder / "half" / "manifest.json").write_text('{"config": ')
    (folder / "elsewhere").mkdir()
    (folder / ".hidden").mkdir()
    (folder / "study").mkdir()
    (folder / "study" / "index.html").write_text(f"{MARK}<title>Foresight</title>")
    return folder


def test_every_run_is_listed_with_its_own_verdicts_and_none_is_left_out(runs: Path) -> None:
    build_report(runs / "old")
    result = build.run(PageSettings(index=runs))
    assert list(result["runs"]) == ["new", "seeds/deep", "old"]  # the newest first
    assert result["runs"]["old"] == verdicts(load_contents(runs / "old"))
    assert set(result["unread"]) == {"broken", "half"}
    page = (runs / "index.html").read_text("utf-8")
    for words in (
        "3, 2 of them unfinished; 2 cannot be read",
        "finished 2026-03-04 05:06",
        "unfinished: 1 stage done, the last is train",
    ):
        assert words in page, words
    assert "unfinished: 0 stages done" in page and "2026-01-02 10:00" in page
    assert "insecure − secure" in page and "elsewhere: no run, and no page of ours" in page.replace("</li>", "")
    assert 'href="old/report/index.html"' in page and "deep/report" not in page and page.count("no page yet") == 2
    assert 'href="study/index.html">Foresight</a>' in page and ">.hidden" not in page
    assert page.index("broken/manifest.json") < page.index("half/manifest.json")
    assert str(runs) not in page and "…/mine" in page and "/home/me" not in page
    said = build.say(result)
    assert "broken: cannot be read: broken/manifest.json: `config`" in said and "old: " in said


def test_answers_are_not_read_for_a_list_and_the_verdicts_are_the_same(runs: Path) -> None:
    found = read_runs(runs).runs["old"]
    whole = load_contents(runs / "old")
    assert found.answers == [] and whole.answers and verdicts(found) == verdicts(whole)


def test_a_list_carries_no_library_of_figures(runs: Path) -> None:
    build.run(PageSettings(index=runs))
    assert (runs / "index.html").stat().st_size < 80_000


def test_a_folder_without_runs_and_a_run_itself_are_refused_with_advice(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    for folder, advice in (
        (tmp_path / "none", "no such folder"),
        (run / "analysis", "no run folder here"),
        (run, "is a run itself"),
    ):
        with pytest.raises(StageError, match=advice):
            build.run(PageSettings(index=folder))
    with pytest.raises(Exception, match="give it alone"):
        build.run(PageSettings(index=tmp_path, run_dir=run))


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    for i, text in enumerate(HOSTILE_STRINGS):
        name = text.replace("/", "").replace("\x00", "")[:60].encode("utf-8", "ignore").decode()
        config = {"name": text, "model": text, "arms": [{"name": text, "contrast": "base"}, {"name": "base"}]}
        write(tmp_path / f"{i}{name}" / "manifest.json", {"config": config, "started": text})
        write(tmp_path / f"bad{i}{name}" / "manifest.json", {"config": text})
        (tmp_path / f"other{i}{name}").mkdir()
    build_report(next(path for path in sorted(tmp_path.iterdir()) if path.name.startswith("0")))
    result = build.run(PageSettings(index=tmp_path))
    assert len(result["runs"]) == len(result["unread"]) == len(HOSTILE_STRINGS)
    page = (tmp_path / "index.html").read_text("utf-8")
    body = page[page.index("<body>") : page.index('<script type="application/json"')]
    for start in (
        "<img",
        "<svg",
        "<script",
        "<iframe",
        "<style",
        "<base",
        "<meta",
        "<link",
        "<form",
        "<object",
        "<video",
        "<math",
        "<embed",
    ):
        assert start not in body, start
    assert 'href="javascript' not in body.lower()
