"""Directory: a directory of storage and its helper, for whoever has something to do there: a `contract.Remote`.

It promises that a call ends in bounded time: with the helper's answer, or with why there is none. For worker threads, which
wait here; what starts, hears and ends helpers is `remotes`.
"""

from __future__ import annotations

import threading
import time
from typing import Any, Protocol

from drivers.storage.contract import Settings
from drivers.storage.errors import HelperLost, StorageHangs
from drivers.storage.helpers.process import Process, Waiting, value_of
from drivers.storage.record import Helper

SUSPECT_PATIENCE = 5.0
"""Seconds for a call on storage that is known to hang."""
DEPARTURE_PATIENCE = 3.0
"""Seconds for a call on storage that says nothing, when the daemon wants to re-exec."""
START_PATIENCE = 30.0
MOST_ABANDONED = 3
"""Helpers of one directory that may hang before no more are started."""
SLICE = 0.2
FIRST_BACKOFF, LONGEST_BACKOFF = 0.25, 60.0
HEALTHY = 10.0
"""Seconds a helper must live for its end not to count as one in a row."""
READ_ONLY = frozenset({"stat", "names", "scan", "find", "read", "read_many", "read_link", "may", "space"})
"""Deeds that are done again when the helper ended in the middle."""


class Keeper(Protocol):
    """Who keeps the helpers."""

    closing: bool
    departing: bool

    @property
    def settings(self) -> Settings: ...

    def number(self) -> int: ...

    def hanging(self, key: str) -> int: ...

    def need(self, directory: Directory) -> None:
        """Have a helper started, in the loop's thread. Returns at once."""

    def watch(self, directory: Directory) -> None:
        """Have the helper told how often to look."""

    def abandon(self, directory: Directory, process: Process, reason: str) -> None: ...


class Directory:
    """A directory of storage and its helper: a `Remote`. `key` is a name for it that can stand in a path."""

    def __init__(self, keeper: Keeper, key: str, what: str, root: str) -> None:
        self.key = key
        self.what = what
        self.root = root
        self.watch_delay = 0.0
        self.used = time.monotonic()
        self.process: Process | None = None
        self.abandoned: set[int] = set()
        self.dropped = False
        self.resting = False
        """Whether it has no helper for a while, so that it can be unmounted."""
        self.started = 0.0
        self.retry_at = 0.0
        self.failures = 0
        self.changed = threading.Condition()
        self._keeper = keeper

    @property
    def matters(self) -> bool:
        """Whether there is anything about it that must survive."""
        return bool(self.process or self.abandoned or self.watch_delay)

    def kept(self) -> Helper:
        """Return what must."""
        return Helper(
            key=self.key,
            what=self.what,
            root=self.root,
            serial=self.process.serial if self.process else 0,
            watch=self.watch_delay,
            abandoned=sorted(self.abandoned),
            dropped=self.dropped,
        )

    def call(self, op: str, *, timeout: float | None = None, **arguments: Any) -> Any:
        """See `drivers.storage.contract.Remote`."""
        deadline = time.monotonic() + (self._keeper.settings.timeout if timeout is None else timeout)
        message = {"op": op, "arguments": arguments}
        try:
            return self._call(op, message, deadline)
        except HelperLost:
            if op not in READ_ONLY or self.dropped:
                raise
        return self._call(op, message, deadline)

    def watch(self, delay: float) -> None:
        """Have its metadata looked at every `delay` seconds, 0 for no more; what is seen goes to `Remotes.on_report`."""
        self.watch_delay = delay
        self._keeper.watch(self)

    def abandon(self, reason: str) -> None:
        """Give the helper up; a call, or the watch, starts another one. Any thread."""
        process = self.process
        if process is not None:
            self._keeper.abandon(self, process, reason)

    def back_off(self) -> None:
        """One more failure in a row: the next start has to wait."""
        now = time.monotonic()
        self.failures = 0 if now - self.started > HEALTHY else self.failures + 1
        pause = min(LONGEST_BACKOFF, FIRST_BACKOFF * 2 ** min(self.failures, 10)) if self.failures > 1 else 0
        self.retry_at = now + pause

    def _call(self, op: str, message: dict[str, Any], deadline: float) -> Any:
        began = self.used = time.monotonic()
        number = self._keeper.number()
        process, waiting = self._begin(op, number, message, began, deadline)
        while not waiting.ended.wait(SLICE):
            if reason := self._too_long(process, began, deadline):
                process.give_up(number)
                if len(process.given_up) >= self._keeper.settings.slots:
                    self._keeper.abandon(self, process, "all its threads hang")
                raise StorageHangs(what=self.what, reason=f"{op}: {reason}")
        self.used = time.monotonic()
        return self._answer(process, waiting, op)

    def _begin(
        self, op: str, number: int, message: dict[str, Any], began: float, deadline: float
    ) -> tuple[Process, Waiting]:
        """Give the call to a helper. One that ends at this very moment does not get it: then the next one does."""
        while True:
            process = self._room(began, deadline)
            waiting = process.begin(number, message)
            if waiting is not None:
                return process, waiting
            if reason := self._too_long(process, began, deadline):
                raise StorageHangs(what=self.what, reason=f"{op}: its helper ends, and {reason}")
            process.wait_for_room(SLICE)

    def _answer(self, process: Process, waiting: Waiting, op: str) -> Any:
        if waiting.answer is None:
            kind = StorageHangs if process.serial in self.abandoned else HelperLost
            raise kind(what=self.what, reason=f"{op}: {waiting.lost}")
        return value_of(waiting.answer, op)

    def _room(self, began: float, deadline: float) -> Process:
        """Return the helper when it can take another call. Raises StorageHangs."""
        limit = self._keeper.settings.slots + self._keeper.settings.queue
        while True:
            process = self._running(began, deadline)
            if process.load < limit:
                return process
            if reason := self._too_long(process, began, deadline):
                raise StorageHangs(what=self.what, reason=f"{process.load} calls wait already, and {reason}")
            process.wait_for_room(SLICE)

    def _running(self, began: float, deadline: float) -> Process:
        """Return the helper, started if need be: by the loop, which may have to wait first. Raises StorageHangs."""
        with self.changed:
            while self.process is None:
                if self.dropped:
                    raise HelperLost(what=self.what, reason="it is being disconnected")
                if (hanging := self._keeper.hanging(self.key)) >= MOST_ABANDONED:
                    raise StorageHangs(what=self.what, reason=f"{hanging} helpers hang in the kernel")
                now = time.monotonic()
                if now >= min(deadline, began + START_PATIENCE) or self._keeper.closing:
                    raise StorageHangs(what=self.what, reason=self._missing(now))
                if now >= self.retry_at:
                    self._keeper.need(self)
                self.changed.wait(SLICE)
            return self.process

    def _missing(self, now: float) -> str:
        if self.resting:
            return "it is being disconnected"
        if now < self.retry_at:
            return f"its last helper was given up or failed, and another one is tried in {self.retry_at - now:.0f} s"
        return "its helper does not start"

    def _too_long(self, process: Process, began: float, deadline: float) -> str:
        """Say why a call that began then has waited long enough, '' when it has not."""
        now = time.monotonic()
        if now >= deadline:
            return f"no answer within {now - began:.0f} s"
        if process.suspect and now - began > SUSPECT_PATIENCE:
            return "it has been silent since an earlier call"
        silence = now - max(began, process.heard)
        if self._keeper.departing and silence > DEPARTURE_PATIENCE:
            return "the daemon re-executes itself, and does not wait for it"
        return "the daemon stops" if self._keeper.closing else ""


def have_ended(directories: list[Directory], deadline: float) -> bool:
    """Wait until none of them has a helper that is given up. Say whether that is so."""
    for directory in directories:
        with directory.changed:
            while directory.abandoned and (left := deadline - time.monotonic()) > 0:
                directory.changed.wait(left)
    return not any(directory.abandoned for directory in directories)
