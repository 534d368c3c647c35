"""The loop: one thread, descriptors, timers and signals, and its own watchdog.

It promises that a loop that is stuck, in Python or in the kernel, ends the process with a traceback, to be replaced by whoever
keeps it: the kernel's timer, which only a loop that turns sets anew, ends in SIGALRM.
"""

from __future__ import annotations

import contextlib
import faulthandler
import heapq
import itertools
import select
import signal
import socket
import sys
import time
from collections.abc import Callable
from typing import Any

HANDLED = (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM, signal.SIGINT, signal.SIGCHLD)


class Loop:
    def __init__(self, watchdog: float) -> None:
        self.status: int | None = None
        """The exit status, once the loop is to end."""
        self.on_turn: Callable[[], None] = lambda: None
        self.beat = watchdog / 3
        """Seconds after which the loop turns even when nothing happens."""
        self._watchdog = watchdog
        self._epoll = select.epoll()
        self._ready: dict[int, Callable[[], None]] = {}
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._count = itertools.count()
        self._signals: dict[int, Callable[[], None]] = {}
        self._signalled, self._signaller = socket.socketpair()
        self.watch(self._signalled, self._deliver)
        for end in (self._signalled, self._signaller):
            end.setblocking(False)
        faulthandler.register(signal.SIGALRM, file=sys.stderr, all_threads=True, chain=True)

    def watch(self, what: socket.socket, ready: Callable[[], None]) -> None:
        """Call `ready` when there is something to receive. It may be called once too often, and must not wait."""
        self._ready[what.fileno()] = ready
        self._epoll.register(what, select.EPOLLIN)

    def forget(self, what: socket.socket) -> None:
        """Watch it no more."""
        del self._ready[what.fileno()]
        self._epoll.unregister(what)

    def at(self, when: float, what: Callable[[], None]) -> None:
        """Do it then, on the monotonic clock."""
        heapq.heappush(self._timers, (when, next(self._count), what))

    def listen(self, handlers: dict[int, Callable[[], None]]) -> None:
        """Deliver signals to the handlers, and let them through."""
        self._signals = handlers
        signal.set_wakeup_fd(self._signaller.fileno(), warn_on_full_buffer=False)
        for number in HANDLED:
            signal.signal(number, _noted)
        signal.pthread_sigmask(signal.SIG_SETMASK, [])

    def hold_back(self) -> None:
        """Let signals wait, for the next image: all but the watchdog's."""
        signal.pthread_sigmask(signal.SIG_BLOCK, HANDLED)

    def let_through(self) -> None:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, HANDLED)

    def run(self) -> int:
        """Turn until there is an exit status; return it."""
        while self.status is None:
            signal.setitimer(signal.ITIMER_REAL, self._watchdog)
            self.on_turn()
            for fd, _ in self._epoll.poll(self._patience()):
                if fd in self._ready:  # an earlier one of this turn may have closed it
                    self._ready[fd]()
            while self._timers and self._timers[0][0] <= time.monotonic():
                heapq.heappop(self._timers)[2]()
        signal.setitimer(signal.ITIMER_REAL, 0)
        return self.status

    def _patience(self) -> float:
        due = self._timers[0][0] - time.monotonic() if self._timers else self.beat
        return max(0.0, min(due, self.beat))

    def _deliver(self) -> None:
        with contextlib.suppress(BlockingIOError):
            for number in dict.fromkeys(self._signalled.recv(4096)):
                self._signals.get(number, lambda: None)()


def _noted(number: int, frame: Any) -> None:
    """The byte that the signal has put into the socket is what counts."""
