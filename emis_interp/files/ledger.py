"""Turns the making of files into entries that say what they hold and what they were made from, so that nothing is reused by name alone.

A unit is one file, or files and folders that are made together. Before it is made its entry names the hashes of what it is made from;
afterwards also the hashes of what was made. A unit is used again when both are still true. One that was interrupted goes on when what it is
made from is still the same, else it begins anew.
"""

import contextlib
import hashlib
import logging
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from pydantic import ValidationError, field_validator

from emis_interp.errors import DataError, StageError
from emis_interp.files.store import explain, read_json, read_object, write_json
from emis_interp.records import Record

log = logging.getLogger(__name__)
FACT = "="
"""Begins the names of inputs that are no files."""
NOT_CONTENT = ("README.md",)
"""Files inside a folder that are words about its content."""


class Unit(Record):
    """An entry. Hashes are SHA-256, by path relative to the run folder.

    Attributes:
        stage: who makes it.
        inputs: what it is made from.
        files: what was made; None while it is being made.
        replaced: files that somebody exchanged after they were made, and that a later command took as they are.
    """

    stage: str
    inputs: dict[str, str]
    files: dict[str, str] | None = None
    replaced: tuple[str, ...] = ()

    @field_validator("inputs", "files")
    @classmethod
    def _stay_inside(cls, values: dict[str, str] | None) -> dict[str, str] | None:
        for file in values or {}:
            if PurePosixPath(file).is_absolute() or ".." in PurePosixPath(file).parts:
                raise ValueError(f"`{file}` leads out of the folder")
        return values


@dataclass(frozen=True)
class Change:
    """A file that is no longer what its unit's entry says."""

    unit: str
    stage: str
    file: str
    how: Literal["missing", "changed"]


class Ledger:
    """The units of one folder. `units` is changed in place and `save` is called after every change."""

    def __init__(self, folder: Path, units: dict[str, Unit], save: Callable[[], None]) -> None:
        self.folder, self.units, self._save = folder, units, save
        self._known: dict[Path, tuple[tuple[int, ...], str]] = {}

    @classmethod
    def of(cls, folder: Path) -> "Ledger":
        """The ledger that a folder keeps in a file of its own, `files.json`.

        Raises:
            DataError: the file is damaged.
        """
        path = folder / "files.json"
        try:
            found = read_object(path) if path.exists() else {}
            units = {name: Unit.model_validate(values) for name, values in found.items()}
        except ValidationError as error:
            raise DataError(f"{path}: {explain(error, Unit)}; it was damaged or edited") from None

        def save() -> None:
            write_json(path, {name: unit.model_dump(mode="json") for name, unit in units.items()})

        return cls(folder, units, save)

    @contextlib.contextmanager
    def making(
        self,
        stage: str,
        places: Sequence[Path],
        *,
        inputs: Iterable[Path] = (),
        facts: Mapping[str, str] | None = None,
        anew: bool = False,
        go_on: bool = False,
    ) -> Iterator[bool]:
        """Around the making of one unit: gives True when it is there already, whole and made from these inputs.

        Else the files that were made from something else are removed first; what an interrupted process made from these same inputs stays.

        Args:
            places: files and folders that the unit consists of; the first one names it. README.md and hidden files of folders do not count.
            inputs: files and folders that are read.
            facts: what else decides the content, by name (the hash of its rows, say).
            anew: make it again in any case, writing over what is there.
            go_on: a whole one is not finished after all: what is there stays, and more is added.

        Raises:
            StageError: an input is missing, was itself made from something that is another one by now, or changed while it was read; or a
                place holds something that is in no entry.
        """
        decided = {f"{FACT}{name}": value for name, value in (facts or {}).items()}
        name, wanted = self.name(places[0]), {**self.hashes(inputs, required=True), **decided}
        self._check_sources(wanted)
        unit = self.units.get(name)
        if not anew:
            whole = unit is not None and unit.inputs == wanted and self._is_intact(unit)
            if whole and not go_on:
                yield True
                return
            present = [place for place in places if _holds_something(place)] if not whole else []
            if unit is None and present:
                raise StageError(
                    f"{present[0]} is there, but no stage of this run made it; move it elsewhere, then run the same command again"
                )
            if unit is not None and (unit.files is not None or unit.inputs != wanted) and present:
                self._check_strangers(unit, present)
                log.info("%s: %s; made again", name, self._why(unit, wanted))
                for place in present:
                    remove(place)
        self.units[name] = Unit(stage=stage, inputs=wanted)
        self._save()
        yield False
        if now := _differing(wanted, {**self.hashes(inputs), **decided}):
            raise StageError(
                f"{self.folder / now[0]} changed while {name} was made from it; run the same command again"
            )
        self.units[name] = Unit(stage=stage, inputs=wanted, files=self.hashes(places))
        self._save()

    def json(
        self,
        stage: str,
        path: Path,
        make: Callable[[], Any],
        *,
        inputs: Iterable[Path] = (),
        facts: Mapping[str, str] | None = None,
        beside: Sequence[Path] = (),
    ) -> Any:
        """The content of a JSON file that is one unit (with what is made `beside` it), made and written when it is not there or was made
        from something else."""
        with self.making(stage, [path, *beside], inputs=inputs, facts=facts) as whole:
            if not whole:
                write_json(path, make())
        return read_json(path)

    def changes(self) -> list[Change]:
        """Files of finished units that are missing or changed, in the order in which they were made. Reads every byte of them."""
        found, files = [], [self.folder / file for unit in self.units.values() for file in unit.files or {}]
        with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
            list(pool.map(self._sha256, files))
        for name, unit in self.units.items():
            for file, expected in (unit.files or {}).items():
                actual = self._sha256(self.folder / file)
                if actual != expected:
                    how = "missing" if actual is None else "changed"
                    found.append(Change(name, unit.stage, file, how))
        return found

    def is_whole(self, stage: str) -> bool:
        """Whether every unit that the stage began is there as it was made, from what is there now."""
        return not self.stale(stage) and all(
            self._is_intact(unit) for unit in self.units.values() if unit.stage == stage
        )

    def stale(self, stage: str) -> list[str]:
        """What a stage's units were made from and is now missing or another."""
        read = [pair for unit in self.units.values() if unit.stage == stage for pair in unit.inputs.items()]
        other = [file for file, sha in read if not file.startswith(FACT) and self._sha256(self.folder / file) != sha]
        return list(dict.fromkeys(other))

    def accept(self, change: Change) -> None:
        """Take an exchanged file as it is from now on; the entry keeps that it was exchanged."""
        unit, actual = self.units[change.unit], self._sha256(self.folder / change.file)
        if unit.files is None or actual is None:
            return
        replaced = tuple(sorted({*unit.replaced, change.file}))
        self.units[change.unit] = unit.model_copy(
            update={"files": {**unit.files, change.file: actual}, "replaced": replaced}
        )
        self._save()

    def exchanged(self) -> list[Change]:
        """Files that were taken as they are (`accept`), and are still there."""
        return [
            Change(name, unit.stage, file, "changed")
            for name, unit in self.units.items()
            for file in unit.replaced
            if (self.folder / file).exists()
        ]

    def discard(self, change: Change) -> None:
        """Remove a file that is not what was made; its unit will be made again."""
        remove(self.folder / change.file)

    def name(self, place: Path) -> str:
        return place.relative_to(self.folder).as_posix()

    def hashes(self, places: Iterable[Path], required: bool = False) -> dict[str, str]:
        """Path -> SHA-256 of all files in these places, sorted.

        Raises:
            StageError: `required`, and a place is not there.
        """
        found = {}
        for place in places:
            files = files_in(place)
            if required and not files:
                raise StageError(f"{place}: not there; run the stage that makes it first")
            for file in files:
                if (sha := self._sha256(file)) is not None:
                    found[self.name(file)] = sha
        return dict(sorted(found.items()))

    def _check_sources(self, inputs: Mapping[str, str]) -> None:
        """Refuse inputs that were made from something that is another one by now, all the way back."""
        maker = {file: unit for unit in self.units.values() for file in unit.files or {}}
        todo, seen = list(inputs), set[str]()
        while todo:
            file = todo.pop()
            if file in seen or (unit := maker.get(file)) is None:
                continue
            seen.add(file)
            for source, sha in unit.inputs.items():
                if not source.startswith(FACT) and self._sha256(self.folder / source) != sha:
                    raise StageError(
                        f"{self.folder / file} was made from another {source}; make it again first (--from {unit.stage})"
                    )
                todo.append(source)

    def _check_strangers(self, unit: Unit, present: Sequence[Path]) -> None:
        """Refuse to clear places of a finished unit that hold files which it does not consist of."""
        for place in present:
            for file in files_in(place):
                if unit.files is not None and self.name(file) not in unit.files:
                    raise StageError(
                        f"{file} is there, but no stage of this run made it; move it elsewhere, then run the same command again"
                    )

    def _is_intact(self, unit: Unit) -> bool:
        return unit.files is not None and all(
            self._sha256(self.folder / file) == sha for file, sha in unit.files.items()
        )

    def _why(self, unit: Unit, wanted: dict[str, str]) -> str:
        if changed := _differing(unit.inputs, wanted):
            return f"was made from another {changed[0]}"
        return "not as it was made"

    def _sha256(self, path: Path) -> str | None:
        """Hash of the content, or None where there is no file; read again whenever the file's inode, size or times differ.

        What is remembered ends with this process: only a file that nobody touched since this process read it is not read again.
        """
        try:
            with path.open("rb") as file:
                state = os.fstat(file.fileno())
                seen = (state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns)
                if (known := self._known.get(path)) is not None and known[0] == seen:
                    return known[1]
                sha = hashlib.file_digest(file, "sha256").hexdigest()
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return None
        except OSError as error:
            raise StageError(
                f"{path}: cannot be read ({error.strerror or error}); mend it, or put back a copy"
            ) from error
        self._known[path] = (seen, sha)
        return sha


def remove(place: Path) -> None:
    """A file, or a folder with what is in it; nothing where there is nothing."""
    if place.is_dir() and not place.is_symlink():
        shutil.rmtree(place)
    else:
        place.unlink(missing_ok=True)


def files_in(place: Path) -> list[Path]:
    """The files of a place: itself, or in a folder all that are content; none where there is nothing."""
    if not place.is_dir():
        return [place] if place.exists() else []
    return sorted(
        path
        for path in place.rglob("*")
        if path.is_file()
        and path.name not in NOT_CONTENT
        and not any(part.startswith(".") for part in path.relative_to(place).parts)
    )


def _holds_something(place: Path) -> bool:
    return place.exists() and (not place.is_dir() or any(place.iterdir()))


def _differing(old: dict[str, str], new: dict[str, str]) -> list[str]:
    return [file for file in sorted({*old, *new}) if old.get(file) != new.get(file)]
