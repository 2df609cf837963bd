"""Turns a run folder and its manifest into what is still as it was made, and what is not: every file hashed anew, every input traced.

Nothing is changed and nothing is loaded. A folder passes when every file of a finished unit has the hash that was kept, everything that a
unit was made from is what its maker wrote, and no stage is open.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from emis_interp.files.ledger import FACT, NOT_CONTENT, Ledger
from emis_interp.files.manifest import MANIFEST, Manifest
from emis_interp.files.temporary import leftovers

WRITTEN_ANEW = "report"
"""The stage whose files other commands write too (build_report.py)."""


def verified(folder: Path) -> dict[str, Any]:
    """What the ledger of a run says of its folder.

    Returns:
        `ok`; `n_files`, `n_bytes`, `n_units` that were hashed; lists in words, empty where all is well: `changed`, `missing`,
        `other_inputs` (made from something that is another one by now), `unmatched_inputs` (made from something else than its
        maker last wrote), `unfinished`; and lists that say how the run came about and are no fault: `rebuilt` (the page, which
        other commands write too), `exchanged`, `other_code`, `strangers` (files that no stage made).

    Raises:
        StageError: no run there, or a file that cannot be read. DataError: the manifest is damaged.
    """
    manifest = Manifest.load(folder)
    ledger = Ledger(folder, manifest.files, lambda: None)
    changes = ledger.changes()
    made = {file: (sha, unit.stage) for unit in manifest.files.values() for file, sha in (unit.files or {}).items()}
    other = [one for one in changes if one.how == "changed"]
    faults = {
        "changed": [f"{one.file} (by {one.stage})" for one in other if one.stage != WRITTEN_ANEW],
        "missing": [f"{one.file} (by {one.stage})" for one in changes if one.how == "missing"],
        "other_inputs": _other_inputs(manifest, ledger),
        "unmatched_inputs": _unmatched(manifest, made),
        "unfinished": [f"{name} (by {unit.stage})" for name, unit in manifest.files.items() if unit.files is None]
        + [f"{path.relative_to(folder)} (a write that was cut off)" for path in leftovers(folder)],
    }
    there = [folder / file for file in made if (folder / file).is_file()]
    return {
        "run_dir": str(folder),
        "ok": not any(faults.values()),
        "n_files": len(there),
        "n_bytes": sum(path.stat().st_size for path in there),
        "n_units": len(manifest.files),
        **faults,
        "rebuilt": [one.file for one in other if one.stage == WRITTEN_ANEW],
        "exchanged": [one.file for one in ledger.exchanged()],
        "other_code": [
            f"{stage} ({note.at}): {', '.join(note.changes)}"
            for stage, notes in manifest.other_code.items()
            for note in notes
        ],
        "strangers": _strangers(folder, made),
    }


def other_sources(then: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """What a run began with (data sets, questions, the model) and is another one now, by what it is."""
    return [f"{name} {'is another one' if name in now else 'is gone'}" for name in then if now.get(name) != then[name]]


def _other_inputs(manifest: Manifest, ledger: Ledger) -> list[str]:
    """Only files of units that are finished: one that is open will be made anew anyway."""
    found = []
    for name, unit in manifest.files.items():
        if unit.files is None:
            continue
        read = [ledger.folder / file for file in unit.inputs if not file.startswith(FACT)]
        now = ledger.hashes(read)
        found += [
            f"{name} (by {unit.stage}) was made from another {file}"
            for file, sha in unit.inputs.items()
            if not file.startswith(FACT) and now.get(file) != sha
        ]
    return found


def _unmatched(manifest: Manifest, made: Mapping[str, tuple[str, str]]) -> list[str]:
    return [
        f"{name} (by {unit.stage}) read {file} with another content than the {made[file][1]} stage wrote"
        for name, unit in manifest.files.items()
        for file, sha in unit.inputs.items()
        if unit.files is not None and file in made and made[file][0] != sha
    ]


def _strangers(folder: Path, made: Mapping[str, Any]) -> list[str]:
    inside = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    names = [path.relative_to(folder) for path in inside]
    return [
        name.as_posix()
        for name in names
        if name.as_posix() not in made
        and name.as_posix() != MANIFEST
        and name.name not in NOT_CONTENT
        and not any(part.startswith(".") for part in name.parts)
    ]
