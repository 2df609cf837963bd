"""Turns itself into a command that the kernel ends with the process that started it, however that one ended: python tied.py PID COMMAND.

A cell whose worker was killed would otherwise go on, and hold its run folder against the attempt that takes its place.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1
"""prctl(2): the signal that a process gets when its parent ends. It holds across exec, and without Linux there is none."""


def main() -> None:
    parent, *command = sys.argv[1:]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != int(parent):  # it ended before it could be watched
            sys.exit(128 + signal.SIGKILL)
    os.execv(command[0], command)


if __name__ == "__main__":
    main()
