"""What is mounted, in the kernel's words, and the two system calls that change it.

It promises that a mount goes exactly where a descriptor is, and that an unmount follows no link.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import re
import stat
from typing import NamedTuple

from supervdsm.places import magic

BIND = 0x1000
FORCE = 1
DETACH = 2
NOFOLLOW = 8

_libc = ctypes.CDLL(None, use_errno=True)


class Mount(NamedTuple):
    """A line of mountinfo (proc(5)); `options` are the mount point's own, then the file system's."""

    device: str
    target: str
    options: str
    kind: str
    source: str


def mounts() -> list[Mount]:
    """Return what is mounted, in the order of mounting: the last of one target is the one that shows."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as lines:
        return [_parse(line) for line in lines]


def at(target: str) -> Mount | None:
    """Return what is mounted exactly there."""
    return next((mount for mount in reversed(mounts()) if mount.target == target), None)


def in_use() -> dict[str, str]:
    """Return where block devices are mounted, by their numbers ("major:minor"): those of the file systems, and those that were
    named when mounting, which differ where a file system has a number of its own (btrfs)."""
    found = {}
    for mount in mounts():
        found[mount.device] = mount.target
        if mount.source.startswith("/dev/"):  # anything else might hang
            with contextlib.suppress(OSError):
                found[number(os.stat(mount.source))] = mount.target
    return found


def number(status: os.stat_result) -> str:
    """Return the number of a block device, in the kernel's writing."""
    if not stat.S_ISBLK(status.st_mode):
        raise OSError(errno.ENOTBLK, os.strerror(errno.ENOTBLK))
    return f"{os.major(status.st_rdev)}:{os.minor(status.st_rdev)}"


def bind(source: str, fd: int) -> None:
    """Mount what is mounted at `source` on the directory of the descriptor as well. Raises OSError."""
    _call(_libc.mount(os.fsencode(source), os.fsencode(magic(fd)), None, ctypes.c_ulong(BIND), None), source)


def unmount(target: str, flags: int = 0) -> None:
    """Raises OSError."""
    _call(_libc.umount2(os.fsencode(target), flags | NOFOLLOW), target)


def _call(result: int, what: str) -> None:
    if result:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)


def _parse(line: str) -> Mount:
    fields, _, rest = line.rstrip("\n").partition(" - ")
    _, _, device, _, target, options, *_ = fields.split(" ")
    kind, source, super_options = [*rest.split(" "), "", ""][:3]
    return Mount(device, _plain(target), f"{options},{super_options}", kind, _plain(source))


def _plain(field: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), field)
