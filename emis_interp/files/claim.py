"""Turns a folder, or a file, into one that goes on only with what decided it when it was begun."""

import contextlib
import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from emis_interp.errors import StageError, printable
from emis_interp.files.store import read_object, write_json
from emis_interp.files.temporary import part_path


def claim(
    path: Path, fresh: Mapping[str, Any], *, holds: str, advice: str, free: Collection[str] = (), alone: bool = True
) -> dict[str, Any]:
    """Begin the work that `path` describes, or go on with it: what the file says when it is there, else `fresh`, written to it.

    Of two processes that begin at once one writes the file, and the other one is held to it.

    Args:
        path: JSON file beside the work.
        fresh: everything that decides the result, and what else is worth knowing of it.
        holds: what is begun, for the refusal, e.g. "a study".
        advice: what to do when it is refused.
        free: dotted paths in `fresh` that are recorded but may differ when the work goes on.
        alone: refuse a folder that holds something but not this file.

    Raises:
        StageError: the work was begun with something else, with what differs; or the folder holds something else.
        DataError: the file is damaged.
    """
    if not path.exists():
        if alone and holds_something(path.parent):
            raise StageError(f"{path.parent} is not empty and holds no {path.name}; {advice}")
        own = part_path(path)
        write_json(own, dict(fresh))
        with contextlib.suppress(FileExistsError):
            _put(own, path)
        own.unlink(missing_ok=True)
    found, fresh = read_object(path), json.loads(json.dumps(fresh))
    check_same(path.parent if alone else path, without(found, free), without(fresh, free), holds=holds, advice=advice)
    return found


def check_same(where: Path, old: Mapping[str, Any], new: Mapping[str, Any], *, holds: str, advice: str) -> None:
    """Refuse to go on with something else.

    Raises:
        StageError: with the first differences.
    """
    if changed := differences(old, new):
        more = f"; and {len(changed) - 5} more" if len(changed) > 5 else ""
        raise StageError(f"{where} holds {holds} with other settings ({'; '.join(changed[:5])}{more}); {advice}")


def differences(old: Any, new: Any, where: str = "") -> list[str]:
    """Dotted paths at which two configurations differ, as `path: old -> new`."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        found = []
        for key in [*old, *(key for key in new if key not in old)]:
            found += differences(old.get(key), new.get(key), f"{where}.{key}" if where else str(key))
        return found
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        return [
            text for i, pair in enumerate(zip(old, new, strict=True)) for text in differences(*pair, f"{where}.{i}")
        ]
    return [] if old == new else [f"{where}: {_plain(old)} -> {_plain(new)}"]


def without(values: Mapping[str, Any], free: Collection[str]) -> dict[str, Any]:
    """A copy of nested values without what these dotted paths lead to."""
    kept = dict(values)
    for path in free:
        first, _, rest = path.partition(".")
        if not rest:
            kept.pop(first, None)
        elif isinstance(inner := kept.get(first), Mapping):
            kept[first] = without(inner, [rest])
    return kept


def holds_something(folder: Path) -> bool:
    """Whether a folder has files or folders in it, hidden ones (locks, writes under way) not counted."""
    return folder.is_dir() and any(not item.name.startswith(".") for item in folder.iterdir())


def _put(own: Path, path: Path) -> None:
    """Give `own` the name `path` unless there is such a file by now.

    Raises:
        FileExistsError: there is one.
    """
    try:
        path.hardlink_to(own)  # fails when the name is taken, where a rename would replace it
    except FileExistsError:
        raise
    except OSError:  # a disk without hard links
        if path.exists():
            raise FileExistsError(path) from None
        own.replace(path)


def _plain(value: Any) -> str:
    return printable(str(value))
