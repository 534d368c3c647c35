"""A place for actions to act on: directories, a Context, and a mount namespace of one's own.

What is done `inside()` is done in a child with private mounts: they are gone when it ends, whatever happened.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import signal
import struct
import subprocess
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from supervdsm.actions import load
from supervdsm.registry import ACTIONS, VDSMD, Context
from tests.until import until

load()

UID = 54321
GID = 54322
CLONE_NEWNS = 0x20000
PRIVATE = 0x4000 | (1 << 18)  # MS_REC | MS_PRIVATE
LOOP_CTL_GET_FREE = 0x4C82
LOOP_CONFIGURE = 0x4C0A
AUTOCLEAR = 4

libc = ctypes.CDLL(None, use_errno=True)


def context(tmp_path: Path) -> Context:
    """Make what a helper for user 54321 would work with."""
    names = ("run", "lib", "log", "repository", "repository/mnt")
    for name in names:
        (tmp_path / name).mkdir()
        os.chown(tmp_path / name, UID, GID)
    return Context(
        uid=UID,
        gid=GID,
        user="nobody",
        run_dir=str(tmp_path / "run"),
        lib_dir=str(tmp_path / "lib"),
        log_dir=str(tmp_path / "log"),
        repository=str(tmp_path / "repository"),
        private_dir=str(tmp_path / "private"),
        fence_agents=str(tmp_path / "agents"),
        udev_rules=str(tmp_path / "rules.d"),
        sysfs=str(tmp_path / "sys"),
    )


def call(where: Context, name: str, **arguments: Any) -> Any:
    """Do the action as the helper does: checked, then called."""
    ACTIONS[name].check(VDSMD, arguments)
    return ACTIONS[name].function(where, **arguments)


def inside(deed: Callable[[], None], timeout: float = 120.0) -> None:
    """Do it in a child with mounts of its own. What it raises fails the test."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        told = _do(deed)
        os.write(write, told.encode()[-60000:])
        os._exit(1 if told else 0)
    os.close(write)
    pidfd = os.pidfd_open(child)
    try:
        until(lambda: os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG | os.WNOWAIT), timeout)
    finally:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        status = os.waitpid(child, 0)[1]
        os.close(pidfd)
        with os.fdopen(read, encoding="utf-8", errors="replace") as pipe:
            told = pipe.read()
    assert status == 0, told or f"status {status}"


def _do(deed: Callable[[], None]) -> str:
    """Return what went wrong, as a text."""
    try:
        assert libc.unshare(CLONE_NEWNS) == 0, os.strerror(ctypes.get_errno())
        assert libc.mount(b"none", b"/", None, ctypes.c_ulong(PRIVATE), None) == 0, os.strerror(ctypes.get_errno())
        deed()
    except BaseException:  # the edge of the child: nothing of the test runner may go on in it
        return traceback.format_exc()
    return ""


def mount_tmpfs(target: Path | str) -> None:
    assert libc.mount(b"tmpfs", os.fsencode(target), b"tmpfs", ctypes.c_ulong(0), None) == 0


def read_only(path: Path) -> None:
    """Have the kernel refuse to write to this one file: the way a stand-in for sysfs says no."""
    name = os.fsencode(path)
    assert libc.mount(name, name, None, ctypes.c_ulong(0x1000), None) == 0
    assert libc.mount(name, name, None, ctypes.c_ulong(0x1000 | 0x20 | 1), None) == 0


def disk(path: Path, *mkfs: str) -> str:
    """Make a small disk with a file system. Its loop device goes with this process and the last mount."""
    path.write_bytes(b"")
    os.truncate(path, 16 << 20)
    if mkfs:
        subprocess.run([*mkfs, path], check=True, capture_output=True, timeout=60)
    device = until(lambda: _loop(path), 60, "a free loop device")
    assert device is not None
    return device


def _loop(path: Path) -> str | None:
    control = os.open("/dev/loop-control", os.O_RDWR | os.O_CLOEXEC)
    file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        name = f"/dev/loop{fcntl.ioctl(control, LOOP_CTL_GET_FREE)}"
        loop = os.open(name, os.O_RDWR | os.O_CLOEXEC)  # left open: it is what keeps the device
        config = struct.pack("=II52xI240x", file, 0, AUTOCLEAR)
        fcntl.ioctl(loop, LOOP_CONFIGURE, config)
    except OSError:
        return None  # somebody else was faster
    finally:
        os.close(control)
        os.close(file)
    return name
