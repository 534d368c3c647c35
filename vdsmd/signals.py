"""Signals become calls in the loop's thread.

They stay blocked from before an exec until the new run is ready for them: what arrives in between is pending, not lost.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Mapping

from vdsmd.loop import READ, Loop

OURS = (signal.SIGHUP, signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGCHLD)


def block() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, OURS)


def unblock() -> None:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, OURS)


_wakeup: list[int] = []


def noted() -> set[int]:
    """Return, and forget, the signals that have arrived and have not been delivered yet."""
    try:
        return set(os.read(_wakeup[0], 4096)) if _wakeup else set()
    except BlockingIOError:
        return set()


def pass_on(to_be_lost: set[int]) -> None:
    """Have the next image get what has arrived and has not been delivered, but for `to_be_lost`. Signals are blocked."""
    for number in noted() - to_be_lost:
        os.kill(os.getpid(), number)


def deliver(loop: Loop, calls: Mapping[int, Callable[[], None]]) -> None:
    """Have the loop make the call of each signal that arrives. Several of one kind may become one call."""
    ours, theirs = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(theirs, warn_on_full_buffer=False)
    for number in calls:
        signal.signal(number, _noted)

    _wakeup[:] = [ours]

    def read(_events: int) -> None:
        for number in noted():
            calls[number]()

    loop.watch(ours, READ, read)


def _noted(_number: int, _frame: object) -> None:
    """The wake-up descriptor has already been written to; Python only wants a handler to be there."""
