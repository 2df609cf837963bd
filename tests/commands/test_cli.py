"""How commands end: signals say what happened and how to go on, with the exit status that shells expect."""

import argparse
import errno
import io
import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import cli

ROOT = Path(__file__).parents[2]
AS_IN_A_TERMINAL = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)
"""
"""A command inherits ignored signals, so tests under nohup or in the background of a script would test nothing."""
COMMAND = """
import argparse, asyncio, sys, time
from pathlib import Path
import cli
from emis_interp.process import only_writer
from emis_interp.files.store import write_text

async def wait():
    print("at work", file=sys.stderr, flush=True)
    await asyncio.sleep(60)

def work(args):
    try:
        with only_writer(args.folder):
            if args.loop:
                asyncio.run(wait())
            print("at work", file=sys.stderr, flush=True)
            time.sleep(60)
    finally:
        write_text(args.folder / "in_order", "")
    return {}

parser = argparse.ArgumentParser()
parser.add_argument("folder", type=Path)
parser.add_argument("--loop", action="store_true")
cli.add_output_flags(parser)
cli.run(work, parser, str)
"""


def started(folder: Path, *words: str, before: str = "") -> subprocess.Popen[str]:
    """A command that has begun its work."""
    path = os.pathsep.join([str(ROOT), str(ROOT / "scripts")])
    command = [sys.executable, "-c", AS_IN_A_TERMINAL + before + COMMAND, str(folder), *words]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": path})
    assert process.stderr is not None
    while (line := process.stderr.readline()) != "at work\n":
        assert line, "the command ended early"
    return process


@pytest.mark.parametrize("words", [(), ("--loop",)])
@pytest.mark.parametrize(
    ("number", "status", "name"),
    [
        (signal.SIGTERM, 143, "ended by SIGTERM"),
        (signal.SIGHUP, 129, "ended by SIGHUP (the terminal closed)"),
        (signal.SIGINT, 130, "interrupted"),
    ],
)
def test_a_signal_ends_the_work_in_order_and_says_how_to_go_on(
    tmp_path: Path, number: int, status: int, name: str, words: tuple[str, ...]
) -> None:
    process = started(tmp_path / "f", *words)
    process.send_signal(number)
    _, stderr = process.communicate(timeout=60)
    said, _, command = stderr.partition("\n")
    assert (process.returncode, said) == (status, f"{name}; finished work is kept, the same command continues:")
    assert shlex.split(command) == process.args
    assert [path.name for path in (tmp_path / "f").iterdir()] == ["in_order"]


@pytest.mark.parametrize("words", [(), ("--json",)])
def test_a_path_that_the_system_refuses_is_advice_and_a_broken_disk_is_not(
    words: tuple[str, ...], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    parser = argparse.ArgumentParser()
    cli.add_output_flags(parser)
    monkeypatch.setattr(sys, "argv", ["x", *words])
    monkeypatch.setattr(cli, "end_in_order", lambda give_up: None)

    def ended(work: Callable[[], Any]) -> str:
        with pytest.raises(SystemExit) as end:
            cli.run(lambda _: work(), parser, str)
        assert end.value.code == 2
        out, err = capsys.readouterr()
        assert out == (json.dumps({"error": err.removeprefix("error: ").strip()}) + "\n" if words else "")
        return err

    assert ended(lambda: Path("/dev/null/x").read_text()) == (
        "error: /dev/null/x: cannot be used (Not a directory); give another path\n"
    )
    assert ended(lambda: Path("n" * 400).exists()).endswith(
        "...: cannot be used (File name too long); give another path\n"
    )
    with pytest.raises(OSError, match="Input/output"):
        cli.run(lambda _: os_error(errno.EIO, "Input/output error", "a"), parser, str)


def os_error(*words: Any) -> Any:
    raise OSError(*words)


def test_nohup_is_respected(tmp_path: Path) -> None:
    process = started(tmp_path / "f", before="import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)\n")
    process.send_signal(signal.SIGHUP)
    with pytest.raises(subprocess.TimeoutExpired):
        process.communicate(timeout=1)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 143


def test_a_closed_terminal_does_not_turn_the_end_into_a_traceback(tmp_path: Path) -> None:
    """Nobody reads standard error any more."""
    process = started(tmp_path / "f")
    assert process.stderr is not None
    process.stderr.close()
    process.send_signal(signal.SIGHUP)
    assert process.wait(timeout=60) == 129
    assert (tmp_path / "f" / "in_order").exists()


PRINTING = """
import argparse
import cli

def work(args):
    return {"word": "x\\u00e9\\ud800" * 100_000}

parser = argparse.ArgumentParser()
cli.add_output_flags(parser)
cli.run(work, parser, lambda result: "first\\n" + result["word"], status=lambda result: 3)
"""


def test_a_reader_that_leaves_early_makes_no_traceback() -> None:
    reader, writer = os.pipe()
    os.close(reader)  # gone before the first word
    path = os.pathsep.join([str(ROOT), str(ROOT / "scripts")])
    # --verbose spares it the libraries that it would quieten
    done = subprocess.run(
        [sys.executable, "-c", PRINTING, "--verbose"],
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (3, "")


def test_what_a_terminal_has_no_character_for_is_escaped(monkeypatch: pytest.MonkeyPatch) -> None:
    content = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(content, "ascii"))
    cli.put("x\u00e9\ud800")
    assert content.getvalue() == b"x\\xe9\\ud800\n"
