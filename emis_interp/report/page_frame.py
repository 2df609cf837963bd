"""Turns the place of a page into what stands around it: the command that made it, its numbers, and the pages beside it.

Every page of the family includes `family.html`, which shows a `Frame`. Links are relative and lead to files that were there when the page
was written; no path of the machine stands on a page.
"""

import html
import os
import re
import shlex
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

from emis_interp.config.flags import words_of
from emis_interp.files.text import without_credentials, written_out

MANIFEST = "manifest.json"
MARK = '<meta name="generator" content="emis_interp">'
"""In the head of every page of the family; a page without it is not ours, and is not linked."""
_HEAD_BYTES = 16384
_DEEPEST = 3
"""So many folders below a run's may a page lie."""
_HEIGHT = 4
"""So many folders above a page may its run's folder be."""
_MOST_LINKS = 12
_MOST_PARTS = 4
"""Of a path of the machine, where fewer do not tell two of them apart."""
_MOST_CHARACTERS = 80
_NO_PAGES = {"activations", "adapter", "samples", "scores", "likelihood", "choices", "checks", "interventions"}
"""Folders of a run that hold no pages, and may hold very many files."""
_TITLE = re.compile(r"<title>([^<]*)</title>")
_MACHINE_PATH = re.compile(r"(?<![\w.:/~-])(?:~|/[\w.@+~-]+)(?:/[\w.@+~-]+)*/([\w.@+~-]+)")


@dataclass(frozen=True)
class PageLink:
    """`href` is relative to the page that has it."""

    href: str
    text: str


@dataclass(frozen=True)
class Frame:
    """What stands around a page; `n_more`: pages beside it that are not listed."""

    command: str = ""
    links: tuple[PageLink, ...] = ()
    n_more: int = 0
    numbers: tuple[PageLink, ...] = ()


def frame_of(page: Path, command: str = "", *numbers: Path) -> Frame:
    """The frame of a page that will be written to `page`.

    Args:
        command: as `command_of` says it.
        numbers: files with the numbers of the page, written by the same command.
    """
    found = list(pages_beside(page))
    links = tuple(PageLink(link_to(path, page), title) for path, title in found[:_MOST_LINKS])
    files = tuple(PageLink(link_to(path, page), path.name) for path in numbers)
    return Frame(command, links, max(0, len(found) - _MOST_LINKS), files)


def command_of(script: str, settings: Any) -> str:
    """The command line that fills these settings, as it may stand on a page: paths of the machine by their last part.

    Args:
        script: with its verb, `scripts/find_direction.py fit`.
    """
    words = [shlex.quote(written_out(word)) for word in words_of(settings)]
    return without_credentials(" ".join(["python", script, *told_apart(words)]))


def without_machine_paths(text: str) -> str:
    """The text with `…/name` in the place of every absolute path: where things lie on one machine is nobody else's business."""
    return _MACHINE_PATH.sub(r"…/\1", text)


def told_apart(texts: Sequence[str]) -> list[str]:
    """`without_machine_paths` of each; where that makes one text of several, paths keep as many further parts as tell these apart."""
    found = [without_machine_paths(text) for text in texts]
    for n_parts in range(2, _MOST_PARTS + 1):
        of = defaultdict[str, set[str]](set)
        for text, shown in zip(texts, found, strict=True):
            of[shown].add(text)
        found = [
            shown if len(of[shown]) == 1 else _MACHINE_PATH.sub(partial(_last_parts, n_parts), text)
            for text, shown in zip(texts, found, strict=True)
        ]
    return found


def _last_parts(n_parts: int, path: re.Match[str]) -> str:
    _, *below = path[0].split("/")
    return "…/" + "/".join(below[1:][-n_parts:] or below)


def shown_facts(facts: Mapping[str, object]) -> dict[str, str]:
    """Facts as texts without paths of the machine."""
    return dict(zip(facts, told_apart([str(value) for value in facts.values()]), strict=True))


def link_to(path: Path, page: Path) -> str:
    """The relative address of a file for a page; characters with a meaning in addresses are escaped."""
    relative = os.path.relpath(path.resolve(), page.resolve().parent)
    return quote(Path(relative).as_posix().encode("utf-8", "surrogateescape"))


def run_of(page: Path) -> Path | None:
    """The folder of the run that a page lies in."""
    above = page.resolve().parents[:_HEIGHT]
    return next((folder for folder in above if (folder / MANIFEST).is_file()), None)


def pages_beside(page: Path) -> Iterator[tuple[Path, str]]:
    """Other pages of the family with their titles: the list of runs, those of the same run (its report first), and those beside its folder.

    For a page outside of runs: those in its folder, and those beside that.
    """
    run, own = run_of(page), page.resolve()
    if run is not None:
        paths = [
            run.parent / "index.html",
            run / "report" / "index.html",
            *_pages_below(run, _DEEPEST),
            *_pages_below(run.parent, 0),
        ]
    else:
        paths = [own.parent.parent / "index.html", *_pages_below(own.parent, 1), *_pages_below(own.parent.parent, 0)]
    for path in dict.fromkeys(paths):
        title = None if path == own else page_title(path)
        if title is not None:
            yield path, title


def page_title(path: Path) -> str | None:
    """The title of a page of the family; None for any other file, or none."""
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES).decode("utf-8", "replace")
    except OSError:
        return None  # gone since it was listed, or not ours to read: then it is not linked
    found = _TITLE.search(head)
    if found is None or MARK not in head:
        return None
    title = html.unescape(found[1])
    return title if len(title) <= _MOST_CHARACTERS else title[: _MOST_CHARACTERS - 1] + "…"


def _pages_below(folder: Path, depth: int) -> Iterable[Path]:
    """HTML files of a folder in the order of their names, then those of its folders; hidden ones and links left out."""
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError:
        return
    kept = [entry for entry in entries if not entry.name.startswith(".") and not entry.is_symlink()]
    yield from (Path(entry.path) for entry in kept if entry.name.endswith(".html") and entry.is_file())
    for entry in kept if depth else ():
        if entry.is_dir() and entry.name not in _NO_PAGES:
            yield from _pages_below(Path(entry.path), depth - 1)


def folder_name(folder: Path, others: Sequence[Path] = ()) -> str:
    """A run folder's name; with its parent's where another one is called the same."""
    own = folder.resolve()
    alike = [other for other in others if other.resolve() != own and other.resolve().name == own.name]
    return written_out(f"{own.parent.name}/{own.name}" if alike else own.name)


def minute(stamp: str | None) -> str:
    """`2026-11-29 22:36`, as the stamp's own time zone has it."""
    return "–" if not stamp else stamp[:16].replace("T", " ")
