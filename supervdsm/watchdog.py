"""The watchdog: the kernel's timers, which only a loop that turns sets anew.

It promises that a process whose loop is stuck ends: by SIGALRM, with a traceback of where it is; and where that is not enough,
because it is stopped or waits in the kernel, by SIGKILL. Whoever keeps it then starts another.
"""

from __future__ import annotations

import ctypes
import faulthandler
import os
import signal
import sys
import time

MERCY = 2.0
"""Seconds between the first signal and the last."""

_libc = ctypes.CDLL(None, use_errno=True)


class _Event(ctypes.Structure):  # struct sigevent, sigevent(3type); all zero means: a signal
    _fields_ = (("value", ctypes.c_void_p), ("signo", ctypes.c_int), ("rest", ctypes.c_int * 13))


class Watchdog:
    """Has to be fed more often than every `limit` seconds. It neither survives an exec nor goes over to a forked child."""

    def __init__(self, limit: float) -> None:
        self._limit = limit
        self._due = 0.0
        self._timer = ctypes.c_void_p()
        faulthandler.register(signal.SIGALRM, file=sys.stderr, all_threads=True, chain=True)
        event = _Event(signo=signal.SIGKILL)
        if _libc.timer_create(time.CLOCK_MONOTONIC, ctypes.byref(event), ctypes.byref(self._timer)):
            raise OSError(ctypes.get_errno(), "no timer for the watchdog")

    def feed(self) -> None:
        """Begin a new term. Cheap: it is a matter for the kernel only now and then."""
        now = time.monotonic()
        if now >= self._due:
            self._due = now + self._limit / 8
            self._set(self._limit)

    def rest(self) -> None:
        """Watch no more."""
        self._set(0)

    def _set(self, seconds: float) -> None:
        signal.setitimer(signal.ITIMER_REAL, seconds)
        fraction, whole = divmod(seconds and seconds + MERCY, 1)[::-1]
        value = (ctypes.c_long * 4)(0, 0, int(whole), int(fraction * 1e9))  # struct itimerspec
        if _libc.timer_settime(self._timer, 0, value, None):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
