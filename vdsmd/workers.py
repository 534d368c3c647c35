"""Workers: threads that carry calls, so that the loop never waits.

Works with the same key run one after the other, and only they wait for each other: a monitor that is stuck holds up the
verbs of its own machine and no other. A work that takes too long is answered for (NotResponding); its thread is given up
until it comes back by itself, and does not count as free meanwhile.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from drivers.errors import Busy, NotResponding
from state import threads
from vdsmd.loop import Loop, Timer

log = logging.getLogger("workers")

Done = Callable[[Any, Exception | None], None]
LIMIT = 64


class Work:
    """One call on its way: waiting, running, or answered."""

    __slots__ = ("answered", "call", "done", "key", "started", "timer")

    def __init__(self, call: Callable[[], Any], done: Done | None, key: str | None) -> None:
        self.call = call
        self.done = done
        self.key = key
        self.timer: Timer | None = None
        self.started = 0.0
        self.answered = False


class Workers:
    """A bounded pool. Threads are made when all are busy, and stay."""

    def __init__(self, loop: Loop, limit: int = LIMIT) -> None:
        self._loop = loop
        self._limit = limit
        self._ready: deque[Work] = deque()
        self._keys: dict[str, deque[Work]] = {}
        self._running: set[Work] = set()
        self._threads: list[threading.Thread] = []
        self._idle = 0
        self._stopping = False
        self._changed = threading.Condition()
        self._on_idle: Callable[[], None] | None = None

    def submit(
        self, call: Callable[[], Any], done: Done | None = None, *, key: str | None = None, timeout: float = 60.0
    ) -> None:
        """Run `call()` in a worker; then `done(result, None)` or `done(None, error)` in the loop's thread. Any thread."""
        work = Work(call, done, key)
        if timeout:
            self._loop.call_threadsafe(lambda: self._time(work, timeout))
        with self._changed:
            waiting = self._keys.get(key) if key is not None else None
            if waiting is not None:
                waiting.append(work)
                return
            if key is not None:
                self._keys[key] = deque()
            self._enqueue(work)

    @property
    def busy(self) -> int:
        """How many works are waiting or running."""
        with self._changed:
            return len(self._ready) + len(self._running) + sum(map(len, self._keys.values()))

    def when_idle(self, call: Callable[[], None] | None) -> None:
        """Have `call()` made once, at the next moment in which no work is waiting or running. None takes it back."""
        self._on_idle = call

    def start(self) -> None:
        """Allow work again after `stop`."""
        with self._changed:
            self._stopping = False
            self._threads = [thread for thread in self._threads if thread.is_alive()]
            for _ in range(len(self._ready)):
                self._make_room()

    def stop(self, deadline: float) -> None:
        """Let running works end, and join all threads by `deadline`. What waits stays, for `start`. Raises Busy."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        for thread in self._threads:
            if not threads.join(thread, deadline):
                raise Busy(what=f"thread {thread.name}", reason=f"it has been at its work for {self._longest():.0f} s")
        self._threads = []
        self._idle = 0

    def _time(self, work: Work, timeout: float) -> None:
        if not work.answered:
            work.timer = self._loop.call_later(timeout, lambda: self._give_up(work, timeout))

    def _enqueue(self, work: Work) -> None:
        self._ready.append(work)
        self._make_room()

    def _make_room(self) -> None:
        if self._idle >= len(self._ready):
            self._changed.notify()
        elif len(self._threads) < self._limit and not self._stopping:
            self._threads.append(threads.start(f"worker-{len(self._threads)}", self._work))

    def _work(self) -> None:
        while (work := self._next()) is not None:
            result, error = None, None
            try:
                # A work that has been answered for while it waited must not begin any more.
                result = None if work.answered else work.call()
            except Exception as caught:
                # The edge of the thread: the error belongs to whoever asked, who maps and logs it.
                error = caught
            self._finish(work)
            self._loop.call_threadsafe(lambda w=work, r=result, e=error: self._answer(w, r, e))  # type: ignore[misc]
            del work, result, error

    def _next(self) -> Work | None:
        with self._changed:
            self._idle += 1
            while not self._ready and not self._stopping:
                self._changed.wait()
            self._idle -= 1
            if self._stopping:
                return None
            work = self._ready.popleft()
            work.started = time.monotonic()
            self._running.add(work)
            return work

    def _finish(self, work: Work) -> None:
        with self._changed:
            self._running.discard(work)
            if work.key is None:
                return
            waiting = self._keys[work.key]
            if waiting:
                self._enqueue(waiting.popleft())
            else:
                del self._keys[work.key]

    def _answer(self, work: Work, result: Any, error: Exception | None) -> None:
        self._conclude(work, result, error)
        if self._on_idle is not None and not self.busy:
            call, self._on_idle = self._on_idle, None
            call()

    def _conclude(self, work: Work, result: Any, error: Exception | None) -> None:
        if work.timer is not None:
            work.timer.cancel()
        if work.answered:
            log.warning("Work ended after its time-out key=%s", work.key)
            return
        work.answered = True
        if work.done is not None:
            work.done(result, error)
        elif error is not None:
            log.error("Work in the background failed key=%s", work.key, exc_info=error)

    def _give_up(self, work: Work, timeout: float) -> None:
        if work.answered:
            return
        work.answered = True
        error = NotResponding(what=work.key or "the host", reason=f"no answer within {timeout:.0f} s")
        if work.done is not None:
            work.done(None, error)
        else:
            log.error("Work in the background takes too long key=%s seconds=%.0f", work.key, timeout)

    def _longest(self) -> float:
        now = time.monotonic()
        with self._changed:
            return max((now - work.started for work in self._running), default=0.0)
