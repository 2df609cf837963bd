"""Turns a run's manifest and its rows into notes: what a reader must know of how the files came about before believing the page.

Nothing here stops the page: a row that cannot be read is left out and named.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel

from emis_interp.errors import DataError
from emis_interp.files.rows import key_text, replaced_answers
from emis_interp.files.store import as_record, file_sha256
from emis_interp.files.strict_json import parse_json_line
from emis_interp.records import AnswerKey, Completion, Key, Score
from emis_interp.results import ManifestView

M = TypeVar("M", bound=BaseModel)
K = TypeVar("K", bound=AnswerKey)
SHOWN = (".json", ".jsonl")
"""Endings of the files that the page shows; weights and activations are not read again for it."""
MOST = 3
"""So many rows of one file are named."""


def code_notes(manifest: ManifestView) -> list[str]:
    """Stages that ran, or went on, under other code or packages than the run began with."""
    return [
        f"The {stage} stage ran, or went on ({note.at}), with other code or packages than the run began with: {', '.join(note.changes)}."
        for stage, notes in manifest.other_code.items()
        for note in notes
    ]


def file_notes(run_dir: Path, manifest: ManifestView) -> list[str]:
    """Files that were exchanged and taken as they are, and files that the page shows and that changed since they were written."""
    notes = []
    for unit in manifest.files.values():
        notes += [
            f"{file} was exchanged after the {unit.stage} stage wrote it, and taken as it is." for file in unit.replaced
        ]
        if unit.stage == "report":
            continue
        for file, sha in (unit.files or {}).items():
            path = run_dir / file
            if path.suffix in SHOWN and path.is_file() and file_sha256(path) != sha:
                notes.append(
                    f"{file} changed after the {unit.stage} stage wrote it: it and the rest of this page may not belong together."
                )
    return notes


class RowReader:
    """Reads logs row by row and remembers in `notes` what could not be used."""

    def __init__(self, run_dir: Path) -> None:
        self.run_dir, self.notes = run_dir, list[str]()

    def read(self, path: Path, record: type[M], loose: bool = False) -> list[M]:
        """Records of a log; a last line without its newline is being written and is skipped.

        Args:
            loose: take NaN and infinities where the record does not refuse them.
        """
        raw = path.read_bytes()
        found, faults = [], []
        for number, line in enumerate(raw[: raw.rfind(b"\n") + 1].split(b"\n"), 1):
            if line.strip():
                try:
                    where = f"line {number}"
                    value = parse_json_line(line.decode("utf-8"), where, loose=loose, halves=True)
                    found.append(as_record(value, record, where))
                except UnicodeDecodeError as error:
                    faults.append(f"line {number}: not UTF-8 ({error.reason} at byte {error.start})")
                except DataError as error:
                    faults.append(str(error))
        self._note(path, faults, "row(s) that cannot be read and are left out")
        return found

    def by_key(self, path: Path, record: type[K]) -> dict[Key, K]:
        """Rows of a log by the answer that they are, or are about; of repeated ones the first."""
        found: dict[Key, K] = {}
        repeated = []
        for row in self.read(path, record):
            if row.key in found:
                repeated.append(key_text(row.key))
            else:
                found[row.key] = row
        self._note(path, repeated, "row(s) about an answer that stands there before; each is shown once")
        return found

    def replaced(self, scores: Mapping[Key, Score], answers: Mapping[Key, Completion], path: Path) -> list[Key]:
        """Keys of scores that are about another text than the answer that stands there; they are not shown."""
        found = replaced_answers(scores.values(), answers)
        self._note(
            path, [key_text(key) for key in found], "score(s) of answers that were replaced after they were judged"
        )
        old = [key_text(key) for key, score in scores.items() if score.answer_sha256 is None]
        self._note(path, old, "score(s) that do not say which text they judge (an older version wrote them)")
        return found

    def _note(self, path: Path, faults: list[str], what: str) -> None:
        if faults:
            shown = "; ".join(faults[:MOST]) + (f"; and {len(faults) - MOST} more" if len(faults) > MOST else "")
            self.notes.append(f"{path.relative_to(self.run_dir).as_posix()}: {len(faults)} {what} ({shown}).")
