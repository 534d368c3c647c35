"""A file system that hangs, or fails, on demand: what an NFS server that has gone away looks like."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.until import until


class Hanging:
    """`path` is where it shows; `hang` and `fail` flip the switch, and `heal` flips it back."""

    def __init__(self, base: Path) -> None:
        self.backing, self.path, self.switch = base / "backing", base / "shown", base / "switch"
        self.backing.mkdir()
        self.path.mkdir()
        command = [
            sys.executable,
            "-m",
            "tests.drivers.storage.hangfs",
            *map(str, (self.backing, self.path, self.switch)),
        ]
        self.process = subprocess.Popen(
            command, stderr=subprocess.DEVNULL, cwd=Path(__file__).parents[3], stdin=subprocess.DEVNULL
        )
        until(self.is_mounted, 60, "the file system to be mounted")

    def is_mounted(self) -> bool:
        assert self.process.poll() is None, "the file system does not run"
        return str(self.path) in Path("/proc/self/mounts").read_text(encoding="utf-8")

    def hang(self) -> None:
        self.switch.touch()

    def fail(self) -> None:
        """Have every request meet an I/O error."""
        self.switch.write_text("EIO", encoding="ascii")

    def heal(self) -> None:
        self.switch.unlink(missing_ok=True)

    def close(self) -> None:
        self.heal()
        subprocess.run(["umount", "-l", self.path], check=False, capture_output=True)
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(60)


@contextlib.contextmanager
def hanging(base: Path) -> Iterator[Hanging]:
    """Give such a file system, or skip where there cannot be one."""
    if not os.path.exists("/dev/fuse") or os.geteuid():
        pytest.skip("needs /dev/fuse, and root")
    found = Hanging(base)
    try:
        yield found
    finally:
        found.close()
