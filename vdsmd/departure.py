"""Departure: how the next run is started in our place, and how it gets there before the guests do."""

from __future__ import annotations

import contextlib
import os
import sys


def hurry() -> int:
    """Go before the guests, for the milliseconds that clients wait, if we are allowed to; return the priority to go back to.
    Nothing is started meanwhile that could inherit it."""
    before = os.getpriority(os.PRIO_PROCESS, 0)
    with contextlib.suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, 0, -20)
    return before


def unhurry(priority: int) -> None:
    with contextlib.suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, 0, priority)


def program(arguments: list[str]) -> list[str]:
    """Return the command that starts the code now on disk: the resolved interpreter's path, never /proc/self/exe, which
    would be the old one."""
    return [sys.executable, *_interpreter_options(), "-m", "vdsmd", *arguments]


def _interpreter_options() -> list[str]:
    """Return what stood between the interpreter and `-m vdsmd` (-X, -I, ...), or nothing if we were started otherwise."""
    given = sys.orig_argv[1:]
    return given[: given.index("-m")] if "-m" in given else []
