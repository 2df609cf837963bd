"""A run as a person sees it: in a terminal of 80 columns no line is wider and no word is broken; in a file there are plain lines."""

import contextlib
import fcntl
import json
import os
import pty
import re
import struct
import sys
import termios
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import forked
import pytest
from rich.cells import cell_len
from small_run import SmallRun

ROOT = Path(__file__).parents[2]
MOVES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
"""What moves the cursor, erases, and colours."""


def words(folder: Path, small: SmallRun, *more: str) -> list[str]:
    return [forked.PIPELINE, *small.words(), "--run-dir", str(folder), *more]


@pytest.fixture(scope="module")
def small() -> Iterator[SmallRun]:
    """With a judge that takes its time, so that what it is asked for is seen: a picture is drawn every quarter of a second."""
    made = SmallRun()
    at_once = made.server.respond

    def slowly(prompt: str, asked: int) -> tuple[int, bytes]:
        time.sleep(0.05)
        return at_once(prompt, asked)

    made.server.respond = slowly
    yield made
    made.server.close()


def seen(command: Sequence[str], columns: int, **environment: str) -> tuple[int, str]:
    """Exit status of a script with its words in a terminal, and everything that it wrote there."""
    ours, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    kept = {key: value for key, value in os.environ.items() if key not in ("COLUMNS", "LINES", "NO_COLOR", "TERM")}
    environment = {**kept, "TERM": "xterm-256color", **environment}
    process = forked.begin(*command, environment=environment, terminal=os.ttyname(its))
    parts = list[bytes]()

    def read() -> None:
        with contextlib.suppress(OSError):  # how Linux says that the other side is closed
            while part := os.read(ours, 65536):
                parts.append(part)

    reader = threading.Thread(target=read)
    reader.start()
    status = process.wait(timeout=400)
    os.close(its)  # open until now, so that the terminal is there before the command has opened it
    reader.join(timeout=60)
    os.close(ours)
    return status, b"".join(parts).decode()


def lines_of(text: str) -> list[str]:
    return [line.rstrip() for line in re.split(r"[\r\n]+", MOVES.sub("", text)) if line.strip()]


@pytest.mark.slow
@pytest.mark.parametrize("columns", [pytest.param(60, marks=pytest.mark.fuzz), 80])
def test_a_run_in_a_terminal_breaks_no_word_and_cuts_no_name(tmp_path: Path, small: SmallRun, columns: int) -> None:
    folder = tmp_path / "r"
    status, text = seen(words(folder, small), columns)
    lines = lines_of(text)
    assert status == 0, text
    wide = [line for line in lines if cell_len(line) > columns and " " in line.strip() and str(folder) not in line]
    assert wide == []
    flowing = " ".join(" ".join(lines).split())
    stages = json.loads((folder / "manifest.json").read_text())["stages"]
    assert len(stages) == 11
    for name, stage in stages.items():
        assert " ".join(stage["line"].split()) in flowing, name
    for name in ("stage 1 of 11: train", "stage 11 of 11: report", "model 1 of 2: base"):
        assert name in flowing, name
    # A bar that is open for less than a quarter of a second may never be drawn: which ones are depends on the processor.
    cells = {path.name for path in (folder / "interventions").iterdir()}
    drawn = {(verb, cell) for line in lines for verb, cell in re.findall(r"^ +(sample|score) (\S+)", line)}
    assert drawn and {cell for _, cell in drawn} <= {"base", "x", *cells}
    assert "time left: not known yet" in flowing and re.search(r"about \d+ (s|min) left", flowing)
    verdicts = stages["report"]["line"].split(" | ")
    assert len(verdicts) == 4
    for verdict in verdicts:
        question, _, answer = verdict.partition("? ")
        assert re.search(re.escape(question) + r"\? +" + re.escape(answer), flowing)
    assert f"open it: xdg-open {folder}/report/index.html" in flowing or sys.platform != "linux"
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l"), "the cursor is back"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, small: SmallRun) -> tuple[Path, str]:
    """A run with standard error in a file, and what that file holds."""
    folder = tmp_path_factory.mktemp("finished") / "r"
    done = forked.run(*words(folder, small))
    assert done.returncode == 0, done.stderr
    return folder, done.stderr


@pytest.mark.slow
def test_a_log_is_plain_lines(finished: tuple[Path, str]) -> None:
    folder, log = finished
    lines = log.splitlines()
    assert all(line.isprintable() for line in lines), log
    stages = json.loads((folder / "manifest.json").read_text())["stages"]
    for name, stage in stages.items():
        assert next(line for line in lines if line.startswith(f"{name} ")).endswith(stage["line"])
    minutes = sum(stage["seconds"] for stage in stages.values()) / 60
    assert sum(" so far, " in line for line in lines) <= minutes + 1


@pytest.mark.slow
def test_json_stands_alone_on_standard_output(finished: tuple[Path, str], small: SmallRun) -> None:
    done = forked.run(*words(finished[0], small, "--json"))
    assert json.loads(done.stdout)["run_dir"] == str(finished[0]) and done.stdout.count("\n") == 1
    assert done.stderr.count("done before: ") == 11


@pytest.mark.slow
@pytest.mark.parametrize("environment", [{"TERM": "dumb"}, pytest.param({"NO_COLOR": "1"}, marks=pytest.mark.fuzz)])
def test_a_terminal_that_cannot_do_everything_is_asked_for_less(
    finished: tuple[Path, str], small: SmallRun, environment: dict[str, str]
) -> None:
    status, text = seen(words(finished[0], small, "--from", "report"), 80, **environment)
    assert status == 0
    assert [line for line in lines_of(text) if cell_len(line) > 80 and str(finished[0]) not in line] == []
    if "TERM" in environment:
        assert "\x1b" not in text and "\r" not in text.replace("\r\n", "\n")
    assert not re.search(r"\x1b\[[0-9;]*3[0-7]m", text), "a colour"


MISTAKES = {
    "unknown preset": ("run_pipeline.py", "--preset", "laptop-05b"),
    "unknown stage": ("run_pipeline.py", "--preset", "smoke", "--from", "directions"),
    "unknown field": ("run_pipeline.py", "--preset", "smoke", "--set", "training.epochs=2"),
    "unknown flag": ("run_pipeline.py", "--present", "smoke"),
    "unknown verb": ("evaluate.py", "jugde", "answers.jsonl"),
    "no such run": ("build_report.py", "runs/nowhere"),
    "unknown choice": ("run_pipeline.py", "--judge", "gpt-4o"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_answered_in_lines_that_fit(name: str) -> None:
    status, text = seen(MISTAKES[name], 80)
    lines = lines_of(text)
    assert status == 2 and "Traceback" not in text
    assert [line for line in lines if cell_len(line) > 80] == []
    assert "error: " in text


@pytest.mark.parametrize("columns", [pytest.param(60, marks=pytest.mark.fuzz), 80])
@pytest.mark.parametrize(
    "script", sorted(path.name for path in (ROOT / "scripts").glob("*.py") if path.name != "cli.py")
)
def test_a_help_fits(script: str, columns: int) -> None:
    status, text = seen([script, "--help"], columns)
    wide = [line for line in lines_of(text) if cell_len(line) > columns]
    # argparse does not break one option of the usage.
    assert status == 0 and [line for line in wide if columns == 80 or not line.strip().startswith("[")] == []
