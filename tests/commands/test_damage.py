"""Cuts and flips one byte of every file that a run wrote, at seeded places: each is named before anything is made from it, none is used.

The refusal is asked of the pipeline's own check (`check_files`), of the command that verifies a run, and of every reader of run folders
that can be called alone. A whole pipeline per file would say the same thing in an hour; a few files go through it in `test_run_folder.py`.
"""

import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from small_run import SmallRun

from emis_interp.config.run_changes import check_files
from emis_interp.config.run_folder import RunFolder, config_of
from emis_interp.directions import Direction
from emis_interp.errors import EmisError, StageError
from emis_interp.files.manifest import MANIFEST, Manifest, read_manifest
from emis_interp.files.tensors import load_tensors
from emis_interp.files.verification import verified
from emis_interp.models.adapter_files import read_adapter
from emis_interp.report import run_tables
from emis_interp.report.contents import load_contents
from emis_interp.report.page import build_report
from emis_interp.report.settings import RunTablesSettings
from evals.results.result_files import read_results
from run_pipeline import STAGES
from training.finetuning.summary import read_summary

pytestmark = pytest.mark.slow
N_FLIPS, N_CUTS = 4, 2


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    small, folder = SmallRun(), tmp_path_factory.mktemp("whole") / "run"
    small.go(folder)
    yield folder
    small.server.close()


def damages(content: bytes, seed: str) -> Iterator[bytes]:
    """One flipped bit at each of a few places, and two cuts; the first and the last byte are among them."""
    draw = random.Random(seed)
    size = len(content)
    for place in {0, size - 1, *(draw.randrange(size) for _ in range(N_FLIPS - 2))}:
        yield content[:place] + bytes([content[place] ^ (1 << draw.randrange(8))]) + content[place + 1 :]
    for length in {0, *(draw.randrange(size) for _ in range(N_CUTS - 1))}:
        yield content[:length]


def opened(folder: Path) -> RunFolder:
    """The run as a command would see it after its configuration was compared."""
    run = RunFolder(config_of(folder), folder, lambda _: pytest.fail("a model was loaded"))
    run._manifest = Manifest.load(folder)
    return run


def readers(folder: Path, file: str) -> list[Callable[[], Any]]:
    """What reads this file, or the folder that it is in, without a model."""
    path = folder / file
    found: list[Callable[[], Any]] = [
        lambda: load_contents(folder),
        lambda: read_results(folder),
        lambda: run_tables.run(RunTablesSettings(run_dir=folder)),
    ]
    if file.startswith("directions/"):
        found.append(lambda: Direction.load(path.with_suffix("")))
    elif path.suffix == ".safetensors" and path.with_suffix(".json").exists():
        found.append(lambda: load_tensors(path))
    if "/adapter/" in file:
        found.append(lambda: read_adapter(path.parent))
    if file.startswith("training/") and path.name in ("summary.json", "metrics.jsonl"):
        found.append(lambda: read_summary(path.parent))
    return found


def test_every_file_of_a_run_is_named_when_it_is_damaged(whole: Path) -> None:
    files = [file for unit in Manifest.load(whole).files.values() for file in unit.files or {}]
    kinds = {Path(file).suffix for file in files}
    assert len(files) > 60 and kinds >= {".json", ".jsonl", ".safetensors", ".html", ".md", ".jinja"}
    n_damages = 0
    for file in files:
        path, content = whole / file, (whole / file).read_bytes()
        try:
            for damaged in damages(content, file):
                if damaged == content:
                    continue
                path.write_bytes(damaged)
                n_damages += 1
                found = verified(whole)
                assert any(text.startswith(file) for text in (*found["changed"], *found["rebuilt"])), file
                if not found["rebuilt"]:  # the page is made again from the other files, whatever is there
                    assert not found["ok"]
                    with pytest.raises(StageError, match="changed since they were written") as refused:
                        check_files(opened(whole), STAGES)
                    assert file in str(refused.value)
        finally:
            path.write_bytes(content)
    assert verified(whole)["ok"] and n_damages > 300


@pytest.mark.parametrize(
    "group", ["training/", "samples/", "scores/", "analysis/", "directions/", "activations/", "likelihood/"]
)
def test_readers_of_damaged_files_give_a_value_or_our_own_error(whole: Path, group: str) -> None:
    """They never show a traceback. Where a reader takes what is still readable, the hash said before that the file is another."""
    files = [
        file for unit in Manifest.load(whole).files.values() for file in unit.files or {} if file.startswith(group)
    ]
    assert files
    for file in files[:8]:
        path, content = whole / file, (whole / file).read_bytes()
        try:
            for damaged in damages(content, file):
                path.write_bytes(damaged)
                for read in readers(whole, file):
                    try:
                        read()
                    except EmisError as error:
                        assert "\n" not in str(error) and len(str(error)) < 2000, file
        finally:
            path.write_bytes(content)


def test_tensors_are_never_read_with_another_byte(whole: Path) -> None:
    """Their card has the hash, so that they are refused also where no manifest is."""
    for path in [*whole.glob("activations/*.safetensors"), *whole.glob("directions/*.safetensors")]:
        content = path.read_bytes()
        try:
            for damaged in damages(content, path.name):
                path.write_bytes(damaged)
                with pytest.raises(EmisError, match=path.name):
                    load_tensors(path)
        finally:
            path.write_bytes(content)
        load_tensors(path)


def test_the_page_names_files_that_changed_and_readers_of_numbers_refuse_them(whole: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    path = folder / "analysis" / "margins.json"
    path.write_text(path.read_text().replace("0.", "1.", 1))
    build_report(folder)
    assert (
        "analysis/margins.json changed after the likelihood stage wrote it"
        in (folder / "report" / "index.html").read_text()
    )
    with pytest.raises(StageError, match=r"margins\.json changed since the likelihood stage wrote it"):
        run_tables.run(RunTablesSettings(run_dir=folder))


def test_a_damaged_manifest_never_gives_a_traceback_nor_takes_a_file_for_another(whole: Path, tmp_path: Path) -> None:
    """It holds the hashes itself, and a checksum of its own: what is read says what was written, but for blanks and the checksum's name."""
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    path, content = folder / MANIFEST, (whole / MANIFEST).read_bytes()
    first, draw, n_named = read_manifest(whole), random.Random(0), 0
    for number in range(300):
        place = draw.randrange(len(content))
        flipped = content[:place] + bytes([content[place] ^ (1 << draw.randrange(8))]) + content[place + 1 :]
        path.write_bytes(flipped if number % 5 else content[:place])
        try:
            now = read_manifest(folder)
            assert {key: value for key, value in now.items() if key in first} == first
        except EmisError as error:
            assert "manifest.json" in str(error) and "\n" not in str(error)
            n_named += 1
            for read in (config_of, opened, verified, load_contents):
                with pytest.raises(EmisError, match=r"manifest\.json"):
                    read(folder)
    assert n_named > 200
