"""Turns signals into an end in order: what is open is closed, and a process that cannot get there in time is ended all the same."""

import contextlib
import os
import signal
import socket
import threading
from collections.abc import Callable
from typing import Any

from emis_interp.files.lock import command_line
from emis_interp.process import is_main_process
from emis_interp.terminal import Terminal, as_command

PATIENCE_S = 4.0
"""How long a process may take to end in order: one backward pass of a large model on a CPU, which no signal interrupts, takes longer.
What such an end leaves is what a killed process leaves, and the next command goes on from it."""


class Ended(KeyboardInterrupt):
    """SIGTERM or SIGHUP. Being a KeyboardInterrupt it leaves every `with`, event loop and library as Ctrl-C does."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.name, self.status = name_of(number), 128 + number


def name_of(number: int) -> str:
    """What a signal did, for its words."""
    if number == signal.SIGTERM:
        return "ended by SIGTERM"
    return "interrupted" if number == signal.SIGINT else "ended by SIGHUP (the terminal closed)"


def last_words(name: str, width: int | None = None) -> str:
    """What a command says when a signal ends it; the last line is the command that goes on.

    Args:
        width: columns of the terminal; a longer command is broken as a shell reads it.
    """
    kept = f"{name}; finished work is kept, the same command continues"
    # Behind a launcher (accelerate, torchrun) this process was not started by hand.
    return kept if "RANK" in os.environ else f"{kept}:\n{as_command(command_line(), width)}"


def say_last(terminal: Terminal, name: str) -> None:
    """Write the last words below what stands there; after SIGHUP there may be no terminal to write them on."""
    terminal.close()
    if is_main_process():
        with contextlib.suppress(OSError):
            terminal.console.file.write(last_words(name, terminal.width) + "\n")
            terminal.console.file.flush()


def end_in_order(give_up: Callable[[int], None], patience_s: float = PATIENCE_S) -> None:
    """Turn SIGTERM and SIGHUP into `Ended`, once: a second one ends the process at once. Ignored signals (nohup) stay ignored.

    A process that is still there `patience_s` after one of them, or after Ctrl-C, is ended with their exit status.

    Args:
        give_up: called with the signal before that, in another thread.
    """
    numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]

    def end(number: int, _: Any) -> None:
        for other in numbers:
            if signal.getsignal(other) is end:
                signal.signal(other, signal.SIG_DFL)
        raise Ended(number)

    for number in numbers:
        if signal.getsignal(number) == signal.SIG_DFL:
            signal.signal(number, end)
    if threading.current_thread() is threading.main_thread():
        _watch({signal.SIGINT, *numbers}, give_up, patience_s)


def _watch(numbers: set[int], give_up: Callable[[int], None], patience_s: float) -> None:
    """A thread that hears of signals while the main thread is within a call that does not return."""
    ours, pythons = socket.socketpair()
    pythons.setblocking(False)
    # Python writes the number of a signal there at once, and calls its handler when the main thread is back in Python.
    signal.set_wakeup_fd(pythons.fileno(), warn_on_full_buffer=False)

    def wait() -> None:
        _ = pythons  # kept open as long as this thread
        while number := int.from_bytes(ours.recv(1)):
            if number in numbers:
                threading.Event().wait(patience_s)
                with contextlib.suppress(Exception):
                    give_up(number)
                os._exit(128 + number)

    threading.Thread(target=wait, daemon=True, name="end in order").start()
