"""What every script shares: logging on standard error, one JSON object on standard output, errors in one line, progress bars."""

import argparse
import contextlib
import ctypes
import errno
import gc
import io
import json
import logging
import os
import platform
import signal
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from emis_interp.errors import EmisError, printable
from emis_interp.files.lock import writing
from emis_interp.files.store import PATH_FAULTS

INTERRUPTED = 130
DISK_FULL = ("No space left", "PytorchStreamWriter failed", "inline_container.cc")
stderr = Console(stderr=True, highlight=False, soft_wrap=True)


def run(
    main: Callable[[argparse.Namespace], dict[str, Any]],
    parser: argparse.ArgumentParser,
    say: Callable[[dict[str, Any]], str],
    *,
    status: Callable[[dict[str, Any]], int] = lambda result: 0,
) -> None:
    """Parse, run, print: `say(result)` as text, or the result as one JSON object with `--json`.

    Exit status: 0 done, or `status(result)`; 2 a mistake that the user can mend; 130 interrupted, 143 ended by SIGTERM, 129 by SIGHUP
    (the same command continues).
    """
    args = parser.parse_args()
    end_in_order()
    reuse_memory()
    quiet_libraries(args.verbose)
    try:
        result = main(args)
    except EmisError as error:
        fail(str(error), args)
    except KeyboardInterrupt as end:
        name, code = (end.name, end.status) if isinstance(end, Ended) else ("interrupted", INTERRUPTED)
        with contextlib.suppress(OSError):  # after SIGHUP there may be no terminal to say it on
            print(f"\n{name}; finished work is kept, the same command continues", file=sys.stderr)
        sys.exit(code)
    except Exception as error:
        if is_disk_full(error):
            fail("the disk is full; free some space and run the same command again, finished work is kept", args)
        if isinstance(error, OSError) and error.errno in PATH_FAULTS and error.filename is not None:
            fail(f"{printable(str(error.filename), 300)}: cannot be used ({error.strerror}); give another path", args)
        raise
    if is_main_process():
        put(json.dumps(result) if args.json else say(result))
    if code := status(result):
        sys.exit(code)


def put(text: str) -> None:
    """Print on standard output. A reader that has left (`| head -1`) has what it wanted; what its encoding lacks is escaped."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        print(text, flush=True)
    except BrokenPipeError:
        os.dup2(
            os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno()
        )  # what is left in the buffer goes there at the end


def fail(text: str, args: argparse.Namespace) -> NoReturn:
    """End with status 2 and one line, with `--json` as an object on standard output too."""
    if args.json:
        put(json.dumps({"error": text}))
    print(f"error: {text}", file=sys.stderr)
    sys.exit(2)


class Ended(KeyboardInterrupt):
    """SIGTERM or SIGHUP. Being a KeyboardInterrupt it leaves every `with`, event loop and library as Ctrl-C does."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.name = "ended by " + ("SIGTERM" if number == signal.SIGTERM else "SIGHUP (the terminal closed)")
        self.status = 128 + number


def end_in_order() -> None:
    """Turn SIGTERM and SIGHUP into `Ended`, once: a second one ends the process at once. Ignored signals (nohup) stay ignored."""
    numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]

    def end(number: int, _: Any) -> None:
        for other in numbers:
            if signal.getsignal(other) is end:
                signal.signal(other, signal.SIG_DFL)
        raise Ended(number)

    for number in numbers:
        if signal.getsignal(number) == signal.SIG_DFL:
            signal.signal(number, end)


def is_main_process() -> bool:
    """False in all but the first process of `accelerate launch` or `torchrun`."""
    return os.environ.get("RANK", "0") == "0"


@contextmanager
def only_writer(folder: Path, name: str | None = None) -> Iterator[None]:
    """`files.lock.writing` in the first process; the others of `accelerate launch` write nothing and need no lock."""
    with writing(folder, name) if is_main_process() else contextlib.nullcontext():
        yield


def reuse_memory() -> None:
    """Let glibc keep freed blocks for the next tensor.

    By default it returns every large block to the kernel, which must zero it again on the next use: a tenth to a fifth of the time of
    a small model on a CPU. Very large blocks still go back, and `release_memory` returns the rest.
    """
    if libc := _glibc():
        mmap_threshold, trim_threshold = -3, -1  # names of mallopt's parameters in malloc.h
        libc.mallopt(mmap_threshold, 32 << 20)
        libc.mallopt(trim_threshold, 512 << 20)


def release_memory() -> None:
    """Give back what a finished model held; without it the peaks of successive arms add up."""
    gc.collect()
    if libc := _glibc():
        libc.malloc_trim(0)


def _glibc() -> ctypes.CDLL | None:
    return ctypes.CDLL("libc.so.6") if sys.platform == "linux" and platform.libc_ver()[0] == "glibc" else None


def is_disk_full(error: BaseException) -> bool:
    """Whether a write failed for lack of space; safetensors and torch raise errors of their own for it."""
    seen: BaseException | None = error
    while seen is not None:
        if getattr(seen, "errno", None) == errno.ENOSPC or any(text in str(seen) for text in DISK_FULL):
            return True
        seen = seen.__cause__ or seen.__context__
    return False


def add_output_flags(parser: argparse.ArgumentParser) -> None:
    """`--json` and `--verbose`, which every script has."""
    parser.add_argument("--json", action="store_true", help="print exactly one JSON object on standard output")
    parser.add_argument("--verbose", action="store_true", help="show debug messages")


def verb_parser(description: str | None, verbs: Mapping[str, Any]) -> argparse.ArgumentParser:
    """A parser with one verb for each module; a module has `add_flags(parser)` and `run(args)`, and its docstring is the help."""
    top = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    subparsers = top.add_subparsers(dest="verb", required=True, metavar="VERB")
    for name, module in verbs.items():
        first_line, _, rest = str(module.__doc__).partition("\n")
        # argparse formats helps with %, but not descriptions.
        verb = subparsers.add_parser(
            name, help=first_line.replace("%", "%%"), description=first_line + rest, formatter_class=HelpFormatter
        )
        verb.set_defaults(verb_module=module)
        module.add_flags(verb)
        add_output_flags(verb)
    return top


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Keeps the lines of the description and shows default values."""


def quiet_libraries(verbose: bool = False) -> None:
    """Our messages on standard error, the libraries' only when they are warnings."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    for name in ("emis_interp", "training", "evals", "probes"):
        logging.getLogger(name).setLevel(logging.DEBUG if verbose else logging.INFO)
    if not verbose:
        from transformers.utils import logging as hf_logging

        hf_logging.disable_progress_bar()
        hf_logging.set_verbosity_error()
        warnings.filterwarnings("ignore", category=FutureWarning)
        warnings.filterwarnings("ignore", message=".*pin_memory.*")


@contextmanager
def progress_bar(description: str, total: int) -> Iterator[Callable[..., None]]:
    """A bar on standard error; call it with the number of finished items, and `note=` for a figure behind the bar."""
    columns = (
        TextColumn("  {task.description}"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(
        *columns, console=stderr, transient=True, disable=not (stderr.is_terminal and is_main_process())
    ) as progress:
        task = progress.add_task(description, total=total, note="")

        def advance(n: int = 1, note: str | None = None) -> None:
            if note is not None:
                progress.update(task, note=note)
            progress.update(task, advance=n)

        yield advance


def flat_lines(value: Any, where: str = "") -> list[str]:
    """Nested values as `a.b = c` lines, for reading."""
    if isinstance(value, dict):
        return [
            line for key, inner in value.items() for line in flat_lines(inner, f"{where}.{key}" if where else str(key))
        ]
    return [f"{where} = {value}"]
