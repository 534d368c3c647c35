"""Root's power given up: for a moment, or for good.

It promises that `drop` either leaves nothing of it, checked against what the kernel says, or raises.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Iterator

from supervdsm.settings import Settings

PR_CAPBSET_DROP = 24
PR_SET_NO_NEW_PRIVS = 38
PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL = 47, 4
LINUX_CAPABILITY_VERSION_3 = 0x20080522


class NotDropped(Exception):
    """Some of root's power would be left."""


@contextlib.contextmanager
def as_user(settings: Settings) -> Iterator[None]:
    """Act with the user's rights on files, and come back. What is made belongs to the user, and links lead nowhere new."""
    own = os.geteuid(), os.getegid(), os.getgroups()
    os.setgroups(settings.groups)
    os.setegid(settings.context.gid)
    os.seteuid(settings.context.uid)
    try:
        yield
    finally:
        os.seteuid(own[0])
        os.setegid(own[1])
        os.setgroups(own[2])


def drop(settings: Settings) -> None:
    """Become the user, for good: no capability in any set, none to be had by a later exec. Raises OSError, NotDropped."""
    libc = ctypes.CDLL(None, use_errno=True)
    with open("/proc/sys/kernel/cap_last_cap", encoding="ascii") as file:
        last = int(file.read())
    for capability in range(last + 1):
        _must(libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0))
    _must(libc.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0))
    os.setgroups(settings.groups)
    os.setresgid(settings.context.gid, settings.context.gid, settings.context.gid)
    os.setresuid(settings.context.uid, settings.context.uid, settings.context.uid)
    _must(libc.capset((ctypes.c_uint32 * 2)(LINUX_CAPABILITY_VERSION_3, 0), (ctypes.c_uint32 * 6)()))
    _must(libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    _check(settings)


def _must(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"privileges cannot be dropped: {os.strerror(number)}")


def _check(settings: Settings) -> None:
    with open("/proc/self/status", encoding="utf-8", errors="replace") as file:
        status = dict(line.rstrip().split(":\t", 1) for line in file if ":\t" in line)
    left = [name for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb") if int(status[name], 16)]
    if left or set(os.getresuid()) != {settings.context.uid} or set(os.getresgid()) != {settings.context.gid}:
        raise NotDropped(f"something of root's is left: {left or 'a user or group id'}")
