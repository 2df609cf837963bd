"""Turns a run's manifest and its rows into notes: what a reader must know of how the files came about before believing the page.

Nothing here stops the page: a row that cannot be read is left out and named.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel

from emis_interp.errors import DataError
from emis_interp.files.store import as_record, file_sha256
from emis_interp.files.strict_json import parse_json_line
from emis_interp.results import ManifestView

M = TypeVar("M", bound=BaseModel)
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
        """Records of a log (`located`)."""
        return [row for _, row in self.located(path, record, loose)]

    def located(self, path: Path, record: type[M], loose: bool = False) -> Iterator[tuple[int, M]]:
        """Records of a log, each with the byte where its line begins; a last line without its newline is being written and is skipped.

        Args:
            loose: take NaN and infinities where the record does not refuse them.
        """
        faults, offset = list[str](), 0
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                begun, offset = offset, offset + len(line)
                if not line.strip() or not line.endswith(b"\n"):
                    continue
                try:
                    where = f"line {number}"
                    value = parse_json_line(line.decode("utf-8").rstrip("\n"), where, loose=loose, halves=True)
                    row = as_record(value, record, where)
                except UnicodeDecodeError as error:
                    faults.append(f"line {number}: not UTF-8 ({error.reason} at byte {error.start})")
                except DataError as error:
                    faults.append(str(error))
                else:
                    yield begun, row
        self.note(path, faults, "row(s) that cannot be read and are left out")

    def note(self, path: Path, faults: list[str], what: str) -> None:
        """Remember what was wrong with rows of a file, the first few by name."""
        if faults:
            shown = "; ".join(faults[:MOST]) + (f"; and {len(faults) - MOST} more" if len(faults) > MOST else "")
            self.notes.append(f"{path.relative_to(self.run_dir).as_posix()}: {len(faults)} {what} ({shown}).")
