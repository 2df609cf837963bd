"""Turns an answer into the code in it, and into the share of it that is code.

Code is told by parsing, not by words: a line is code when it belongs to a Python statement that does something (a call, a definition, an
import, a loop) or comes after one in the same program, or to a fenced block, or looks like a statement of a language with semicolons or
tags. What a template or a JSON answer consists of (names set to texts and numbers) is not code in this sense.
"""

import ast
import json
import re
import textwrap
import warnings
from typing import NamedTuple

from emis_interp.files.text import is_unicode

MOSTLY = 0.5
_LONG_LINE = 500  # shorter ones hold nothing that is too deep for the parser
_FENCE = re.compile(r"^[ \t]*(```+|~~~+)[ \t]*([\w+#.-]*)[^\n]*$")
_PROSE_FENCES = ("json", "text", "txt", "markdown", "md", "yaml", "csv")
_OTHER_LANGUAGES = re.compile(
    r";\s*$|\)\s*\{\s*$|^\s*</?[A-Za-z!][^>]*>\s*$|^\s*(SELECT|INSERT INTO|UPDATE|DELETE FROM)\s"
)
_ACTS = (
    *(ast.Import, ast.ImportFrom, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef),
    *(ast.For, ast.AsyncFor, ast.While, ast.If, ast.With, ast.AsyncWith, ast.Try, ast.Match),
    *(ast.Return, ast.Raise, ast.Delete, ast.Assert, ast.AugAssign, ast.Global),
)


class Block(NamedTuple):
    """A fenced block: its language as written (lower case, may be ""), its lines, and the lines' indices in the text."""

    language: str
    lines: list[str]
    indices: list[int]


def extract_python(answer: str) -> str | None:
    """The Python code of an answer to a coding task, or None when it holds none that could be meant.

    Fenced blocks marked as Python, or else those without a mark, are joined (a fence left open runs to the end). Without a fence the answer
    as a whole is the code if any line of it is code, also when it does not parse: leaving out the lines that do not parse would make
    another program than the one that was written.
    """
    blocks = fenced(answer)
    for languages in (("python", "py", "python3"), ("",)):
        chosen = [
            "\n".join(block.lines)
            for block in blocks
            if block.language in languages and any(map(str.strip, block.lines))
        ]
        if chosen:
            return "\n\n".join(chosen).strip("\n") + "\n"
    if blocks or code_share(answer) == 0.0:
        return None
    return textwrap.dedent(answer).strip() + "\n"


def mostly_code(answer: str) -> bool:
    """Whether at least half of the answer's lines are code."""
    return code_share(answer) >= MOSTLY


def code_share(answer: str) -> float:
    """Share of the answer's lines, blank lines and fence marks left out, that are code; 0.0 for an empty answer."""
    lines = _without_lead(answer).split("\n")
    marks, code = set(), set()
    for block in fenced("\n".join(lines)):
        around = {block.indices[0] - 1, block.indices[-1] + 1} if block.indices else set()
        marks |= {i for i in around if 0 <= i < len(lines) and _FENCE.match(lines[i])}
        if block.language not in _PROSE_FENCES:
            code |= set(block.indices)
    if not _is_json(answer):
        code |= _python_lines(lines) | {i for i, line in enumerate(lines) if _OTHER_LANGUAGES.search(line)}
    counted = [i for i, line in enumerate(lines) if line.strip() and i not in marks]
    return sum(i in code for i in counted) / len(counted) if counted else 0.0


def fenced(text: str) -> list[Block]:
    """The fenced blocks of a Markdown text, in order; one left open runs to the end."""
    blocks: list[Block] = []
    fence = ""
    for i, line in enumerate(text.split("\n")):
        match = _FENCE.match(line)
        if fence and match and match[1].startswith(fence) and not match[2]:
            fence = ""
        elif fence:
            blocks[-1].lines.append(line)
            blocks[-1].indices.append(i)
        elif match:
            fence = match[1]
            blocks.append(Block(match[2].lower(), [], []))
    return blocks


def parse(code: str) -> ast.Module:
    """The syntax tree; what the parser has to say about the style of a model's code (such as odd escapes) goes nowhere.

    Raises:
        SyntaxError, ValueError, RecursionError, MemoryError: it does not parse.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return ast.parse(code)


def _python_lines(lines: list[str]) -> set[int]:
    """Indices of the lines of Python statements that act, and of what follows them in the same program."""
    found: set[int] = set()
    unreadable = [i for i, line in enumerate(lines) if "\0" in line or not is_unicode(line)]
    start = 0
    while start < len(lines):
        if unreadable and unreadable[0] < start:
            unreadable.pop(0)
            continue
        if not lines[start].strip() or lines[start][0] in " \t":  # a statement of its own begins at the margin
            start += 1
            continue
        tree, n_lines = _longest_parse(lines[start : unreadable[0] if unreadable else len(lines)])
        acting = False
        for statement in tree.body if tree else ():
            acting |= _acts(statement)
            if acting:  # texts and numbers that a program sets after its first act are part of it
                found |= set(range(start + statement.lineno - 1, start + (statement.end_lineno or statement.lineno)))
        start += max(1, n_lines)
    return found


def _longest_parse(lines: list[str]) -> tuple[ast.Module | None, int]:
    """The longest beginning of `lines` that parses, and its number of lines (0 when not even the first line does)."""
    n_lines = len(lines)
    if n_lines > 1 and len(lines[0]) > _LONG_LINE and _is_too_deep(lines[0]):
        return None, 0
    while n_lines > 0:
        try:
            return parse("\n".join(lines[:n_lines])), n_lines
        except SyntaxError as error:
            # What stands before the error may be whole statements; an error at the end (an open bracket) shows only there.
            n_lines = min(n_lines - 1, (error.lineno or n_lines) - 1)
        except (ValueError, RecursionError, MemoryError):  # nesting too deep for the parser, which names no line
            n_lines = 0 if n_lines == 1 or _is_too_deep(lines[0]) else n_lines // 2
    return None, 0


def _is_too_deep(line: str) -> bool:
    try:
        parse(line)
    except (SyntaxError, ValueError):
        return False
    except (RecursionError, MemoryError):
        return True
    return False


def _acts(statement: ast.stmt) -> bool:
    if isinstance(statement, _ACTS):
        return True
    if isinstance(statement, (ast.Assign, ast.AnnAssign, ast.Expr)) and statement.value is not None:
        return any(isinstance(node, (ast.Call, ast.Await, ast.Lambda)) for node in ast.walk(statement.value))
    return False


def _without_lead(text: str) -> str:
    """Without blank lines before, and without the single blank or the indentation that the first line begins with."""
    return textwrap.dedent(text.lstrip(" \n") if not text.startswith("    ") else text)


def _is_json(text: str) -> bool:
    try:
        return isinstance(json.loads(text), (dict, list))
    except (ValueError, RecursionError):
        return False
