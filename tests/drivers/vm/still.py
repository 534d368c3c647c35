"""A driver that stands still: the daemon's part is played in one thread, and time passes only when the test says so.

It promises that everything the driver asked for is done when `settle` returns, in the order of the daemon: works and news
first, then timers. What callbacks raised is in `failures`, where the daemon would have logged it.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from drivers.base import Host
from drivers.vm.driver import VmDriver
from state.children import ChildTable
from state.directory import StateDirectory
from state.fds import FdTable
from tests.drivers.vm.fake import FakeLibvirt
from tests.drivers.vm.stand import VARS
from vdsmd.loop import Timer

AWHILE = 600.0
"""Seconds of the driver's time: all graces are over by then."""


class Still:
    """A driver that has neither recovered nor taken over yet, on a hypervisor in memory. `close` it."""

    def __init__(self, base: Path, libvirt: FakeLibvirt) -> None:
        self.libvirt = libvirt
        self.failures: list[Exception] = []
        self._calls: deque[Callable[[], None]] = deque()
        self._timers: list[Timer] = []
        self.fds = FdTable()
        host = Host(
            fds=self.fds,
            children=ChildTable(self.fds),
            checkpoints=StateDirectory(str(base / "checkpoints")),
            run_dir=str(base),
            lib_dir=str(base),
            log_dir=str(base),
            submit=self._submit,
            later=self._later,
            in_loop=self._calls.append,
            event=lambda name, /, **fields: None,
        )
        config = SimpleNamespace(vars=SimpleNamespace(**VARS), libvirt=SimpleNamespace(uri="auto", virt_type="auto"))
        fake: Any = libvirt
        self.driver = VmDriver(host, config, fake)

    def settle(self) -> None:
        """Do all that the driver has asked for, and let the timers of the next ten minutes go off, once."""
        self._work()
        due = sorted(timer for timer in self._timers if timer.due < time.monotonic() + AWHILE)
        for timer in due:
            if not timer.cancelled:
                self._carefully(timer.callback)
                self._work()

    def close(self) -> None:
        self.driver.quiesce(time.monotonic() + 60)
        for name in self.fds.names():
            self.fds.drop(name)
        # A daemon has one driver all its life; hundreds of them would use up the descriptors of a process.
        os.close(self.driver._consoles._wake)

    def _submit(
        self,
        work: Callable[[], Any],
        done: Callable[[Any, Exception | None], None] | None = None,
        *,
        key: str | None = None,
        timeout: float = 60.0,
    ) -> None:
        self._calls.append(partial(self._do, work, done or (lambda result, error: None)))

    def _do(self, work: Callable[[], Any], done: Callable[[Any, Exception | None], None]) -> None:
        try:
            result = work()
        except Exception as error:
            # As a worker: whatever it is goes to whoever asked.
            done(None, error)
        else:
            done(result, None)

    def _later(self, seconds: float, call: Callable[[], None]) -> Timer:
        timer = Timer(time.monotonic() + seconds, call)
        self._timers.append(timer)
        return timer

    def _work(self) -> None:
        while self._calls:
            self._carefully(self._calls.popleft())

    def _carefully(self, call: Callable[[], None]) -> None:
        try:
            call()
        except Exception as error:
            # As the loop: it hurts no other callback.
            self.failures.append(error)
