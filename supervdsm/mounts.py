"""What is mounted, in the kernel's words, and the two system calls that change it.

It promises that a mount goes exactly where a descriptor is, and that an unmount follows no link.
"""

from __future__ import annotations

import ctypes
import os
import re
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
