"""The helper replaced in place: the code now on disk goes on with its connections, its listener and its child.

It promises that no call is lost. Messages wait whole in the kernel; slow actions that are at work end first, or the replacement
is refused; and those that have not begun are handed on.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

from supervdsm import notify
from supervdsm.callers import start_time
from supervdsm.loop import HANDLED, Loop
from supervdsm.settings import Settings
from supervdsm.slow import Slow

log = logging.getLogger("supervdsm.replace")

HANDOFF = "SUPERVDSM_HANDOFF"
"""Number of the memory file that the image before us has left."""

Document = dict[str, Any]


def receive() -> Document | None:
    """Return what was left for us, None at a first start. All descriptors in it are close-on-exec again."""
    number = os.environ.pop(HANDOFF, "")
    if not number.isdecimal():
        return None
    try:
        with open(int(number), encoding="utf-8") as file:
            document: Document = json.load(file)
    except (OSError, ValueError):
        return None
    if (document["pid"], document["start"]) != (os.getpid(), start_time(os.getpid())):
        return None  # a variable that has got into another process
    for fd in document["fds"]:
        os.set_inheritable(fd, False)
    return document


class Replacement:
    """Carries out one request at a time."""

    def __init__(
        self,
        loop: Loop,
        slow: Slow,
        settings: Settings,
        collect: Callable[[], tuple[Document, list[int]]],
        tell: Callable[..., None],
    ) -> None:
        self._loop = loop
        self._slow = slow
        self._settings = settings
        self._collect = collect
        self._tell = tell
        self._rehearsal = 0
        self._waits = False
        self._stopped = False

    def stop(self) -> None:
        """Never do it again: the helper is to end."""
        self._stopped, self._waits = True, False

    def ask(self) -> None:
        """Ask for it: rehearse first."""
        if self._rehearsal or self._waits or self._stopped:
            log.info("A replacement is under way already, or the end is")
            return
        log.info("Replacement asked for")
        self._tell(*notify.reloading())
        try:
            pid = os.posix_spawn(
                sys.executable,
                [*_program(), "--check"],
                os.environ,
                setsigmask=[],
                setsigdef=[*HANDLED, signal.SIGPIPE],
            )
        except OSError as error:
            self._refuse(f"it cannot be rehearsed: {error}")
            return
        self._rehearsal = pid
        self._loop.at(time.monotonic() + self._settings.rehearsal_timeout, lambda: self._end_rehearsal(pid))

    def ended(self, pid: int, code: int) -> bool:
        """Take note of the end of a process. Say whether it was the rehearsal."""
        if pid != self._rehearsal:
            return False
        self._rehearsal = 0
        if self._stopped:
            return True
        if code != 0:
            self._refuse(f"the code on disk cannot take over: its rehearsal ended with code {code}, and said why above")
            return True
        self._waits = self._slow.held = True
        self._loop.at(time.monotonic() + self._settings.quiesce_timeout, self._lose_patience)
        if self._slow.at_work():
            log.info("Replacement waits for=%s", ",".join(self._slow.at_work()))
        self.go_if_quiet()
        return True

    def go_if_quiet(self) -> None:
        """Depart, if that is asked for and nothing is at work: once the signals of this turn are delivered."""
        self._loop.at(0, self._go)

    def _go(self) -> None:
        if self._waits and not self._slow.at_work():
            self._depart()

    def _end_rehearsal(self, pid: int) -> None:
        if pid == self._rehearsal:
            log.error("The rehearsal takes too long")
            os.kill(pid, signal.SIGKILL)

    def _lose_patience(self) -> None:
        if self._waits:
            self._refuse(f"still at work: {', '.join(self._slow.at_work())}")

    def _refuse(self, reason: str) -> None:
        log.error("Replacement refused reason=%s", reason)
        self._tell(*notify.ready(f"replacement refused: {reason}"))
        self._waits = self._slow.held = False
        self._slow.begin()

    def _depart(self) -> None:
        document, fds = self._collect()
        memory = os.memfd_create(HANDOFF)
        document |= {"pid": os.getpid(), "start": start_time(os.getpid()), "fds": fds}
        with open(memory, "w", encoding="utf-8", closefd=False) as file:
            json.dump(document, file)
        os.lseek(memory, 0, os.SEEK_SET)
        self._loop.hold_back()
        try:
            for fd in (*fds, memory):
                os.set_inheritable(fd, True)
            os.execve(sys.executable, _program(), {**os.environ, HANDOFF: str(memory)})
        except OSError as error:
            for fd in fds:
                os.set_inheritable(fd, False)
            os.close(memory)
            self._loop.let_through()
            self._refuse(f"exec: {error}")


def _program() -> list[str]:
    """Return the command that starts the code now on disk just as we were started."""
    return [sys.executable, *sys.orig_argv[1:]]
