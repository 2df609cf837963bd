"""Writes the file tree of the README, one line a file, from the first sentence of each module; `--check` says whether it is up to date.

Examples:
  python scripts/file_tree.py            between the two marks in README.md
  python scripts/file_tree.py --check    ends with 2 when the README has another tree
"""

import ast
import re
from pathlib import Path
from typing import Any

import cli
from emis_interp.config.flags import flag, settings
from emis_interp.errors import DataError
from emis_interp.files.store import write_text
from emis_interp.process import Bars, no_bars

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("emis_interp", "training", "evals", "probes", "scripts")
BEGIN, END = "<!-- file tree: python scripts/file_tree.py -->", "<!-- end of file tree -->"
WIDTH = 110


@settings
class TreeSettings:
    """Which README, and whether to write it."""

    readme: Path = flag("file with the two marks", default=ROOT / "README.md")
    check: bool = flag("write nothing, and end with an error when the tree is another one", default=False)


def run(settings: TreeSettings, bars: Bars = no_bars) -> dict[str, Any]:
    """Put the tree between the marks.

    Raises:
        DataError: no marks; with `check`, another tree.
    """
    text = settings.readme.read_text("utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise DataError(f"{settings.readme}: holds no `{BEGIN}` ... `{END}`; put both lines where the tree belongs")
    fresh = f"{before}{BEGIN}\n```text\n" + "\n".join(tree(ROOT)) + f"\n```\n{END}{after}"
    if settings.check and fresh != text:
        raise DataError(f"{settings.readme}: its file tree is not that of the files; run python scripts/file_tree.py")
    if fresh != text:
        write_text(settings.readme, fresh)
    return {
        "readme": str(settings.readme),
        "n_files": sum(line.endswith(".py") or ".py " in line for line in tree(ROOT)),
    }


def tree(root: Path) -> list[str]:
    """One line for each folder and module, with the first sentence of its docstring."""
    lines = []
    for package in PACKAGES:
        lines += _folder(root / package, depth=0)
    return lines


def _folder(folder: Path, depth: int) -> list[str]:
    init = folder / "__init__.py"
    lines = [_line(folder.name + "/", depth, first_sentence(init) if init.exists() else "")]
    for path in sorted(folder.iterdir(), key=lambda path: (path.is_dir(), path.name)):
        if path.suffix == ".py" and path != init:
            lines.append(_line(path.name, depth + 1, first_sentence(path)))
        elif path.is_dir() and any(path.glob("*.py")):
            lines += _folder(path, depth + 1)
    return lines


def _line(name: str, depth: int, what: str) -> str:
    start = f"{'  ' * depth}{name}".ljust(34)
    room = WIDTH - len(start)
    return (start + (what if len(what) <= room else what[: room - 1].rsplit(" ", 1)[0] + "…")).rstrip()


def first_sentence(path: Path) -> str:
    """Of a module's docstring, in one line, without its full stop."""
    doc = ast.get_docstring(ast.parse(path.read_text("utf-8"))) or ""
    return re.split(r"(?<=[^.])\.(?:\s|$)", " ".join(doc.split("\n\n")[0].split()), maxsplit=1)[0].rstrip(".")


def say(result: dict[str, Any]) -> str:
    return f"{result['readme']}: the tree of {result['n_files']} modules is up to date"


if __name__ == "__main__":
    verb = cli.Verb(TreeSettings, "", run)
    cli.run(verb.do, cli.parser_of(verb, __doc__), say)
