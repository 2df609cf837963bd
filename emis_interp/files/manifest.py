"""Turns a run's `manifest.json` into checked values and back: what was asked for, by which code, what each stage made, and from what."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from emis_interp.errors import DataError, StageError
from emis_interp.files.code_state import Git
from emis_interp.files.ledger import Unit
from emis_interp.files.store import explain, file_sha256, read_sealed, write_sealed
from emis_interp.records import Record

MANIFEST = "manifest.json"


def read_manifest(folder: Path) -> dict[str, Any]:
    """What the manifest of a folder says, unchecked but for its checksum; one of an older version has none.

    Raises:
        DataError: no file, no object of JSON, or not what was written.
    """
    return read_sealed(folder / MANIFEST)


class StageRecord(Record):
    """A finished stage. `files`: what it made, by path relative to the run folder; `cpu_seconds` of this process, where they were noted."""

    seconds: float
    finished: str
    line: str
    peak_rss_gib: float
    files: list[str]
    cpu_seconds: float | None = None


class OtherCode(Record):
    """`changes`: how code and packages differed from those that the run began with, when a stage was begun or continued `at` a time."""

    at: str
    changes: list[str]


class Manifest(BaseModel):
    """The record of a run; saved after every change.

    Attributes:
        inputs: hash of every data set, question file and local model, by what it is.
        weights: of the base model, where they come from (`models.checkpoint.origin_of`).
        stages: finished stages.
        files: every unit that was begun (`ledger`), by name.
        other_code: stages that ran, or went on, under other code or packages than `git`, `versions` and `sources_sha256`.
    """

    model_config = ConfigDict(extra="allow", allow_inf_nan=False)

    config: dict[str, Any]
    inputs: dict[str, str]
    weights: dict[str, str | None] = {}
    recipes: dict[str, Any] = {}
    versions: dict[str, str | None]
    git: Git
    sources_sha256: str
    started: str
    system_prompt_policy: str | None = None
    rendered_example: str | None = None
    chat_template: Any = None
    machine: dict[str, Any] = {}
    stages: dict[str, StageRecord] = Field(default_factory=dict)
    files: dict[str, Unit] = Field(default_factory=dict)
    other_code: dict[str, list[OtherCode]] = Field(default_factory=dict)

    def save(self, folder: Path) -> None:
        write_sealed(folder / MANIFEST, self.model_dump(mode="json"))

    @classmethod
    def load(cls, folder: Path) -> "Manifest":
        """The manifest of a run folder.

        Raises:
            StageError: there is none, or it was begun by a version that kept no hashes.
            DataError: it is damaged; the text names the file and the key.
        """
        path = folder / MANIFEST
        values = read_manifest(folder) if path.exists() else None
        if values is None:
            raise StageError(f"{folder}: no manifest.json here; give the folder of a run, e.g. runs/laptop")
        if "stages" in values and "files" not in values:
            raise StageError(
                f"{folder} holds a run of an older version, which kept no hashes of its files: what is there cannot be checked, so nothing "
                "is added to it. scripts/build_report.py still reads it; to run again, give another --run-dir or delete the folder"
            )
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise DataError(
                f"{path}: {explain(error, cls)}; it was damaged or edited: put back a copy, or give another --run-dir"
            ) from None


def check_read(folder: Path, files: Iterable[Path]) -> None:
    """For readers of a run folder: refuse files that are not what the stage wrote that made them.

    Files of an unfinished stage, and folders of other makers or of versions that kept no hashes, are taken as they are.

    Raises:
        StageError: with the first file that changed. DataError: the manifest is damaged.
    """
    values = read_manifest(folder) if (folder / MANIFEST).exists() else {}
    if "files" not in values:
        return
    manifest = Manifest.load(folder)
    made = {file: (sha, unit.stage) for unit in manifest.files.values() for file, sha in (unit.files or {}).items()}
    for path in files:
        sha, stage = made.get(path.relative_to(folder).as_posix(), (None, ""))
        if sha is not None and path.exists() and file_sha256(path) != sha:
            raise StageError(
                f"{path} changed since the {stage} stage wrote it; put back a copy, or let the run make it again "
                f"(scripts/run_pipeline.py ... --from {stage})"
            )
