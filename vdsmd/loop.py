"""Loop: one thread waits for every descriptor, timer and message of the daemon.

It promises that callbacks run one at a time, in the thread that called `run`, and that an exception in one of them is
logged and hurts no other. It is epoll and a heap, not asyncio: the import of asyncio alone is a fifth of the pause that
a re-exec may take (docs/benchmarks.md has the figures).
"""

from __future__ import annotations

import heapq
import logging
import os
import select
import time
from collections import deque
from collections.abc import Callable

log = logging.getLogger("loop")

READ = select.EPOLLIN
WRITE = select.EPOLLOUT

LONGEST_WAIT = 3600.0
"""Seconds. The kernel counts milliseconds in 32 bits, and clients may ask for something to be done next year."""

Ready = Callable[[int], None]


def _nothing() -> None:
    """Stands for what is not to be called any more."""


class Timer:
    """A call that is due at a time of the monotonic clock, unless cancelled."""

    __slots__ = ("callback", "cancelled", "due")

    def __init__(self, due: float, callback: Callable[[], None]) -> None:
        self.due = due
        self.callback = callback
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True
        self.callback = _nothing  # it lies here until it would have been due: what it holds need not

    def __lt__(self, other: Timer) -> bool:
        return self.due < other.due


class Loop:
    """Waits, and calls back. Only `call_threadsafe` may be called from other threads."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._watched: dict[int, Ready] = {}
        self._timers: list[Timer] = []
        self._messages: deque[Callable[[], None]] = deque()
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._running = False
        self.watch(self._wake, READ, self._deliver)

    def watch(self, fd: int, events: int, callback: Ready) -> None:
        """Call `callback(ready_events)` whenever fd is ready. Errors and hang-ups are always reported."""
        self._epoll.register(fd, events)
        self._watched[fd] = callback

    def change(self, fd: int, events: int) -> None:
        self._epoll.modify(fd, events)

    def unwatch(self, fd: int) -> None:
        """Forget fd. Must be called before fd is closed."""
        if self._watched.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def call_later(self, seconds: float, callback: Callable[[], None]) -> Timer:
        timer = Timer(time.monotonic() + seconds, callback)
        heapq.heappush(self._timers, timer)
        return timer

    def call_threadsafe(self, callback: Callable[[], None]) -> None:
        """Have the loop's thread call `callback` soon. The one door from other threads."""
        self._messages.append(callback)
        os.eventfd_write(self._wake, 1)

    def run(self) -> None:
        """Wait and call back until `stop` is called."""
        self._running = True
        while self._running:
            self.turn(self._patience())

    def turn(self, timeout: float) -> None:
        """Wait once, at most `timeout` seconds (-1: no limit), and make the calls that are due."""
        for fd, events in self._epoll.poll(timeout):
            callback = self._watched.get(fd)
            if callback is not None:
                self._call(callback, events)
        now = time.monotonic()
        while self._timers and self._timers[0].due <= now:
            timer = heapq.heappop(self._timers)
            if not timer.cancelled:
                self._call(timer.callback)

    def stop(self) -> None:
        self._running = False

    def close(self) -> None:
        self._epoll.close()
        os.close(self._wake)

    def _patience(self) -> float:
        while self._timers and self._timers[0].cancelled:
            heapq.heappop(self._timers)
        return min(LONGEST_WAIT, max(0.0, self._timers[0].due - time.monotonic())) if self._timers else -1

    def _deliver(self, _events: int) -> None:
        os.eventfd_read(self._wake)
        for _ in range(len(self._messages)):
            self._call(self._messages.popleft())

    def _call(self, callback: Callable[..., None], *args: object) -> None:
        try:
            callback(*args)
        except Exception:
            # The edge: whatever went wrong in one callback must not stop the daemon.
            log.exception("A callback failed callback=%r", callback)
