"""The file system of `hanging`, a program: BACKING MOUNTPOINT SWITCH are its arguments.

It shows BACKING at MOUNTPOINT; while the file SWITCH exists, whatever asks for anything waits, in the kernel, or if there is
something in that file, meets an I/O error. It needs libfuse, and runs until it is killed.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import sys
import threading
from collections.abc import Callable
from typing import Any, TypeVar

import mfusepy

T = TypeVar("T")


def through(deed: Callable[..., T]) -> Callable[..., T]:
    """Let a request wait for the switch, and go to the backing directory."""

    @functools.wraps(deed)
    def deed_there(self: Passing, path: str, *args: Any) -> T:
        self.wait()
        return deed(self, self.backing + path, *args)

    return deed_there


class Passing(mfusepy.Operations):  # type: ignore[misc]
    """Every request goes to the backing directory, once the switch is off."""

    use_ns = True

    def __init__(self, backing: str, switch: str) -> None:
        self.backing = backing
        self._switch = switch
        self._pause = threading.Event()

    def wait(self) -> None:
        while os.path.exists(self._switch):
            with contextlib.suppress(FileNotFoundError):
                if os.path.getsize(self._switch):
                    raise OSError(errno.EIO, os.strerror(errno.EIO))
            self._pause.wait(0.02)

    @through
    def getattr(self, path: str, fh: int | None = None) -> dict[str, Any]:
        found = os.lstat(path)
        keys = ("mode", "nlink", "size", "uid", "gid")
        times = {f"st_{name}": getattr(found, f"st_{name}_ns") for name in ("atime", "mtime", "ctime")}
        return {f"st_{key}": getattr(found, f"st_{key}") for key in keys} | times

    @through
    def access(self, path: str, mode: int) -> int:
        return 0

    @through
    def readdir(self, path: str, fh: int) -> list[str]:
        return [".", "..", *os.listdir(path)]

    @through
    def open(self, path: str, flags: int) -> int:
        return os.open(path, flags & ~os.O_DIRECT)

    @through
    def create(self, path: str, mode: int, fi: Any = None) -> int:
        return os.open(path, os.O_RDWR | os.O_CREAT, mode)

    @through
    def read(self, path: str, size: int, offset: int, fh: int) -> bytes:
        return os.pread(fh, size, offset)

    @through
    def write(self, path: str, data: bytes, offset: int, fh: int) -> int:
        return os.pwrite(fh, data, offset)

    @through
    def truncate(self, path: str, length: int, fh: int | None = None) -> int:
        os.truncate(path, length)
        return 0

    @through
    def release(self, path: str, fh: int) -> int:
        os.close(fh)
        return 0

    @through
    def fsync(self, path: str, datasync: int, fh: int) -> int:
        return 0

    @through
    def fsyncdir(self, path: str, datasync: int, fh: int) -> int:
        return 0

    @through
    def mkdir(self, path: str, mode: int) -> int:
        os.mkdir(path, mode)
        return 0

    @through
    def rmdir(self, path: str) -> int:
        os.rmdir(path)
        return 0

    @through
    def unlink(self, path: str) -> int:
        os.unlink(path)
        return 0

    @through
    def rename(self, old: str, new: str, flags: int = 0) -> int:
        os.rename(old, self.backing + new)
        return 0

    @through
    def chmod(self, path: str, mode: int) -> int:
        os.chmod(path, mode)
        return 0

    @through
    def statfs(self, path: str) -> dict[str, int]:
        told = os.statvfs(path)
        return {key: getattr(told, key) for key in ("f_bavail", "f_bfree", "f_blocks", "f_bsize", "f_frsize")}


if __name__ == "__main__":
    mfusepy.FUSE(
        Passing(sys.argv[1], sys.argv[3]),
        sys.argv[2],
        foreground=True,
        entry_timeout=0,
        attr_timeout=0,
        allow_other=True,
    )
