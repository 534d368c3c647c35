"""Together: making several blocking calls at the same time, from a worker that waits for all of them.

It promises that they go on even when no other worker is free: then this one makes them one after the other.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from drivers.base import Host

T = TypeVar("T")
WIDTH = 8
"""How many calls of one batch are made at the same time."""


class _Batch(Generic[T]):
    def __init__(self, calls: Sequence[Callable[[], T]]) -> None:
        self._left = deque(enumerate(calls))
        self._missing = len(calls)
        self._lock = threading.Lock()
        self.outcomes: dict[int, T | Exception] = {}
        self.ended = threading.Event()

    def work(self) -> None:
        """Make calls until there are none left to begin."""
        while True:
            try:
                index, call = self._left.popleft()
            except IndexError:
                return
            self._note(index, _made(call))

    def _note(self, index: int, outcome: T | Exception) -> None:
        with self._lock:
            self.outcomes[index] = outcome
            self._missing -= 1
            if not self._missing:
                self.ended.set()


def _made(call: Callable[[], T]) -> T | Exception:
    try:
        return call()
    except Exception as error:
        # It belongs to whoever waits for all of them.
        return error


def together(host: Host, calls: Sequence[Callable[[], T]]) -> list[T | Exception]:
    """Return the result of each call, or what it raised, in order. For workers; each call must end by itself."""
    if not calls:
        return []
    batch = _Batch(calls)
    for _ in range(min(len(calls), WIDTH) - 1):
        host.submit(batch.work, timeout=0)
    batch.work()
    batch.ended.wait()
    return [batch.outcomes[index] for index in range(len(calls))]
