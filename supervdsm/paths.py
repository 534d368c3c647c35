"""Directories that belong to the daemon's user, touched by root without being led astray.

It promises that no link is followed that somebody else than root could have made, and that nothing changes its owner that was
not empty, or made here.
"""

from __future__ import annotations

import contextlib
import os
import stat

_LOOK = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_MOST_LINKS = 20


def walk(path: str, *, make: bool = False) -> int:
    """Return a descriptor of the directory; `make`: it and those above it are made where missing, as root's. Raises OSError."""
    parts = _parts(path)
    links = 0
    at = os.open("/", os.O_PATH | os.O_CLOEXEC)
    try:
        while parts:
            name = parts.pop()
            if make:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(name, 0o755, dir_fd=at)
            here, at = at, os.open(name, _LOOK, dir_fd=at)
            try:
                if stat.S_ISLNK(os.fstat(at).st_mode):
                    links += 1
                    target = _target(here, at, path, links)
                    parts += _parts(target)
                    os.dup2(here, at, inheritable=False)
                    if target.startswith("/"):
                        _go_to_root(at)
            finally:
                os.close(here)
        if not stat.S_ISDIR(os.fstat(at).st_mode):
            raise NotADirectoryError(f"{path} is not a directory")
    except BaseException:  # whatever it was, the descriptor must not be left open
        os.close(at)
        raise
    return at


def _parts(path: str) -> list[str]:
    return [part for part in reversed(path.split("/")) if part not in ("", ".")]


def _go_to_root(fd: int) -> None:
    root = os.open("/", os.O_PATH | os.O_CLOEXEC)
    os.dup2(root, fd, inheritable=False)
    os.close(root)


def _target(folder: int, link: int, path: str, links: int) -> str:
    if os.fstat(link).st_uid != 0 or os.fstat(folder).st_uid != 0:
        raise PermissionError(f"{path} leads over a link that is not root's")
    if links > _MOST_LINKS:
        raise PermissionError(f"{path} leads over too many links")
    return os.readlink("", dir_fd=link)


def provide(path: str, uid: int, gid: int) -> None:
    """See to it that the directory is there and belongs to the user. Raises OSError."""
    looked = walk(path, make=True)
    try:
        told = os.fstat(looked)
        if told.st_uid == uid:
            return
        fd = os.open(f"/proc/self/fd/{looked}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    finally:
        os.close(looked)
    try:
        if told.st_uid != 0 or os.listdir(fd):
            raise PermissionError(
                f"{path} belongs to user {told.st_uid}, not {uid}, and is not empty: chown it, or choose another"
            )
        os.fchown(fd, uid, gid)
    finally:
        os.close(fd)


def open_log(folder: str, name: str) -> int:
    """Open a log of root's in the user's directory, for appending. Raises OSError when it is anything else by now."""
    at = walk(folder)
    try:
        fd = os.open(
            name,
            os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC,
            0o640,
            dir_fd=at,
        )
    finally:
        os.close(at)
    told = os.fstat(fd)
    if not stat.S_ISREG(told.st_mode) or told.st_uid != os.geteuid() or told.st_nlink != 1:
        os.close(fd)
        raise PermissionError(f"{folder}/{name} is not a file of root's own")
    return fd
