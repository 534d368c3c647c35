"""The helper, seen from the daemon: whoever does for us what needs root, however the two of us were started.

It promises that whatever becomes of the helper, a call ends, and that the daemon finds the next helper by itself. There are
three ways: our parent gave us one end of a socket pair (`supervdsm --spawn`); a helper is a service of its own, and has a
socket in the run directory; or we are root ourselves, and start one as our child when it is first needed.
"""

from __future__ import annotations

import logging
import os
import socket
import sys
import threading
from collections.abc import Callable
from typing import Any

from state.children import ChildTable, Exit
from state.fds import FdTable
from state.release import ROOT
from supervdsm.client import RETURN, Client, NoHelper
from vdsmd.loop import Loop

log = logging.getLogger("helper")

NAME = "supervdsm"
"""Of our end of the socket pair, and of the child."""
SOCKET = "svdsm.sock"
PATIENCE = 10.0
"""Seconds until a helper of our own must have been started."""
OURS = 3
"""Number of the child's end, in the child."""


class Helper:
    """What drivers call as `host.root`. `call` is for worker threads, everything else for the loop's."""

    def __init__(self, loop: Loop, fds: FdTable, children: ChildTable, *, run_dir: str, config: str) -> None:
        self.on_parent_gone: Callable[[], None] = lambda: None
        """Called when the helper that is our parent has ended: whoever started the pair starts it again."""
        self._loop = loop
        self._fds = fds
        self._children = children
        self._config = config
        self._service = Client(path=os.path.join(run_dir, SOCKET))
        self._pair: Client | None = None
        self._over = threading.Event()
        """Whether the helper at the other end of the pair has ended."""

    def take_over(self) -> None:
        """Take what the previous run, or our parent, left for us."""
        number = self._fds.take(NAME)
        child = self._children.take(NAME, on_exit=self._ended)
        if number is None:
            return
        self._pair = Client(fd=number)
        if child is None:
            self._loop.watch(number, 0, lambda _events: self._parent_gone(number))

    def call(self, action: str, *, timeout: float | None = None, **arguments: Any) -> Any:
        """Have an action done. Raises the errors of `supervdsm.client`."""
        client, over = self._reach(action), self._over
        try:
            return client.call(action, timeout=timeout, **arguments)
        except NoHelper:
            # Nothing was done. One of our own that has ended is noticed in a moment, and the next call starts another.
            if not client.gone or not self._may_have_its_own() or not over.wait(RETURN):
                raise
        return self._reach(action).call(action, timeout=timeout, **arguments)

    def describe(self) -> str:
        """Say which way there is, for operators."""
        if NAME in self._children:
            return "a child of this daemon"
        if self._pair is not None:
            return "this daemon's parent"
        if os.path.exists(self._service.path):
            return f"the service at {self._service.path}"
        return "a child of this daemon, when it is needed" if self._may_have_its_own() else "none"

    def _reach(self, action: str) -> Client:
        if self._pair is not None:
            return self._pair
        if os.path.exists(self._service.path):
            return self._service
        if not self._may_have_its_own():
            raise NoHelper(f"{action} needs root: start supervdsmd (no {self._service.path})")
        return self._own()

    def _may_have_its_own(self) -> bool:
        return os.geteuid() == 0

    # A helper of our own

    def _own(self) -> Client:
        started = threading.Event()
        self._loop.call_threadsafe(lambda: self._start(started))
        if not started.wait(PATIENCE) or (client := self._pair) is None:
            raise NoHelper("a helper could not be started; the log says why")
        return client

    def _start(self, started: threading.Event) -> None:
        try:
            if self._pair is None:
                self._spawn()
        finally:
            started.set()

    def _spawn(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            # From our own release, whatever has become of the working directory: a helper of another may not know us.
            env = {**os.environ, "PYTHONPATH": ROOT, "PYTHONSAFEPATH": "1"}
            argv = [sys.executable, "-m", "supervdsm", "--config", self._config, "--fd", str(OURS)]
            try:
                self._children.spawn(NAME, argv, on_exit=self._ended, env=env, files={2: 2, OURS: theirs.fileno()})
            except OSError:
                ours.close()
                raise
        self._over = threading.Event()
        self._pair = Client(fd=self._fds.hold(NAME, ours.detach()))
        log.info("Started a helper")

    def _ended(self, end: Exit) -> None:
        """The next call starts another."""
        log.warning("The helper ended pid=%d code=%s", end.pid, end.code)
        self._pair = None
        self._fds.drop(NAME)
        self._over.set()

    # A helper that is our parent

    def _parent_gone(self, number: int) -> None:
        log.error(
            "The helper that started this daemon has ended; the daemon ends too, and leaves virtual machines running"
        )
        self._loop.unwatch(number)
        self.on_parent_gone()
