"""Deeds: what a helper does when it is asked, each a function over its root and a path beneath it.

It promises that what is written is either whole and on the disk when the deed has returned, or the old bytes are still there.
Raises OSError and nothing else for what the storage does. `drivers.storage.helpers.files` is how the daemon calls them.
"""

from __future__ import annotations

import contextlib
import errno
import fnmatch
import os
import re
import stat as stats
from collections.abc import Callable, Iterator
from typing import Any

from drivers.storage.outside.beneath import openat, opened, parent

DEEDS: dict[str, Callable[..., Any]] = {}
FRESH = ".new"
"""What a file is called until it is whole."""
_KINDS = {stats.S_IFREG: "file", stats.S_IFDIR: "directory", stats.S_IFLNK: "link", stats.S_IFBLK: "block"}
_DEEPEST = 32


def deed(function: Callable[..., Any]) -> Callable[..., Any]:
    DEEDS[function.__name__] = function
    return function


@deed
def stat(root: str, path: str) -> dict[str, Any]:
    """Describe what is there; a link is described itself."""
    if not path:
        with opened(root, "", os.O_PATH) as fd:
            return _described(os.fstat(fd))
    with parent(root, path) as (directory, name):
        return _described(os.stat(name, dir_fd=directory, follow_symlinks=False))


@deed
def names(root: str, path: str) -> list[str]:
    """List a directory."""
    with opened(root, path, os.O_RDONLY | os.O_DIRECTORY) as fd:
        return sorted(filter(_can_be_sent, os.listdir(fd)))


@deed
def scan(root: str, path: str) -> dict[str, dict[str, Any]]:
    """Describe everything in a directory, by name. What vanishes meanwhile is left out."""
    found = {}
    with opened(root, path, os.O_RDONLY | os.O_DIRECTORY) as fd:
        for name in filter(_can_be_sent, os.listdir(fd)):
            with contextlib.suppress(FileNotFoundError):
                found[name] = _described(os.stat(name, dir_fd=fd, follow_symlinks=False))
    return found


@deed
def find(root: str, path: str, pattern: str, ignore_case: bool) -> dict[str, dict[str, Any]]:
    """Describe all files below a directory whose names match the shell pattern, by path. What cannot be entered or looked at is
    left out; `readable` says whether a file can be read."""
    wanted = re.compile(fnmatch.translate(pattern), re.IGNORECASE if ignore_case else 0)
    found = {}
    with opened(root, path, os.O_RDONLY | os.O_DIRECTORY) as fd:
        for name, folder, below in _walk(fd, "", _DEEPEST):
            if wanted.match(name):
                with contextlib.suppress(OSError):
                    found[below] = _looked_at(folder, name)
    return found


@deed
def read(root: str, path: str, offset: int, length: int) -> bytes:
    """Return at most `length` bytes from there."""
    with opened(root, path, os.O_RDONLY | os.O_NONBLOCK) as fd:
        return _read(fd, offset, length)


@deed
def read_many(root: str, paths: list[str], length: int) -> list[bytes | None]:
    """Return the first `length` bytes of each file; None for what is not there."""
    return [_read_if_there(root, path, length) for path in paths]


@deed
def write(root: str, path: str, data: bytes, mode: int) -> None:
    """Put a file there, in place of one that may be there."""
    with parent(root, path) as (directory, name):
        fresh = name + FRESH
        with contextlib.suppress(FileNotFoundError):
            os.unlink(fresh, dir_fd=directory)
        _put(directory, fresh, data, mode)
        try:
            os.rename(fresh, name, src_dir_fd=directory, dst_dir_fd=directory)
        except OSError:
            os.unlink(fresh, dir_fd=directory)
            raise
        _sync(directory)


@deed
def create(root: str, path: str, data: bytes, size: int, mode: int) -> None:
    """Make a new file of `size` bytes, beginning with `data`, the rest a hole. Raises FileExistsError."""
    with parent(root, path) as (directory, name):
        _put(directory, name, data, mode, size)
        _sync(directory)


@deed
def patch(root: str, path: str, offset: int, data: bytes) -> None:
    """Write into a file that is there, in place."""
    with opened(root, path, os.O_WRONLY) as fd:
        _write(fd, data, offset)
        os.fsync(fd)


@deed
def truncate(root: str, path: str, size: int) -> None:
    """Make a file that is there this long."""
    with opened(root, path, os.O_WRONLY) as fd:
        os.ftruncate(fd, size)
        os.fsync(fd)


@deed
def make_directory(root: str, path: str, mode: int, parents: bool) -> None:
    """Make a directory; with `parents`, also those above it, and one that is there already is no error."""
    if parents:
        steps = path.split("/")
        for length in range(1, len(steps)):
            _make("/".join(steps[:length]), root, mode, exist_ok=True)
    _make(path, root, mode, exist_ok=parents)


@deed
def remove_file(root: str, path: str) -> None:
    with parent(root, path) as (directory, name):
        os.unlink(name, dir_fd=directory)
        _sync(directory)


@deed
def remove_directory(root: str, path: str) -> None:
    """Remove an empty directory."""
    with parent(root, path) as (directory, name):
        os.rmdir(name, dir_fd=directory)
        _sync(directory)


@deed
def remove_tree(root: str, path: str) -> None:
    """Remove a directory with all that is in it, never entering links. What is not there any more is no error."""
    with parent(root, path) as (directory, name):
        with contextlib.suppress(FileNotFoundError):
            _remove(directory, name)
        _sync(directory)


@deed
def rename(root: str, source: str, target: str, replace: bool) -> None:
    """Move what is at `source`. Without `replace`, a target that is there is FileExistsError."""
    with parent(root, source) as (before, old), parent(root, target) as (after, new):
        if not replace and _is_there(after, new):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), target)
        os.rename(old, new, src_dir_fd=before, dst_dir_fd=after)
        _sync(after)
        _sync(before)


@deed
def link(root: str, source: str, target: str) -> None:
    """Give a file a second name."""
    with parent(root, source) as (before, old), parent(root, target) as (after, new):
        os.link(old, new, src_dir_fd=before, dst_dir_fd=after, follow_symlinks=False)
        _sync(after)


@deed
def make_link(root: str, path: str, target: str) -> None:
    """Make a symbolic link. Its target is not looked at. Raises FileExistsError."""
    with parent(root, path) as (directory, name):
        os.symlink(target, name, dir_fd=directory)


@deed
def read_link(root: str, path: str) -> str:
    with parent(root, path) as (directory, name):
        return os.readlink(name, dir_fd=directory)


@deed
def change_mode(root: str, path: str, mode: int) -> None:
    with opened(root, path, os.O_RDONLY | os.O_NONBLOCK) as fd:
        os.fchmod(fd, mode)


@deed
def may(root: str, path: str, how: str) -> bool:
    """Return whether we may read, write and enter or execute it: "r", "w" and "x" in `how`."""
    wanted = sum({"r": os.R_OK, "w": os.W_OK, "x": os.X_OK}[letter] for letter in how)
    with opened(root, path, os.O_PATH) as fd:
        return os.access(f"/proc/self/fd/{fd}", wanted)


@deed
def space(root: str, path: str) -> dict[str, int]:
    """Return `total` and `free` bytes (for ordinary users) of the file system."""
    with opened(root, path, os.O_RDONLY | os.O_DIRECTORY) as fd:
        told = os.fstatvfs(fd)
    return {"total": told.f_blocks * told.f_frsize, "free": told.f_bavail * told.f_frsize}


# Help


def _described(found: os.stat_result) -> dict[str, Any]:
    return {
        "kind": _KINDS.get(stats.S_IFMT(found.st_mode), "other"),
        "size": found.st_size,
        "allocated": found.st_blocks * 512,
        "mode": stats.S_IMODE(found.st_mode),
        "uid": found.st_uid,
        "gid": found.st_gid,
        "links": found.st_nlink,
        "inode": found.st_ino,
        "modified": found.st_mtime,
        "changed": found.st_ctime,
    }


def _can_be_sent(name: str) -> bool:
    """A name that is no UTF-8 cannot go over the wire, nor be one that anyone asks for."""
    return name.isascii() or not any("\ud800" <= letter <= "\udfff" for letter in name)


def _is_there(directory: int, name: str) -> bool:
    try:
        os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _walk(directory: int, above: str, depth: int) -> Iterator[tuple[str, int, str]]:
    """Yield name, open directory and path of all that is no directory, never following links into one."""
    for name in sorted(filter(_can_be_sent, os.listdir(directory))):
        path = f"{above}{name}"
        try:
            fd = openat(directory, name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except NotADirectoryError:
            yield name, directory, path
            continue
        except OSError as error:
            if error.errno == errno.ELOOP:
                yield name, directory, path
            continue
        try:
            if depth:
                yield from _walk(fd, f"{path}/", depth - 1)
        finally:
            os.close(fd)


def _looked_at(directory: int, name: str) -> dict[str, Any]:
    """Describe a file, or what a link to one inside the same directory leads to. Raises OSError for all that is no file."""
    try:
        fd = openat(directory, name, os.O_RDONLY | os.O_NONBLOCK)
        readable = True
    except PermissionError:
        fd = openat(directory, name, os.O_PATH)
        readable = False
    try:
        found = os.fstat(fd)
    finally:
        os.close(fd)
    if not stats.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), name)
    return {**_described(found), "readable": readable}


def _read(fd: int, offset: int, length: int) -> bytes:
    parts = []
    while length:
        data = os.pread(fd, min(length, 1 << 20), offset)
        if not data:
            break
        parts.append(data)
        offset += len(data)
        length -= len(data)
    return b"".join(parts)


def _read_if_there(root: str, path: str, length: int) -> bytes | None:
    try:
        return bytes(read(root, path, 0, length))
    except FileNotFoundError:
        return None


def _put(directory: int, name: str, data: bytes, mode: int, size: int = 0) -> None:
    """Make a new file, whole and on the disk. One that cannot be is removed again."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(name, flags, mode, dir_fd=directory)
    try:
        os.fchmod(fd, mode)
        _write(fd, data, 0)
        if size > len(data):
            os.ftruncate(fd, size)
        os.fsync(fd)
    except OSError:
        os.unlink(name, dir_fd=directory)
        raise
    finally:
        os.close(fd)


def _write(fd: int, data: bytes, offset: int) -> None:
    left = memoryview(data)
    while left:
        written = os.pwrite(fd, left, offset)
        left = left[written:]
        offset += written


def _sync(directory: int) -> None:
    """Have names on the disk. `directory` may be open for its path alone, which fsync does not take."""
    fd = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=directory)
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno != errno.EINVAL:  # a file system that has no such thing for directories
            raise
    finally:
        os.close(fd)


def _make(path: str, root: str, mode: int, *, exist_ok: bool) -> None:
    with parent(root, path) as (directory, name):
        try:
            os.mkdir(name, mode, dir_fd=directory)
        except FileExistsError:
            if not exist_ok:
                raise
            return
        # The mode that was asked for, whatever the umask says.
        os.chmod(name, mode, dir_fd=directory)
        _sync(directory)


def _remove(directory: int, name: str) -> None:
    try:
        os.unlink(name, dir_fd=directory)
        return
    except (IsADirectoryError, PermissionError) as error:
        if not _is_directory(directory, name):
            raise error
    fd = openat(directory, name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        for inner in os.listdir(fd):
            with contextlib.suppress(FileNotFoundError):
                _remove(fd, inner)
    finally:
        os.close(fd)
    os.rmdir(name, dir_fd=directory)


def _is_directory(directory: int, name: str) -> bool:
    return stats.S_ISDIR(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode)
