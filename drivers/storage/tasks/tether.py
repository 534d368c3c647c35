"""The tether: has the kernel end a command in the very moment in which the keeper ends under whose lease it works.

The keeper holds the writing end of a pipe with a name, `<run_dir>/tasks/keeper`, for as long as it lives. Commands have the
reading end, which the kernel watches for them. It promises that no command of the SPM outlives the keeper, whoever kills that,
and whether a daemon runs or not: sanlock lets other hosts have the lease as soon as the keeper has gone.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal

from drivers.errors import NotResponding

_NAME = "keeper"
_SET_SIGNAL = 10
"""F_SETSIG of fcntl(2), which Python does not name."""


class KeeperGone(NotResponding):
    message = "The keeper of leases has ended: nothing may be done under them"


def hold(directory: str) -> int:
    """Return the keeper's end, made when missing. It is never closed."""
    os.makedirs(directory, mode=0o700, exist_ok=True)
    path = os.path.join(directory, _NAME)
    with contextlib.suppress(FileExistsError):
        os.mkfifo(path, 0o600)
    return os.open(path, os.O_RDWR | os.O_CLOEXEC)


def take(directory: str) -> int | None:
    """Return a command's end, None where there never was a keeper. Raises KeeperGone, OSError."""
    try:
        fd = os.open(os.path.join(directory, _NAME), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    if not _is_held(fd):
        os.close(fd)
        raise KeeperGone
    return fd


def tie(fd: int, pid: int) -> None:
    """Have the processes that are led by `pid`, a child of ours with a copy of `fd`, killed when the keeper ends."""
    fcntl.fcntl(fd, fcntl.F_SETOWN, -pid)
    fcntl.fcntl(fd, _SET_SIGNAL, signal.SIGKILL)
    fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) | fcntl.FASYNC)
    if not _is_held(fd):  # it ended before the kernel was asked
        os.killpg(pid, signal.SIGKILL)


def _is_held(fd: int) -> bool:
    try:
        return bool(os.read(fd, 1))  # nobody ever writes
    except BlockingIOError:
        return True
