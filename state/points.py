"""Points: the named places in a run's life at which it may be struck, so that tests can strike it at each of them.

`VDSMD_STRIKE=<point>:<how>:<file>` in the environment does it, once: when the file can be removed. Nothing happens otherwise.
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
HOW = (*ERRORS, "memory", "kill", "term", "hang")

_point, _how, _file = [*os.environ.get("VDSMD_STRIKE", "").split(":", 2), "", ""][:3]


def reached(point: Point) -> None:
    """The run is at this point. Raises, hangs or ends if this is where and how a test strikes it."""
    if _point == point.name:
        _strike(point)


def _strike(point: Point) -> None:
    try:
        os.unlink(_file)
    except FileNotFoundError:
        return  # it has been struck already
    print(f"vdsmd: struck at {point.name}: {_how}", file=sys.stderr, flush=True)
    if _how in ERRORS:
        raise OSError(ERRORS[_how], f"{os.strerror(ERRORS[_how])} (at the point {point.name})")
    if _how == "memory":
        raise MemoryError(f"at the point {point.name}")
    if _how == "hang":
        while True:
            signal.pause()
    os.kill(os.getpid(), signal.SIGKILL if _how == "kill" else signal.SIGTERM)
