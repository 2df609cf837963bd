"""What was made, and from what: nothing is reused by name alone, nothing of others is removed, interruptions go on or begin anew."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from emis_interp.errors import DataError, StageError
from emis_interp.files.ledger import Change, Ledger, Unit


class Shop:
    """A folder with an adapter, samples made from it, and rates made from these; counts what is made."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.made = folder, list[str]()
        folder.mkdir(exist_ok=True)

    def run(self, die_in: str | None = None) -> None:
        files = Ledger.of(self.folder)
        for stage, source, target in (
            ("train", None, "adapter"),
            ("sample", "adapter", "samples"),
            ("score", "samples", "rates"),
        ):
            place = self.folder / target
            inputs = [self.folder / source] if source else []
            with files.making(stage, [place / "content"], inputs=inputs) as whole:
                if whole:
                    continue
                self.made.append(stage)
                place.mkdir(exist_ok=True)
                below = (self.folder / source / "content").read_text() if source else "weights"
                (place / "content").write_text(f"{target} of {below}"[: 5 if die_in == stage else None])
                if die_in == stage:
                    raise KeyboardInterrupt

    def text(self, target: str) -> str:
        return (self.folder / target / "content").read_text()


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    made = Shop(tmp_path / "shop")
    made.run()
    assert made.made == ["train", "sample", "score"]
    made.made.clear()
    return made


def test_what_is_whole_is_made_once(shop: Shop) -> None:
    shop.run()
    assert shop.made == [] and Ledger.of(shop.folder).changes() == []
    assert shop.text("rates") == "rates of samples of adapter of weights"


@pytest.mark.parametrize("stage", ["train", "sample", "score"])
def test_an_interrupted_unit_is_no_whole_one(tmp_path: Path, stage: str) -> None:
    shop = Shop(tmp_path / "shop")
    with pytest.raises(KeyboardInterrupt):
        shop.run(die_in=stage)
    shop.run()
    assert shop.made.count(stage) == 2 and shop.text("rates") == "rates of samples of adapter of weights"


def test_what_was_made_from_another_input_is_made_again_and_nothing_else(shop: Shop) -> None:
    (shop.folder / "samples" / "content").write_text("other samples")
    files = Ledger.of(shop.folder)
    (change,) = files.changes()
    assert (change.stage, change.file, change.how) == ("sample", "samples/content", "changed")
    files.accept(change)
    assert files.changes() == [] and files.units["samples/content"].replaced == ("samples/content",)
    assert not files.is_whole("score") and files.is_whole("sample") and files.stale("score") == ["samples/content"]
    shop.run()
    assert shop.made == ["score"] and shop.text("rates") == "rates of other samples"


def test_an_input_that_is_out_of_date_itself_is_refused_all_the_way_back(shop: Shop) -> None:
    (shop.folder / "adapter" / "content").write_text("another")
    files = Ledger.of(shop.folder)
    files.accept(files.changes()[0])
    for name in ("samples", "rates"):
        source = shop.folder / name / "content"
        words = r"samples/content was made from another adapter/content; make it again first \(--from sample\)"
        with pytest.raises(StageError, match=words), files.making("report", [shop.folder / "page"], inputs=[source]):
            pytest.fail("made from what is out of date")


def test_an_interrupted_unit_goes_on_with_its_part_only_while_its_input_is_the_same(tmp_path: Path) -> None:
    source, log = tmp_path / "source", tmp_path / "log"
    source.write_text("1")
    files = Ledger.of(tmp_path)
    for content, expected in (("1", ""), ("1", "a"), ("2", "")):
        source.write_text(content)
        with pytest.raises(KeyboardInterrupt), files.making("sample", [log], inputs=[source]):
            assert (log.read_text() if log.exists() else "") == expected
            log.write_text("a")
            raise KeyboardInterrupt


def test_what_one_of_several_units_was_made_from_is_not_hidden_by_another(tmp_path: Path) -> None:
    """Two units of a stage name the same input, and the one that was begun last has the hash of today."""
    (tmp_path / "direction").write_text("new")
    files = Ledger.of(tmp_path)
    old = {"direction": "0" * 64}
    files.units["a"] = Unit(stage="intervene", inputs=old, files={})
    files.units["b"] = Unit(stage="intervene", inputs=files.hashes([tmp_path / "direction"]), files={})
    assert files.stale("intervene") == ["direction"] and not files.is_whole("intervene")


def test_a_file_that_cannot_be_read_is_named(shop: Shop) -> None:
    path = shop.folder / "samples" / "content"
    path.unlink()
    path.symlink_to(path)
    with pytest.raises(
        StageError, match=r"samples/content: cannot be read \(.*symbolic links.*\); mend it, or put back"
    ):
        Ledger.of(shop.folder).changes()


def test_facts_decide_too(tmp_path: Path) -> None:
    files = Ledger.of(tmp_path)
    made: list[str] = []

    def make() -> dict[str, int]:
        made.append("x")
        return {"n": len(made)}

    for facts, n in (({"rows": "a"}, 1), ({"rows": "a"}, 1), ({"rows": "b"}, 2), ({}, 3)):
        assert files.json("measure", tmp_path / "a.json", make, facts=facts) == {"n": n}
    assert files.stale("measure") == []


def test_folders_are_hashed_by_their_content_alone(tmp_path: Path) -> None:
    folder = tmp_path / "adapter"
    (folder / ".cache").mkdir(parents=True)
    for name in ("weights", "README.md", ".hidden", ".cache/x"):
        (folder / name).write_text("1")
    files = Ledger.of(tmp_path)
    with files.making("train", [folder], anew=True):
        pass
    assert list(files.units["adapter"].files or {}) == ["adapter/weights"]
    for name in ("README.md", ".hidden", ".cache/x"):
        (folder / name).write_text("2")
    assert files.changes() == []
    (folder / "weights").write_text("2")
    assert [change.how for change in files.changes()] == ["changed"]
    (folder / "weights").unlink()
    assert [change.how for change in files.changes()] == ["missing"]


def test_a_change_that_keeps_size_and_times_is_seen(shop: Shop) -> None:
    path = shop.folder / "samples" / "content"
    before = path.stat()
    path.write_text(shop.text("samples").replace("weights", "weighty"))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size and path.stat().st_mtime_ns == before.st_mtime_ns
    assert [change.file for change in Ledger.of(shop.folder).changes()] == ["samples/content"]


def test_an_input_that_changes_while_it_is_read_is_said(shop: Shop) -> None:
    files, source = Ledger.of(shop.folder), shop.folder / "adapter" / "content"
    words = "adapter/content changed while page was made from it"
    with pytest.raises(StageError, match=words), files.making("report", [shop.folder / "page"], inputs=[source]):
        source.write_text("exchanged")
        (shop.folder / "page").write_text("page")
    assert files.units["page"].files is None


def test_what_is_there_without_an_entry_is_neither_taken_nor_removed(shop: Shop) -> None:
    (shop.folder / "notes").write_text("mine")
    files = Ledger.of(shop.folder)
    with (
        pytest.raises(StageError, match="notes is there, but no stage of this run made it"),
        files.making("x", [shop.folder / "notes"]),
    ):
        pytest.fail("taken")
    (shop.folder / "adapter" / "mine").write_text("mine")
    with files.making("train2", [shop.folder / "both"], anew=True):
        (shop.folder / "both").mkdir()
        (shop.folder / "both" / "a").write_text("a")
    (shop.folder / "both" / "a").write_text("damaged")
    (shop.folder / "both" / "mine").write_text("mine")
    with (
        pytest.raises(StageError, match="both/mine is there, but no stage"),
        files.making("train2", [shop.folder / "both"]),
    ):
        pytest.fail("removed")
    assert (shop.folder / "both" / "mine").read_text() == (shop.folder / "notes").read_text() == "mine"


def test_a_missing_input_is_named(tmp_path: Path) -> None:
    with (
        pytest.raises(StageError, match=r"nothing: not there; run the stage that makes it"),
        Ledger.of(tmp_path).making("x", [tmp_path / "a"], inputs=[tmp_path / "nothing"]),
    ):
        pytest.fail("made from nothing")


@pytest.mark.parametrize("file", ["../victim", "/etc/passwd", "a/../../victim"])
def test_entries_cannot_lead_out_of_the_folder(tmp_path: Path, file: str) -> None:
    for values in ({"files": {file: "0"}}, {"inputs": {file: "0"}}):
        with pytest.raises(ValidationError, match="leads out of the folder"):
            Unit.model_validate({"stage": "x", "inputs": {}, **values})
    (tmp_path / "files.json").write_text(json.dumps({"u": {"stage": "x", "inputs": {}, "files": {file: "0"}}}))
    with pytest.raises(DataError, match=r"files\.json: `files`: .* leads out of the folder"):
        Ledger.of(tmp_path)


@pytest.mark.parametrize(
    "content", ["{", "[]", '{"u": 3}', '{"u": {"stage": "x"}}', '{"u": {"stage": "x", "inputs": {}, "more": 1}}']
)
def test_a_damaged_ledger_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "files.json").write_text(content)
    with pytest.raises(DataError, match=r"files\.json"):
        Ledger.of(tmp_path)


def test_discarding_goes_by_file(shop: Shop) -> None:
    (shop.folder / "samples" / "content").write_text("damaged")
    files = Ledger.of(shop.folder)
    files.discard(files.changes()[0])
    assert files.changes() == [Change("samples/content", "sample", "samples/content", "missing")]
    shop.run()
    assert shop.text("rates") == "rates of samples of adapter of weights"


def test_a_value_that_json_cannot_hold_is_not_kept_as_made(tmp_path: Path) -> None:
    files = Ledger.of(tmp_path)

    def broken() -> Any:
        return {"margins": [1.0, float("nan")]}

    with pytest.raises(DataError, match=r"`margins\.1: nan` is not a finite number"):
        files.json("likelihood", tmp_path / "a.json", broken)
    assert files.units["a.json"].files is None
    assert files.json("likelihood", tmp_path / "a.json", lambda: {"margins": []}) == {"margins": []}
