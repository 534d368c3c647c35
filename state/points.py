"""Points: the named places in a run's life at which it may be struck, so that tests can strike it at each of them.

`VDSMD_STRIKE=<file>` in the environment does it: when the file is there and says `<point> <how>`, it is removed, and the
point is struck. Nothing happens otherwise.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
from enum import StrEnum


class Point(StrEnum):
    """In the order of a life. Each is struck by the fault matrix; a new one needs only to stand here and be `reached`."""

    START_CONFIG = "start: the configuration is read"
    START_LOG = "start: the log is open"
    START_LOCK = "start: the lock is held"
    START_IMPORT = "start: everything is imported"
    START_LISTEN = "start: the sockets listen"
    START_RESTORE = "start: an owner takes over or recovers"
    START_RESTORED = "start: all owners have taken over"
    START_SERVE = "start: about to serve"
    START_COMMIT = "start: about to commit"
    RUN_COMMITTED = "run: committed"
    RUN_OWNER = "run: an owner begins its work"
    REEXEC_SNAPSHOT = "re-exec: the rehearsal's document is written"
    REEXEC_REHEARSE = "re-exec: the rehearsal is started"
    REEXEC_REHEARSED = "re-exec: the rehearsal has passed"
    REEXEC_SETTLED = "re-exec: all owners are at a safe point"
    REEXEC_DRAINED = "re-exec: all answers are out"
    REEXEC_QUIET = "re-exec: all owners are quiet"
    REEXEC_ALONE = "re-exec: all threads have ended"
    REEXEC_COLLECTED = "re-exec: everything is collected"
    REEXEC_STORED = "re-exec: the document is stored"


ERRORS = {"enospc": errno.ENOSPC, "emfile": errno.EMFILE, "eio": errno.EIO}
SIGNALS = {"kill": signal.SIGKILL, "term": signal.SIGTERM, "hup": signal.SIGHUP}
HOW = (*ERRORS, "memory", *SIGNALS, "hang", "child")
"""Errors raised there, signals that arrive there, a step that never ends; `child:<pid>` kills a child."""

_file = os.environ.get("VDSMD_STRIKE", "")


def reached(point: Point) -> None:
    """The run is at this point. Raises, hangs or ends if this is where and how a test strikes it."""
    if _file:
        try:
            with open(_file, encoding="ascii") as file:
                name, how = file.read().split()
        except FileNotFoundError:
            return
        if name == point.name:
            os.unlink(_file)
            _strike(point, how)


def _strike(point: Point, how: str) -> None:
    print(f"vdsmd: struck at {point.name}: {how}", file=sys.stderr, flush=True)
    if how in ERRORS:
        raise OSError(ERRORS[how], f"{os.strerror(ERRORS[how])} (at the point {point.name})")
    if how == "memory":
        raise MemoryError(f"at the point {point.name}")
    if how == "hang":
        while True:
            signal.pause()
    if how.startswith("child:"):
        os.kill(int(how.removeprefix("child:")), signal.SIGKILL)
    else:
        os.kill(os.getpid(), SIGNALS[how])
