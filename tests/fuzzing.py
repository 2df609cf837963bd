"""Turns valid input of a parser into damaged and hostile input, and holds the parser to its promise: a value, or our own error in one short
line that names the file, within its time.

Seeds are damaged byte by byte, and reshaped where they are JSON or YAML. `EMIS_FUZZ_EXAMPLES` sets how many examples each parser gets under
`-m fuzz` (`make fuzz N=...`).
"""

import copy
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from emis_interp.errors import EmisError

SECONDS, LONGEST = 20, 3000
"""One input may take so long of a core, and its error may have so many characters."""


@dataclass(frozen=True)
class Parser:
    """`read(path)` of a file called `name`; `beside` are files that have to be there too, `json` says that seeds are JSON values."""

    name: str
    read: Callable[[Path], object]
    seeds: tuple[Any, ...]
    kind: str = "bytes"
    beside: dict[str, bytes] = field(default_factory=dict)


AT_LENGTH = int(os.environ.get("EMIS_FUZZ_EXAMPLES", "2000"))


def lines(*values: Any) -> bytes:
    return "".join(json.dumps(value) + "\n" for value in values).encode()


SPICES = [
    *(
        b"NaN",
        b"Infinity",
        b"1e400",
        b"9" * 5000,
        b"-1",
        b"0.5",
        b"null",
        b"true",
        b"no",
        b"1" * 25,
        b"[" * 1500,
        b"{" * 1500,
    ),
    *(
        b'{"a":' * 300,
        b"- " * 300,
        b'"\\ud800"',
        b"\\u0000",
        b"\xff",
        b"\xc3",
        b"\0",
        b"\xef\xbb\xbf",
        b"\xff\xfe",
        b'"',
        b"'",
        b"{",
        b"}",
    ),
    *(
        b"[",
        b"]",
        b",",
        b":",
        b"\n",
        b"\r",
        b"\r\n",
        b"\t",
        b" ",
        b"\n  ",
        b": ",
        b"- ",
        b"#",
        b"&a ",
        b"*a",
        b"<<: *a\n",
        b"? ",
        b"|\n",
    ),
    *(
        b"!!python/object/apply:os.getcwd []",
        b"---\n",
        b"%YAML 3\n",
        b'"\\UFFFFFFFF"',
        b"\xe2\x80\xa8",
        b"\xf0\x9f\x98\x80",
        b"\\",
        b"../",
    ),
]
NUMBERS = st.one_of(
    st.integers(), st.integers(-3, 3), st.floats(), st.sampled_from([10**30, -(10**400), 2**63, 1e308, -0.0, 101, 1.5])
)
TEXTS = st.one_of(
    st.text(max_size=12),
    st.sampled_from(["", " ", "no", "1e-4", "nan", "\ud800", "\0", "a\nb", "x" * 5000, "{answer}", "007"]),
)
SCALARS = st.one_of(st.none(), st.booleans(), NUMBERS, TEXTS)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4), max_leaves=8
)


@st.composite
def damaged(draw: st.DrawFn, content: bytes) -> bytes:
    """A few cuts, repetitions and insertions anywhere."""
    for _ in range(draw(st.integers(0, 4))):
        start = draw(st.integers(0, len(content)))
        end = draw(st.integers(start, min(len(content), start + 12)))
        piece = draw(st.one_of(st.sampled_from(SPICES), st.binary(max_size=6), st.just(content[start:end] * 2)))
        content = content[:start] + piece + content[end:]
    if draw(st.integers(0, 9)) == 0:
        content = content[: draw(st.integers(0, len(content)))]
    return content


@st.composite
def reshaped(draw: st.DrawFn, value: Any) -> Any:
    """The value with some of its parts replaced, taken away or doubled."""
    value = copy.deepcopy(value)
    for _ in range(draw(st.integers(0, 3))):
        holder: Any = None
        key: Any = None
        inner = value
        while isinstance(inner, dict | list) and inner and (holder is None or draw(st.integers(0, 3))):
            holder, key = inner, draw(st.sampled_from(sorted(inner) if isinstance(inner, dict) else range(len(inner))))
            inner = holder[key]
        if holder is None:
            value = draw(VALUES)
            continue
        action = draw(st.sampled_from(["replace", "replace", "drop", "add"]))
        if action == "replace":
            holder[key] = draw(VALUES)
        elif action == "drop":
            del holder[key]
        elif isinstance(holder, dict):
            holder[draw(TEXTS)] = draw(VALUES)
        else:
            holder.insert(key, copy.deepcopy(inner))
    return value


@st.composite
def inputs(draw: st.DrawFn, parser: Parser) -> bytes:
    seed = draw(st.sampled_from(parser.seeds))
    if parser.kind == "bytes":
        return draw(damaged(seed))
    value = draw(reshaped(seed))
    if parser.kind == "yaml" and draw(st.booleans()):
        text = yaml.dump(value, allow_unicode=True, sort_keys=False).encode("utf-8", "surrogatepass")
    else:
        text = json.dumps(value, ensure_ascii=draw(st.booleans())).encode("utf-8", "surrogatepass")
    if parser.name.endswith("l"):
        text = lines(*[seed] * draw(st.integers(0, 1))) + text + b"\n"
    return draw(damaged(text)) if draw(st.booleans()) else text


@contextmanager
def laid_out(parser: Parser, content: bytes) -> Iterator[Path]:
    """The folder in which the parser's file has this content, with those that have to be beside it."""
    with tempfile.TemporaryDirectory() as folder:
        for name, other in {**parser.beside, parser.name: content}.items():
            (Path(folder) / name).parent.mkdir(parents=True, exist_ok=True)
            (Path(folder) / name).write_bytes(other)
        yield Path(folder)


def check(parser: Parser, content: bytes) -> None:
    """A value or our own error, in one short line that names the file, within the time."""
    with laid_out(parser, content) as folder:
        check_call(lambda: parser.read(folder / parser.name), str(folder))


def check_call(call: Callable[[], object], named: str) -> None:
    started = time.process_time()
    try:
        call()
    except EmisError as error:
        said = str(error)
        assert named in said, said
        assert "\n" not in said and len(said) < LONGEST, said[:500]
    assert time.process_time() - started < SECONDS


def profile(n: int, fixed: bool) -> settings:
    phases = [Phase.explicit, Phase.generate] if fixed else [Phase.explicit, Phase.generate, Phase.shrink]
    quiet = [
        HealthCheck.too_slow,
        HealthCheck.data_too_large,
        HealthCheck.filter_too_much,
        HealthCheck.function_scoped_fixture,
    ]
    return settings(
        max_examples=n, deadline=None, derandomize=fixed, database=None, suppress_health_check=quiet, phases=phases
    )


def run(parser: Parser, how: settings) -> None:
    @how
    @given(content=inputs(parser))
    def one(content: bytes) -> None:
        check(parser, content)

    one()
