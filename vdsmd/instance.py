"""One daemon per run directory: a lock that is held as long as the daemon lives, over every re-exec."""

from __future__ import annotations

import fcntl
import os
import time

from state.fds import FdTable
from state.process import start_time

NAME = "instance/lock"
PATIENCE = 10.0
"""Seconds. A process that a daemon had just forked when it was killed holds its lock until it gets to its own exec."""


class AlreadyRuns(Exception):
    """Another daemon uses this run directory."""


def lock(fds: FdTable, run_dir: str) -> None:
    """Take the lock <run_dir>/vdsmd.pid and write our pid into it. Raises AlreadyRuns, OSError."""
    os.makedirs(run_dir, mode=0o755, exist_ok=True)
    path = os.path.join(run_dir, "vdsmd.pid")
    fds.obtain(NAME, lambda: _lock(path))


def _lock(path: str) -> int:
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    deadline = time.monotonic() + PATIENCE
    while not _try_lock(fd):
        holder = os.pread(fd, 32, 0).decode("ascii", "replace").strip()
        if time.monotonic() > deadline or not holder.isdigit() or start_time(int(holder)) is not None:
            os.close(fd)
            raise AlreadyRuns(f"another vdsmd (pid {holder or 'unknown'}) already runs here, as {path} says")
        time.sleep(0.01)
    _write_pid(fd)
    return fd


def _try_lock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def renew(fds: FdTable) -> None:
    """We have another pid, having gone to the background: let the file and the kernel (/proc/locks) say it."""
    fd = fds[NAME]
    # The kernel keeps the pid that took the lock, and takes it anew only for a lock of another kind.
    fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    _write_pid(fd)


def _write_pid(fd: int) -> None:
    os.ftruncate(fd, 0)
    os.pwrite(fd, b"%d\n" % os.getpid(), 0)
