"""Ending the children of tasks, whoever their parent is: what works under a lease must end before the lease does.

It promises that only processes are killed that hold the lock of the command they are listed for.
"""

from __future__ import annotations

import contextlib
import fcntl
import glob
import os
import signal
import time

LOCK = 5
"""The descriptor at which each of them has its lock (`drivers.storage.tasks.work`)."""
PAUSE = 0.05


def end_work(directory: str) -> None:
    """Kill all commands below the directory of tasks, and return when they have ended, however long that takes."""
    while running := [lock for lock in glob.glob(f"{glob.escape(directory)}/*/*.lock") if _is_held(lock)]:
        for lock in running:
            for pid in _pids(lock.removesuffix("lock") + "pids"):
                _kill(pid, lock)
        time.sleep(PAUSE)


def _is_held(lock: str) -> bool:
    try:
        fd = os.open(lock, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def _pids(path: str) -> list[int]:
    with contextlib.suppress(OSError), open(path, encoding="ascii", errors="replace") as file:
        return [int(word) for word in file.read().split() if word.isdigit()]
    return []


def _kill(pid: int, lock: str) -> None:
    with contextlib.suppress(OSError):
        pidfd = os.pidfd_open(pid)
        try:
            if os.path.samefile(f"/proc/{pid}/fd/{LOCK}", lock):
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        finally:
            os.close(pidfd)
