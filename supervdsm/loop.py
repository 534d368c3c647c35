"""The loop: one thread, descriptors, timers and signals.

It promises that one that does not turn any more, in Python or in the kernel, ends the process (`supervdsm.watchdog`), and that
a signal that it has taken and not yet delivered is not lost to the next image.
"""

from __future__ import annotations

import heapq
import itertools
import os
import select
import signal
import socket
import time
from collections.abc import Callable
from typing import Any

from supervdsm.watchdog import Watchdog

HANDLED = (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM, signal.SIGINT, signal.SIGCHLD)


class Loop:
    def __init__(self, watchdog: float) -> None:
        self.status: int | None = None
        """The exit status, once the loop is to end."""
        self._watchdog = Watchdog(watchdog)
        self._longest = watchdog / 3
        """Seconds after which the loop turns even when nothing happens."""
        self._epoll = select.epoll()
        self._ready: dict[int, Callable[[], None]] = {}
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._count = itertools.count()
        self._signals: dict[int, Callable[[], None]] = {}
        self._signalled, self._signaller = socket.socketpair(type=socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        self.watch(self._signalled, self._deliver)

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
        """Let signals wait, for the next image, which gets those as well that have come but have not been delivered."""
        signal.pthread_sigmask(signal.SIG_BLOCK, HANDLED)
        for number in self._come():
            os.kill(os.getpid(), number)

    def let_through(self) -> None:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, HANDLED)

    def run(self) -> int:
        """Turn until there is an exit status; return it."""
        while self.status is None:
            self._watchdog.feed()
            for fd, _ in self._epoll.poll(self._patience()):
                if fd in self._ready:  # an earlier one of this turn may have closed it
                    self._ready[fd]()
            while self._timers and self._timers[0][0] <= time.monotonic():
                heapq.heappop(self._timers)[2]()
        self._watchdog.rest()
        return self.status

    def _patience(self) -> float:
        due = self._timers[0][0] - time.monotonic() if self._timers else self._longest
        return max(0.0, min(due, self._longest))

    def _deliver(self) -> None:
        for number in self._come():
            self._signals.get(number, lambda: None)()

    def _come(self) -> list[int]:
        try:
            return list(dict.fromkeys(self._signalled.recv(4096)))
        except BlockingIOError:
            return []


def _noted(number: int, frame: Any) -> None:
    """The byte that the signal has put into the socket is what counts."""
