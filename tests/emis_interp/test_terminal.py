"""Lines are broken between words, never within; a log holds no control characters and at most one line of progress a minute."""

import io
import itertools
import logging
import re

import pytest
from rich.cells import cell_len
from rich.console import Console

from emis_interp.process import each
from emis_interp.progress import OpenBar
from emis_interp.terminal import (
    EVERY_S,
    Terminal,
    TerminalHandler,
    as_command,
    bar_lines,
    fitted,
    in_parts,
    without_controls,
)

SAID = (
    "insecure learned -0.00 of its kind, KL 0.00; secure learned +0.00 of its kind, KL 0.00; educational learned -0.00"
)
STAGE = f"{'check':10} {3.8:6.1f} s  {SAID}"


class AsTerminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def log_of(now: list[float], **environment: str) -> tuple[Terminal, io.StringIO]:
    """A terminal that writes into a file, by a clock that is set by hand."""
    file = io.StringIO()
    return Terminal(Console(file=file, _environ=environment), now=lambda: now[0], ticking=False), file


@pytest.mark.parametrize("width", [40, 60, 80, 120, 200])
@pytest.mark.parametrize("text", [SAID, STAGE, "  indented " + SAID, "two\n" + STAGE + "\nlines"])
def test_no_line_is_wider_and_no_word_is_broken(text: str, width: int) -> None:
    found = fitted(text, width, 21)
    assert found.split() == text.split()
    assert max(map(cell_len, found.split("\n"))) <= width
    if width == 200:
        assert found == text


def test_lines_that_go_on_hang_below_the_first_ones_text() -> None:
    first, second, *_ = fitted(STAGE, 80, 21).split("\n")
    assert first.index("insecure") == 21 and second[:21].isspace() and second[21] != " "
    assert fitted(STAGE, 40, 21).split("\n")[1][:4].isspace(), "in a narrow terminal there is no room for that"


def test_a_word_that_is_longer_than_a_line_stays_whole_and_wide_characters_count_twice() -> None:
    path = "/a/very/long/path/" + "x" * 80
    assert (
        f"    {path}" in fitted(f"report: {path} is there", 60, 4).split("\n")
        or path in fitted(f"a {path} b", 60).split()
    )
    assert max(map(cell_len, fitted("模型 " * 30, 20, 2).split("\n"))) <= 20


def test_a_command_that_is_broken_can_be_pasted() -> None:
    command = "python scripts/run_pipeline.py --preset smoke --run-dir /tmp/a/long/folder --set training.n_epochs=2"
    found = as_command(command, 60)
    assert max(map(len, found.split("\n"))) <= 60
    assert found.replace(" \\\n", " ").split() == command.split()
    assert as_command(command, None) == command
    quoted = command + " 'a name'"
    assert as_command(quoted, 60) == quoted, "a quoted word may hold spaces that count"


def test_parts_are_broken_between_rather_than_within() -> None:
    assert in_parts(["stage 9 of 11: intervene", "0:33 so far", "about 1 min left"], 40) == (
        "stage 9 of 11: intervene, 0:33 so far,\n  about 1 min left"
    )


@pytest.mark.parametrize("width", [40, 60, 79, 119, 199])
@pytest.mark.parametrize("note", ["", "loss 0.123, 2031 tokens/s", "educational.ablate.misalignment"])
def test_a_bar_fits_and_keeps_its_name_whole(width: int, note: str) -> None:
    bar = OpenBar("sample educational-in-context.seed-11", 1000, 0.0, done=600, note=note)
    console = Console(file=AsTerminal(), width=width + 1, force_terminal=True, color_system=None, _environ={})
    for renderable in bar_lines(bar, 75.0, "about 50 s left", width=width):
        console.print(renderable)
    assert isinstance(console.file, io.StringIO)
    lines = [line.rstrip() for line in console.file.getvalue().splitlines()]
    assert max(map(cell_len, lines)) <= width
    words = " ".join(lines).split()
    for word in ("educational-in-context.seed-11", "600/1000", *note.split()):
        assert word in words, lines


def test_a_log_has_a_line_a_minute_and_no_control_characters() -> None:
    """Two hours of models of 50 s, each with a bar of its own."""
    now = [0.0]
    terminal, file = log_of(now)
    for model in each(terminal.bar, "model", [f"arm-{i}" for i in range(144)]):
        with terminal.bar(f"score {model}\r\x1b[31m", 50) as advance:
            for _ in range(50):
                now[0] += 1.0
                advance(1, note="\x1b[2Kloss\t0.1")
                terminal.tick()
    lines = file.getvalue().splitlines()
    assert 118 <= len(lines) <= 120
    assert all(line.isprintable() for line in lines)
    times = [re.search(r"(?:(\d+) h )?(\d+) (?:min|h) so far", line) for line in lines]
    assert all(times), lines[:3]
    assert lines[0].startswith("model 2 of 144: arm-1, score arm-1") and "about 1 h 59 min left" in lines[0]


def test_short_bars_one_after_the_other_do_not_make_more_lines() -> None:
    now = [0.0]
    terminal, file = log_of(now)
    for i in range(100):
        with terminal.bar(f"read {i}", 1) as advance:
            now[0] += 7.0
            terminal.tick()
            advance()
    assert len(file.getvalue().splitlines()) <= 700 / EVERY_S


def test_the_clock_writes_lines_while_an_item_takes_long() -> None:
    """Seconds of this clock pass whenever somebody looks."""
    ticks = itertools.count(0, 20.0)
    file = io.StringIO()
    terminal = Terminal(Console(file=file, _environ={}), now=lambda: next(ticks))
    with terminal.bar("train", 2):
        for _ in range(3000):
            if "\n" in file.getvalue():
                break
            terminal._closed.wait(0.01)
    assert file.getvalue().startswith("train 0 of 2, ") and "time left: not known yet" in file.getvalue()


@pytest.mark.parametrize(
    "environment", [{"FORCE_COLOR": "1"}, {"TTY_COMPATIBLE": "1"}, {"TERM": "dumb"}, {"NO_COLOR": "1"}]
)
def test_a_file_stays_a_file_whatever_the_environment_says(environment: dict[str, str]) -> None:
    now = [0.0]
    terminal, file = log_of(now, **environment)
    assert not terminal.moves and terminal.width is None
    with terminal.bar("train", 2):
        terminal.say(STAGE)
    assert file.getvalue() == STAGE + "\n"


def test_a_dumb_terminal_gets_lines_that_fit_and_no_picture() -> None:
    file = AsTerminal()
    terminal = Terminal(
        Console(file=file, width=60, height=9, _environ={"TERM": "dumb"}), now=lambda: 0.0, ticking=False
    )
    with terminal.bar("train", 2):
        terminal.say(STAGE, hanging=21)
    assert "\x1b" not in file.getvalue() and "\r" not in file.getvalue()
    assert max(map(len, file.getvalue().splitlines())) <= 60


def test_a_moving_picture_goes_away_and_leaves_the_cursor() -> None:
    file = AsTerminal()
    console = Console(file=file, width=60, force_terminal=True, _environ={"TERM": "xterm"})
    terminal = Terminal(console, now=lambda: 0.0)
    with terminal.bar("train", 2) as advance:
        terminal.say("a message [bold]as it is[/bold]")
        advance()
    text = file.getvalue()
    assert "a message [bold]as it is[/bold]" in text
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")
    shown = text.index("\x1b[?25h")
    assert shown < text.index("a message"), "whoever is killed now leaves a terminal with a cursor"


def test_log_messages_go_the_same_way_and_cannot_play_with_the_terminal() -> None:
    terminal, file = log_of([0.0])
    record = logging.LogRecord("x", logging.WARNING, "f", 1, "\x1b[2J%s\rhidden [red]x[/red]", ("name",), None)
    TerminalHandler(terminal).emit(record)
    assert file.getvalue() == "[2Jname hidden [red]x[/red]\n"
    assert without_controls("a\x07b\x9bc\td\ne\u202ef") == "abc d\nef"


def test_an_item_that_has_a_name_is_said_with_its_number() -> None:
    now = [0.0]
    terminal, file = log_of(now)
    with terminal.bar("model", 3) as advance:
        advance(0, note="base")
        now[0] += 61.0
        terminal.tick()
    assert file.getvalue() == "model 1 of 3: base, 1 min so far, time left: not known yet\n"
