"""Remotes: the helpers of all directories, and the calls to them.

It promises that a call ends in bounded time whatever its storage does, that a helper which hangs is given up and replaced, but
only so many times before one of those given up has ended, and that helpers and their monitors outlive a re-exec.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import signal
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from drivers.base import Host
from drivers.storage.contract import METADATA, Settings
from drivers.storage.helpers.directory import MOST_ABANDONED, Directory, have_ended
from drivers.storage.helpers.process import Process, adopt, process_name, spawn
from drivers.storage.helpers.reader import Reader
from drivers.storage.outside.frames import PROTOCOL
from drivers.storage.record import Helper
from state.children import Exit

log = logging.getLogger("storage.remotes")

OnReport = Callable[[str, dict[str, Any]], None]


class Remotes:
    """All directories, by key. `on_report(key, report)` is called in the reading thread."""

    def __init__(self, host: Host, settings: Callable[[], Settings]) -> None:
        self.on_report: OnReport = lambda key, report: None
        self.closing = False
        """Whether nobody may wait any longer: the daemon stops, or execs in a moment."""
        self.departing = False
        """Whether a re-exec waits for calls to end."""
        self._host = host
        self._settings = settings
        self._directories: dict[str, Directory] = {}
        self._ended: set[Directory] = set()
        self._serials = itertools.count(1)
        self._numbers = itertools.count(time.monotonic_ns())
        self._reader = Reader()
        self._chores: deque[Callable[[], None]] = deque()
        self._timer: Any = None

    @property
    def settings(self) -> Settings:
        return self._settings()

    def number(self) -> int:
        """Return a number that no call of this boot has had: the clock goes on over an exec."""
        return next(self._numbers)

    def get(self, key: str, what: str, root: str) -> Directory:
        """Return the directory with that key. One that lies elsewhere by now gets another helper. Any thread."""
        found = self._directories.get(key)
        if found is not None and found.root == root and not found.dropped:
            return found
        if found is not None:
            self.drop(key)
        return self._directories.setdefault(key, Directory(self, key, what, root))

    def find(self, key: str) -> Directory | None:
        return self._directories.get(key)

    def drop(self, key: str) -> None:
        """End the helper of the directory, and forget it. Any thread."""
        directory = self._directories.pop(key, None)
        if directory is not None:
            directory.dropped = True
            directory.watch_delay = 0.0
            self._end(directory, "it is being disconnected")
            if directory.abandoned:
                self._ended.add(directory)

    @contextlib.contextmanager
    def rest(self, path: str, patience: float) -> Iterator[bool]:
        """End the helpers at and below the path, and start none there meanwhile. Give whether all have ended. For workers."""
        below = [one for one in self._all() if one.root == path or one.root.startswith(f"{path}/")]
        for directory in below:
            directory.resting = True
            self._end(directory, "it is being disconnected")
        try:
            yield have_ended(below, time.monotonic() + patience)
        finally:
            for directory in below:
                directory.resting = False
                if directory.watch_delay:
                    self.watch(directory)

    def hanging(self, key: str) -> int:
        """Return how many helpers of that directory have been given up, and are still there."""
        return sum(len(directory.abandoned) for directory in self._all() if directory.key == key)

    def _all(self) -> list[Directory]:
        return [*self._directories.values(), *self._ended]

    def soon(self, chore: Callable[[], None]) -> None:
        """Have the loop's thread do it: only there are children started, and descriptors named."""
        self._chores.append(chore)
        self._host.in_loop(self._do_chores)

    def need(self, directory: Directory) -> None:
        """Have a helper started. Any thread."""
        self.soon(lambda: self.start_process(directory))

    def watch(self, directory: Directory) -> None:
        """Have the helper told how often to look. Any thread."""
        self.soon(lambda: self.tell_watch(directory))

    # The owner's life

    def snapshot(self) -> list[Helper]:
        return [directory.kept() for directory in self._all() if directory.matters]

    def restore(self, helpers: list[Helper]) -> None:
        for helper in helpers:
            directory = Directory(self, helper.key, helper.what, helper.root)
            directory.watch_delay = helper.watch
            directory.dropped = helper.dropped
            for serial in helper.abandoned:
                self._take_abandoned(directory, serial)
            if helper.serial:
                self._adopt(directory, helper)
            if not helper.dropped:
                self._directories[helper.key] = directory
            elif directory.abandoned:
                self._ended.add(directory)
        used = [serial for helper in helpers for serial in (helper.serial, *helper.abandoned)]
        self._serials = itertools.count(max(used, default=0) + 1)

    def start(self) -> None:
        self.closing = self.departing = False
        self._reader.start()
        if self._timer is None:
            self._tick()
        for directory in self._all():
            if directory.watch_delay:
                self.tell_watch(directory)

    def quiesce(self, deadline: float) -> None:
        """Stop reading; who waits is told so. Raises Busy."""
        self.closing = True
        self._reader.stop(deadline)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._do_chores()

    # In the loop's thread

    def start_process(self, directory: Directory) -> None:
        """Start a helper for the directory, unless it has one, or may not have another one yet."""
        now = time.monotonic()
        if directory.process or directory.dropped or directory.resting or self.hanging(directory.key) >= MOST_ABANDONED:
            return
        if now < directory.retry_at:
            self._watch_later(directory)
            return
        directory.started = now
        try:
            process = self._spawn(directory)
        except OSError as error:
            log.error("A helper does not start storage=%s error=%s", directory.what, error)
            directory.back_off()
            self._watch_later(directory)
            return
        with directory.changed:
            directory.process = process
            directory.changed.notify_all()
        self._follow(directory, process)
        self.tell_watch(directory)

    def _watch_later(self, directory: Directory) -> None:
        if directory.watch_delay:
            pause = max(0.0, directory.retry_at - time.monotonic())
            self._host.later(pause, lambda: self.tell_watch(directory))

    def tell_watch(self, directory: Directory) -> None:
        """Tell the helper how often to look, starting one when it is to look at all."""
        process = directory.process
        if process is None:
            if directory.watch_delay:
                self.start_process(directory)
            return
        try:
            process.send(self.number(), {"watch": directory.watch_delay}, patience=0.0)
        except OSError as error:
            log.warning("A helper takes no messages storage=%s error=%s", directory.what, error)

    def _spawn(self, directory: Directory) -> Process:
        serial, on_exit = next(self._serials), self._on_exit(directory)
        process = spawn(self._host, directory.key, serial, "drivers.storage.outside", on_exit)
        process.send(
            self.number(), {"root": directory.root, "slots": self.settings.slots, "probe": METADATA}, patience=0.0
        )
        log.info("A helper was started storage=%s name=%s", directory.what, process.name)
        return process

    def _adopt(self, directory: Directory, helper: Helper) -> None:
        knows_us = helper.protocol == PROTOCOL
        process = adopt(self._host, helper.key, helper.serial, self._on_exit(directory), knows_us=knows_us)
        if process is not None:
            directory.process = process
            self._follow(directory, process)

    def _take_abandoned(self, directory: Directory, serial: int) -> None:
        name = process_name(directory.key, serial)
        if self._host.children.take(name, on_exit=self._on_exit(directory)) is not None:
            directory.abandoned.add(serial)

    def _on_exit(self, directory: Directory) -> Callable[[Exit], None]:
        return lambda ended: self._exited(directory, ended)

    def _exited(self, directory: Directory, ended: Exit) -> None:
        serial = int(ended.name.rpartition("/")[2])
        with directory.changed:
            directory.abandoned.discard(serial)
            directory.changed.notify_all()
            process = directory.process
        if process is not None and process.serial == serial:
            self._lose(directory, process, f"it ended with status {ended.code}")
        if directory.dropped and not directory.abandoned:
            self._ended.discard(directory)
        self._watch_later(directory)

    def _tick(self) -> None:
        """End helpers that nobody has used for a while."""
        now, idle = time.monotonic(), self.settings.idle
        for directory in self._all():
            process = directory.process
            if process is not None and not directory.watch_delay and now - directory.used > idle and process.retire():
                self._lose(directory, process, "nobody needs it")
        self._timer = self._host.later(max(1.0, idle / 4), self._tick)

    def _do_chores(self) -> None:
        while self._chores:
            self._chores.popleft()()

    # The end of a helper: any thread

    def abandon(self, directory: Directory, process: Process, reason: str) -> None:
        """Give up a helper that hangs. It is killed: what it is at must not go on when its storage comes back."""
        with directory.changed:
            if directory.process is not process:
                return
            directory.abandoned.add(process.serial)
        log.error("A helper is given up storage=%s name=%s reason=%s", directory.what, process.name, reason)
        self._host.event("storage.helper.abandoned", storage=directory.what, reason=reason)
        self._lose(directory, process, reason)
        self.soon(lambda: self._host.children.signal(process.name, signal.SIGKILL))
        if directory.watch_delay:
            self.soon(lambda: self.tell_watch(directory))

    def _end(self, directory: Directory, reason: str) -> None:
        """Close its socket: it ends then, or if it hangs, when it does so no more."""
        with directory.changed:
            process = directory.process
            if process is not None:
                directory.abandoned.add(process.serial)
        if process is not None:
            self._lose(directory, process, reason)

    def _lose(self, directory: Directory, process: Process, reason: str) -> None:
        with directory.changed:
            if directory.process is process:
                directory.process = None
                directory.back_off()
            directory.changed.notify_all()
        process.lose(reason)
        self.soon(lambda: self._close(process))

    def _close(self, process: Process) -> None:
        if self._reader.leave(process):
            process.close(lambda: self._host.fds.drop(process.name))

    # In the reader's thread

    def _follow(self, directory: Directory, process: Process) -> None:
        self._reader.follow(
            process,
            lambda reports: self._heard(directory, reports),
            lambda error: self._ended_talking(directory, process, error),
        )

    def _heard(self, directory: Directory, reports: list[dict[str, Any]]) -> None:
        for report in reports:
            self.on_report(directory.key, report)

    def _ended_talking(self, directory: Directory, process: Process, error: ValueError | None) -> None:
        if error is None:
            self._lose(directory, process, "it ended")
        else:
            self.abandon(directory, process, f"it does not speak as agreed: {error}")
