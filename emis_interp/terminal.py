"""Turns what a command says while it works into lines for a person: a moving picture in a terminal, plain lines everywhere else.

In a terminal lines are broken between words, and what is under way stands below them. In a file, a pipe or a terminal that cannot move its
cursor there is one line of progress a minute, without control characters.
"""

import contextlib
import io
import logging
import os
import re
import shutil
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TextIO

from rich.cells import cell_len
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from emis_interp.process import Advance, is_main_process
from emis_interp.progress import OpenBar, OpenBars, clock, time_left

EVERY_S = 60.0
"""Between two lines of progress where there is no moving picture."""
WIDEST_BAR, NARROWEST_BAR = 30, 8
INDENT = 2
HARD_SPACE = "\u00a0"


class Terminal:
    """Standard error as a command writes on it.

    Args:
        console: where to; a terminal or a file.
        now: seconds that never run backwards.
        ticking: write the lines of progress by the clock; without it `tick` has to be called.
    """

    def __init__(
        self, console: Console | None = None, *, now: Callable[[], float] = time.monotonic, ticking: bool = True
    ) -> None:
        self.console = Console(stderr=True, highlight=False) if console is None else console
        self._now, self._ticking = now, ticking
        self._open = OpenBars()
        self._live: Live | None = None
        self._due: float | None = None
        self._closed = threading.Event()

    @property
    def moves(self) -> bool:
        """Whether lines can be written over: not where FORCE_COLOR or the like merely asks for colours in a file."""
        return self.console.is_terminal and not self.console.is_dumb_terminal and self.console.file.isatty()

    @property
    def width(self) -> int | None:
        """Columns; None where lines may have any length."""
        if not (self.console.is_terminal and self.console.file.isatty()):
            return None
        with contextlib.suppress(OSError):  # rich takes every dumb terminal for one of 80 columns
            if self.console.is_dumb_terminal:
                return os.get_terminal_size(self.console.file.fileno()).columns or self.console.width
        return self.console.width

    def say(self, text: str, *, hanging: int = INDENT, style: str = "") -> None:
        """Write lines, broken between words where there is a width; what follows in a paragraph is indented by `hanging`."""
        said = fitted(without_controls(text), self.width, hanging)
        with contextlib.suppress(OSError):  # the terminal may be closed
            self.console.print(Text(said, style), soft_wrap=True)

    @contextmanager
    def bar(self, name: str, total: int, work: Sequence[float] | None = None) -> Iterator[Advance]:
        """Shows one thing that is counted; a bar within it is a part of its item (`process.Bars`)."""
        bar = self._open.open(without_controls(name), total, self._now(), work=work)

        def advance(n: int = 1, note: str | None = None) -> None:
            if note is not None:
                bar.note, bar.names_items = without_controls(note), not n
            if n:
                bar.advance(n, self._now())

        self._begin()
        try:
            yield advance
        finally:
            self._open.close(bar)
            if not self._open.bars:
                self.close()

    def tick(self) -> None:
        """Write a line of progress if one is due."""
        if self._due is not None and self._now() >= self._due and self._open.bars:
            self._due = self._now() + EVERY_S
            self.say(self._open.line(self._now()))

    def close(self) -> None:
        """Take the moving picture away; it comes back with the next bar."""
        live, self._live = self._live, None
        self._closed.set()
        if live is not None:
            with contextlib.suppress(OSError):
                live.stop()

    def _begin(self) -> None:
        if not is_main_process():
            return
        if not self.moves:
            if self._due is None:
                self._due = self._now() + EVERY_S
            if self._ticking and (self._closed.is_set() or len(self._open.bars) == 1):
                self._closed = threading.Event()
                threading.Thread(target=self._tick_until, args=(self._closed,), daemon=True, name="progress").start()
        elif self._live is None:
            self._live = live = Live(
                console=self.console,
                get_renderable=self._picture,
                transient=True,
                refresh_per_second=4,
                redirect_stdout=False,
            )
            live.start()
            # Who is killed cannot bring the cursor back.
            self.console.show_cursor(True)

    def _tick_until(self, closed: threading.Event) -> None:
        while not closed.wait(1.0):
            self.tick()

    def _picture(self) -> RenderableType:
        """Where the command is, and the innermost bar."""
        # Where Ctrl-C is echoed (`^C`) a full line would run over, and stay.
        bars, now, width = self._open.bars, self._now(), self.console.width - 2
        if not bars:
            return Text()
        seconds, places = self._open.seconds_left(now), self._open.places()
        if not places:
            return Group(*bar_lines(bars[-1], now, time_left(seconds), width=width - 1))
        parts = [*places, f"{clock(now - bars[0].begun)} so far", time_left(seconds)]
        inner = None if bars[-1].is_loop else bars[-1].seconds_left(now)
        left = "" if inner is None else time_left(inner)
        return Group(Text(in_parts(parts, width - 1), style="dim"), *bar_lines(bars[-1], now, left, width=width - 1))


def bar_lines(bar: OpenBar, now: float, left: str, *, width: int) -> list[RenderableType]:
    """A bar of at most `width` columns: first the drawing gives way, then what is said stands on lines of its own."""
    count, note = f"{bar.done}/{bar.total}", "" if bar.is_loop else bar.note
    times = ", ".join(text for text in (clock(now - bar.begun), left) if text)
    head, tail = f"{' ' * INDENT}{bar.name}", f"{count}  {times}"
    room = width - cell_len(head) - cell_len(tail) - 4
    if room < NARROWEST_BAR:
        words = "  ".join(text for text in (head, tail, note) if text)
        return [Text(fitted(words, width, 2 * INDENT))]
    drawn = min(room, WIDEST_BAR)
    fits = note and cell_len(note) + 2 <= room - drawn
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_row(
        Text(head, no_wrap=True),
        ProgressBar(total=max(bar.total, 1), completed=bar.done, width=drawn),
        Text(f"{tail}  {note}" if fits else tail, no_wrap=True),
    )
    return [table] if fits or not note else [table, Text(fitted(" " * 2 * INDENT + note, width, 2 * INDENT))]


def in_parts(parts: Sequence[str], width: int) -> str:
    """Parts joined by commas, a line broken between them rather than within one."""
    whole = [part if cell_len(part) > width - 2 * INDENT else part.replace(" ", HARD_SPACE) for part in parts]
    return fitted(", ".join(whole), width).replace(HARD_SPACE, " ")


def fitted(text: str, width: int | None, hanging: int = INDENT) -> str:
    """The text with its lines broken between words; what is longer than a line, a path say, stays whole on a line of its own.

    Args:
        width: columns; None leaves the text as it is.
        hanging: columns by which lines that go on are indented, beyond the first line's own indent; less in narrow terminals.
    """
    if width is None:
        return text
    return "\n".join(_broken(line, width, hanging) for line in text.split("\n"))


def as_command(text: str, width: int | None) -> str:
    """A command, its lines broken between words so that it can be pasted into a shell; a flag keeps its first value beside it."""
    if "'" in text or width is None:
        return text
    pairs = re.sub(r"(?<= )(-\S+) (?=[^-\s])", rf"\1{HARD_SPACE}", text)
    return fitted(pairs, width - 2, 2 * INDENT).replace(HARD_SPACE, " ").replace("\n", " \\\n")


def _broken(line: str, width: int, hanging: int) -> str:
    if cell_len(line) <= width:
        return line
    own = len(line) - len(line.lstrip(" "))
    further = " " * (hanging if hanging <= width // 3 else INDENT * 2)
    lines, rest = [], ""
    for word in _words(line[own:]):
        if rest.strip() and cell_len(rest + word.rstrip()) > width:
            lines.append(rest.rstrip())
            rest = further + word
        else:
            rest += word if lines or rest else " " * own + word
    return "\n".join([*lines, rest.rstrip()])


def _words(line: str) -> Iterator[str]:
    """Words with the spaces behind them."""
    begun = 0
    for i in range(1, len(line)):
        if line[i - 1] == " " and line[i] != " ":
            yield line[begun:i]
            begun = i
    yield line[begun:]


def without_controls(text: str) -> str:
    """What a name or a message cannot do to a terminal or a log: no escape, no carriage return; lines stay lines."""
    return "".join(c if c.isprintable() or c == "\n" else " " if c in "\t\r" else "" for c in text)


class TerminalHandler(logging.Handler):
    """Log messages above the moving picture."""

    def __init__(self, terminal: Terminal) -> None:
        super().__init__()
        self._terminal = terminal

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._terminal.say(self.format(record))
        except Exception:
            self.handleError(record)


def log_to(terminal: Terminal, verbose: bool = False) -> None:
    """Our messages on standard error, the libraries' only when they are warnings."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=[TerminalHandler(terminal)])
    for name in ("emis_interp", "training", "evals", "probes"):
        logging.getLogger(name).setLevel(logging.DEBUG if verbose else logging.INFO)
    if not verbose:
        os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
        warnings.filterwarnings("ignore", category=FutureWarning)
        warnings.filterwarnings("ignore", message=".*pin_memory.*")


def put(text: str) -> None:
    """Write a result on standard output. A reader that has left (`| head -1`) has what it wanted; what its encoding lacks is escaped."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        # What is left in the buffer goes there at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def width_of(stream: TextIO) -> int | None:
    """Columns of a stream; None where it is no terminal."""
    return shutil.get_terminal_size().columns if stream.isatty() else None
