"""The python blocks of a guide, run in their order in one process, and what they print beside what the guide says that they print."""

import contextlib
import io
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FENCED = re.compile(r"^```python\n(.*?)^```\n(?:\n```output\n(.*?)^```$)?", re.S | re.M)
NUMBER = re.compile(r"[-+]?\d+\.\d+")


@dataclass(frozen=True)
class Block:
    """A block of code at a line of its guide; `output` is what the guide shows below it, where it promises any."""

    where: str
    code: str
    output: str | None


def python_blocks(guide: Path) -> list[Block]:
    text = guide.read_text("utf-8")
    return [
        Block(f"{guide.name}:{text[: found.start()].count(chr(10)) + 2}", found[1], found[2])
        for found in FENCED.finditer(text)
    ]


def run_block(block: Block, names: dict[str, Any]) -> str:
    """What the block prints; names that it binds stay in `names`."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        exec(compile(block.code, block.where, "exec"), names)
    return said.getvalue()


def differences(block: Block, said: str, *, absolute: float, relative: float) -> list[str]:
    """Lines whose words differ from the guide's, or a number with a decimal point by more than the tolerance."""
    if block.output is None:
        return []
    found, stated = said.splitlines(), block.output.splitlines()
    if len(found) != len(stated):
        return [f"{block.where} printed {len(found)} lines, the guide has {len(stated)}:\n{said}"]
    return [
        f"{block.where} printed `{ours}`, the guide has `{theirs}`"
        for ours, theirs in zip(found, stated, strict=True)
        if not _same(ours, theirs, absolute, relative=relative)
    ]


def _same(ours: str, theirs: str, absolute: float, *, relative: float) -> bool:
    numbers = [list(map(float, NUMBER.findall(line))) for line in (ours, theirs)]
    return NUMBER.sub("#", ours) == NUMBER.sub("#", theirs) and all(
        abs(a - b) <= absolute + relative * abs(b) for a, b in zip(*numbers, strict=True)
    )
