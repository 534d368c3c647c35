"""Beneath: opening paths that cannot lead out of a directory, whatever links lie on the way (openat2, Linux 5.6).

It promises that neither `..` nor a link, made before or during the call, reaches anything outside of the root: then the
error is EXDEV. Links that stay inside are followed, but for the last step of what is removed, renamed or made.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
from collections.abc import Iterator

_OPENAT2 = 437
_NO_MAGICLINKS = 0x02
_BENEATH = 0x08
_LIBC = ctypes.CDLL(None, use_errno=True)


class _How(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


def openat(directory: int, path: str, flags: int, mode: int = 0) -> int:
    """Open `path` beneath the open directory. Raises OSError."""
    how = _How(flags | os.O_CLOEXEC, mode, _BENEATH | _NO_MAGICLINKS)
    while True:
        fd: int = _LIBC.syscall(
            _OPENAT2, directory, os.fsencode(path or "."), ctypes.byref(how), ctypes.c_size_t(ctypes.sizeof(how))
        )
        if fd >= 0:
            return fd
        number = ctypes.get_errno()
        # EAGAIN: a rename came in between, and it is not sure that the path stays inside.
        if number not in (errno.EINTR, errno.EAGAIN):
            raise OSError(number, os.strerror(number), path)


@contextlib.contextmanager
def opened(root: str, path: str, flags: int, mode: int = 0) -> Iterator[int]:
    """Give the descriptor of `path` beneath `root`, closed in the end. Nothing of the root is kept open between calls: it
    could not be unmounted."""
    if "\0" in path:
        raise _senseless(path)
    directory = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fd = openat(directory, path, flags, mode)
    finally:
        os.close(directory)
    try:
        yield fd
    finally:
        os.close(fd)


@contextlib.contextmanager
def parent(root: str, path: str) -> Iterator[tuple[int, str]]:
    """Give a descriptor of the directory that `path` lies in, and its name there."""
    folder, _, name = path.rpartition("/")
    if name in ("", ".", "..") or "\0" in name:
        raise _senseless(path)
    with opened(root, folder, os.O_PATH | os.O_DIRECTORY) as fd:
        yield fd, name


def _senseless(path: str) -> OSError:
    return OSError(errno.EINVAL, os.strerror(errno.EINVAL), path)
