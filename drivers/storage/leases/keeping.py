"""Keeping: the keeper of this host's leases, from the daemon's side.

It promises that a call ends in bounded time, that the keeper and what it holds outlive a re-exec, and that its end, like the
loss of what it held, is told once, in the loop's thread. Calls are for worker threads.
"""

from __future__ import annotations

import logging
import select
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

from drivers.base import Host
from drivers.storage.errors import HelperLost, StorageHangs
from drivers.storage.helpers.process import Process, adopt, spawn, value_of
from drivers.storage.helpers.remotes import Remotes
from state.children import Exit

log = logging.getLogger("storage.keeper")

KEY = "keeper"
WHAT = "the keeper of leases"
TIMEOUT = 30.0
DEPARTURE_PATIENCE = 1.0
"""Seconds that a call still gets when a re-exec is wanted."""
_GLANCE = 0.05


class Keeping:
    def __init__(self, host: Host, remotes: Remotes) -> None:
        self.on_lost: Callable[[str], None] = lambda reason: None
        """Called when whatever it held is held no more, or will not be in a moment."""
        self._host = host
        self._remotes = remotes
        self._process: Process | None = None
        self._serial = 0
        self._starting = threading.Condition()
        self._watched = False

    def call(self, op: str, *, timeout: float = TIMEOUT, **arguments: Any) -> Any:
        """Have the keeper do `op` (`drivers.storage.keeper.server`) and return its value; one that is not there is started.

        Raises OSError as it met it; StorageHangs after `timeout` seconds, or sooner when the daemon wants to re-exec;
        HelperLost when it ended meanwhile.
        """
        began = time.monotonic()
        process = self._running(began + timeout)
        number = self._remotes.number()
        while (waiting := process.begin(number, {"op": op, "arguments": arguments})) is None:
            process = self._running(began + timeout, process)  # that one has just ended
        while not waiting.ended.wait(_GLANCE):
            if reason := self._too_long(began, timeout):
                process.give_up(number)
                raise StorageHangs(what=WHAT, reason=reason)
        if waiting.answer is None:
            raise HelperLost(what=WHAT, reason=waiting.lost)
        return value_of(waiting.answer, op)

    @property
    def is_there(self) -> bool:
        return self._process is not None

    # The owner's life: the loop's thread

    def snapshot(self) -> int:
        """Return the number of the keeper's process, 0 when there is none."""
        return self._process.serial if self._process is not None else 0

    def restore(self, serial: int) -> None:
        self._serial = serial
        if serial:
            self._process = adopt(self._host, KEY, serial, self._exited)

    def start(self) -> None:
        if self._process is not None and not self._watched:
            self._watched = True
            self._host.poller.watch(self._process.fd, select.EPOLLIN, lambda _events: self._read())

    def quiesce(self) -> None:
        if self._process is not None and self._watched:
            self._watched = False
            self._host.poller.unwatch(self._process.fd)

    def end(self) -> None:
        """End the keeper, which holds nothing, unless it is being asked for something."""
        if self._process is not None and self._process.retire():
            self._forget("nobody needs it")

    def kill(self) -> None:
        """End the keeper, whatever it holds and whatever it is at. Any thread."""
        process = self._process
        if process is not None:
            self._host.in_loop(lambda: self._host.children.signal(process.name, signal.SIGKILL))

    # Help

    def _too_long(self, began: float, timeout: float) -> str:
        waited = time.monotonic() - began
        if waited >= timeout:
            return f"no answer within {waited:.0f} s"
        if (self._remotes.departing or self._remotes.closing) and waited > DEPARTURE_PATIENCE:
            return "the daemon re-executes itself, and does not wait for it"
        return ""

    def _running(self, deadline: float, ended: Process | None = None) -> Process:
        """Return the keeper's process, another one than `ended`."""
        began = time.monotonic()
        with self._starting:
            while self._process is None or self._process is ended:
                if self._too_long(began, deadline - began):
                    raise StorageHangs(what=WHAT, reason="it does not start")
                self._host.in_loop(self._begin)
                self._starting.wait(_GLANCE)
            return self._process

    def _begin(self) -> None:
        """Start a keeper unless there is one."""
        if self._process is not None:
            return
        try:
            process = self._spawn()
        except OSError as error:
            log.error("The keeper of leases does not start error=%s", error)
            return
        with self._starting:
            self._process = process
            self._starting.notify_all()
        self.start()

    def _spawn(self) -> Process:
        self._serial += 1
        process = spawn(self._host, KEY, self._serial, "drivers.storage.keeper", self._exited)
        log.info("The keeper of leases was started name=%s", process.name)
        return process

    def _read(self) -> None:
        process = self._process
        if process is None:
            return
        try:
            reports = process.receive()
        except EOFError:
            self._lose("the keeper of leases has ended")
            return
        except ValueError as error:
            log.error("The keeper of leases does not speak as agreed error=%s", error)
            self._host.children.signal(process.name, signal.SIGKILL)
            self._lose("the keeper of leases does not speak as agreed")
            return
        for report in reports:
            self.on_lost(str(report.get("lost", "")))

    def _exited(self, ended: Exit) -> None:
        process = self._process
        if process is not None and process.name == ended.name:
            self._lose(f"the keeper of leases ended with status {ended.code}")

    def _lose(self, reason: str) -> None:
        self._forget(reason)
        self.on_lost(reason)

    def _forget(self, reason: str) -> None:
        process, watched = self._process, self._watched
        self._process, self._watched = None, False
        if process is not None:
            process.lose(reason)
            if watched:
                self._host.poller.unwatch(process.fd)
            process.close(lambda: self._host.fds.drop(process.name))
