"""Who may call: the daemon, and nobody else. QEMU may run as the same user, so that being that user is not enough.

It promises that a caller is named on the kernel's word alone: the credentials that came with the message itself, and who holds
the daemon's lock.
"""

from __future__ import annotations

import os
import stat

from supervdsm import paths
from supervdsm.errors import NotAllowed
from supervdsm.registry import HSMD, VDSMD

LOCKS = {VDSMD: "vdsmd.pid", HSMD: "hsmd.pid"}
"""The files in the run directory that each program keeps locked (flock) as long as it lives."""


class Only:
    """One process, which we know because it is our child or our parent."""

    def __init__(self, pid: int, uid: int) -> None:
        self._expected = (pid, uid)

    def name(self, pid: int, uid: int) -> str:
        """Return who the process is. Raises NotAllowed."""
        if (pid, uid) != self._expected:
            raise NotAllowed(f"process {pid} of user {uid} is not the daemon that this connection was made for")
        return VDSMD


class Holders:
    """Whichever process of the user, or of root, holds one of the locks. While it lives nobody takes its place, so that a
    process of the same user that puts a lock file of its own in the way gains nothing."""

    def __init__(self, run_dir: str, uid: int) -> None:
        self._run_dir = run_dir
        self._users = (uid, 0)
        self.known: dict[str, tuple[int, int | None]] = {}
        """Who has been seen as which daemon: pid, and when it started."""

    def admits(self, uid: int) -> bool:
        """Say whether a process of this user can be a caller at all."""
        return uid in self._users

    def name(self, pid: int, uid: int) -> str:
        """Return who the process is. Raises NotAllowed."""
        if pid and self.admits(uid):
            for name, lock in LOCKS.items():
                if pid in self._holders(lock):
                    return self._take_place(name, pid)
        raise NotAllowed(f"process {pid} of user {uid} is not a daemon that we work for")

    def _take_place(self, name: str, pid: int) -> str:
        before, started = self.known.get(name, (pid, None))
        if before != pid and started is not None and start_time(before) == started:
            raise NotAllowed(f"process {pid} holds the lock of {name}, which still runs as process {before}")
        self.known[name] = pid, start_time(pid)
        return name

    def _holders(self, lock: str) -> list[int]:
        try:
            folder = paths.walk(self._run_dir)
            try:
                told = os.stat(lock, dir_fd=folder, follow_symlinks=False)
            finally:
                os.close(folder)
        except OSError:
            return []
        return flock_holders(told) if stat.S_ISREG(told.st_mode) else []


def flock_holders(told: os.stat_result) -> list[int]:
    """Return who holds an exclusive flock of the file (proc(5), /proc/locks)."""
    place = f"{os.major(told.st_dev):02x}:{os.minor(told.st_dev):02x}:{told.st_ino}"
    with open("/proc/locks", encoding="ascii") as file:
        lines = [line.split() for line in file]
    return [int(line[4]) for line in lines if line[1] == "FLOCK" and line[3] == "WRITE" and line[5] == place]


def start_time(pid: int) -> int | None:
    """Return when the process started (proc(5), stat, field 22), None when it is gone."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            return int(file.read().rpartition(")")[2].split()[19])
    except (FileNotFoundError, ProcessLookupError):
        return None
