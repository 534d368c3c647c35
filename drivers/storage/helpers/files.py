"""Files: what can be done in a helper's directory, typed. Paths are relative to it; "" is the directory itself.

It promises that a path never leads out of the directory (OSError, EXDEV), and raises what `Remote.call` raises: OSErrors as the
helper met them; StorageHangs and HelperLost, after which nothing is known about the outcome. For worker threads.
"""

from __future__ import annotations

from typing import Any

import msgspec

from drivers.storage.contract import Remote

FILE_MODE = 0o660
DIRECTORY_MODE = 0o775
LONGEST = 1 << 20
"""Bytes that `read` returns unless told otherwise."""


class Stat(msgspec.Struct, frozen=True, kw_only=True):
    """What there is at a path. `kind`: file, directory, link, block or other; sizes in bytes, times in epoch seconds."""

    kind: str
    size: int
    allocated: int
    mode: int
    uid: int
    gid: int
    links: int
    inode: int
    modified: float
    changed: float
    readable: bool = True
    """Known from `find` alone: whether we may read it."""

    @property
    def is_directory(self) -> bool:
        return self.kind == "directory"

    @property
    def is_file(self) -> bool:
        return self.kind == "file"


class Space(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes of a file system."""

    total: int
    free: int


class Files:
    """The deeds of one helper. `timeout`: seconds for each call, None as configured."""

    def __init__(self, remote: Remote, timeout: float | None = None) -> None:
        self.remote = remote
        self.timeout = timeout

    def within(self, timeout: float | None) -> Files:
        """Return the same with another time-out."""
        return Files(self.remote, timeout)

    def stat(self, path: str) -> Stat:
        """Describe what is there, a link itself. Raises FileNotFoundError."""
        return msgspec.convert(self._call("stat", path=path), Stat)

    def exists(self, path: str) -> bool:
        try:
            self._call("stat", path=path)
        except (FileNotFoundError, NotADirectoryError):
            return False
        return True

    def names(self, path: str = "") -> list[str]:
        """List a directory, sorted."""
        listed: list[str] = self._call("names", path=path)
        return listed

    def scan(self, path: str = "") -> dict[str, Stat]:
        """Describe everything in a directory, by name, in one call."""
        return msgspec.convert(self._call("scan", path=path), dict[str, Stat])

    def find(self, path: str, pattern: str, *, ignore_case: bool = False) -> dict[str, Stat]:
        """Describe all files below a directory whose names match the shell pattern, by path relative to it."""
        found = self._call("find", path=path, pattern=pattern, ignore_case=ignore_case)
        return msgspec.convert(found, dict[str, Stat])

    def read(self, path: str, offset: int = 0, length: int = LONGEST) -> bytes:
        """Return at most `length` bytes from there."""
        data: bytes = self._call("read", path=path, offset=offset, length=length)
        return data

    def read_many(self, paths: list[str], length: int = 4096) -> list[bytes | None]:
        """Return the first `length` bytes of each file in one call; None for what is not there."""
        parts: list[bytes | None] = self._call("read_many", paths=paths, length=length)
        return parts

    def write(self, path: str, data: bytes, mode: int = FILE_MODE) -> None:
        """Put a file there, in place of one that may be there: at any moment it is the old one or the new one, whole."""
        self._call("write", path=path, data=data, mode=mode)

    def create(self, path: str, data: bytes = b"", *, size: int = 0, mode: int = FILE_MODE) -> None:
        """Make a new file of `size` bytes, beginning with `data`, the rest a hole. Raises FileExistsError."""
        self._call("create", path=path, data=data, size=size, mode=mode)

    def patch(self, path: str, offset: int, data: bytes) -> None:
        """Write into a file that is there, in place, and have it on the disk."""
        self._call("patch", path=path, offset=offset, data=data)

    def truncate(self, path: str, size: int) -> None:
        """Make a file that is there this long."""
        self._call("truncate", path=path, size=size)

    def make_directory(self, path: str, *, mode: int = DIRECTORY_MODE, parents: bool = False) -> None:
        """Make a directory; with `parents` those above it too, and one that is there already is no error."""
        self._call("make_directory", path=path, mode=mode, parents=parents)

    def remove_file(self, path: str) -> None:
        self._call("remove_file", path=path)

    def remove_directory(self, path: str) -> None:
        """Remove an empty directory."""
        self._call("remove_directory", path=path)

    def remove_tree(self, path: str) -> None:
        """Remove what is there with all that is in it, never entering links. Nothing there is no error."""
        self._call("remove_tree", path=path)

    def rename(self, source: str, target: str, *, replace: bool = True) -> None:
        """Move what is at `source`. Without `replace`, a target that is there is FileExistsError."""
        self._call("rename", source=source, target=target, replace=replace)

    def link(self, source: str, target: str) -> None:
        """Give a file a second name (a hard link)."""
        self._call("link", source=source, target=target)

    def make_link(self, path: str, target: str) -> None:
        """Make a symbolic link to `target`, which is taken as it is."""
        self._call("make_link", path=path, target=target)

    def read_link(self, path: str) -> str:
        target: str = self._call("read_link", path=path)
        return target

    def change_mode(self, path: str, mode: int) -> None:
        self._call("change_mode", path=path, mode=mode)

    def may(self, path: str, how: str) -> bool:
        """Return whether we may read, write and enter (or execute) it: "r", "w" and "x" in `how`."""
        allowed: bool = self._call("may", path=path, how=how)
        return allowed

    def space(self, path: str = "") -> Space:
        """Return how much room the file system has, and has left for us."""
        return msgspec.convert(self._call("space", path=path), Space)

    def try_direct(self) -> bool:
        """Write and read the test file in the directory. Return whether direct I/O works there."""
        direct: bool = self._call("try_direct")
        return direct

    def _call(self, op: str, **arguments: Any) -> Any:
        return self.remote.call(op, timeout=self.timeout, **arguments)
