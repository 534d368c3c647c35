"""One virtual host: QEMU in a process of its own, and ssh into it.

It promises that QEMU ends with us, however we end, and that nothing but its disk's difference to the image is written.
"""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from scripts.virtualhost import emulator

PATIENCE = 600.0
"""Seconds for a host to boot. It takes 30 where nothing else runs."""
SSH = {
    "StrictHostKeyChecking": "no",
    "UserKnownHostsFile": "/dev/null",
    "IdentitiesOnly": "yes",
    "LogLevel": "ERROR",
    "ConnectTimeout": "30",
    "ServerAliveInterval": "30",
    "ServerAliveCountMax": "20",
}
T = TypeVar("T")


class HostError(Exception):
    """A virtual host does not do its part. The text says how."""


class Machine:
    """The host `name`. `command` is QEMU's, its files are under `base`; `key` lets us in. To be made by the main thread: when
    that ends, so does QEMU."""

    def __init__(self, name: str, base: Path, key: Path, command: list[str]) -> None:
        self.name = name
        self.console = base / "console.log"
        self._base = base
        self._key = key
        self._port = 0
        with (base / "qemu.log").open("wb") as log:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def wait_until_up(self) -> None:
        """Raises HostError when it has not come up in time."""
        self._port = self._until(lambda: emulator.ssh_port(self._base), 60, "QEMU to say where ssh is")
        self._until(lambda: self.run("test -e /etc/vdsmd-lab").returncode == 0, PATIENCE, "the host to be up")
        # Whatever a test starts must not meet a boot that still goes on. Degraded is up: some unit may have failed.
        self.run("systemctl is-system-running --wait")

    def run(self, line: str) -> subprocess.CompletedProcess[bytes]:
        """Have the host's shell run a line, and return what it said."""
        return subprocess.run(self.ssh(line), stdin=subprocess.DEVNULL, capture_output=True, check=False)

    def ssh(self, line: str, *, terminal: bool = False) -> list[str]:
        """Return the command that has the host's shell run a line."""
        options = [part for name, value in SSH.items() for part in ("-o", f"{name}={value}")]
        where = ["-i", str(self._key), "-p", str(self._port), "root@127.0.0.1"]
        return ["ssh", "-F", "none", "-t" if terminal else "-T", *options, *where, line]

    def fetch(self, source: str, target: Path) -> None:
        """Copy a directory of the host into one of ours, as far as it is there."""
        target.mkdir(parents=True, exist_ok=True)
        packed = self.run(f"tar -C {source} -cf - .").stdout
        if packed:
            subprocess.run(["tar", "-C", str(target), "-xf", "-"], input=packed, check=False)

    def close(self) -> None:
        """End it at once. Nobody wants its disk any more."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            if self._process.poll() is None:
                self._process.send_signal(number)
                try:
                    self._process.wait(20)
                except subprocess.TimeoutExpired:
                    continue

    def _until(self, fact: Callable[[], T], timeout: float, what: str) -> T:
        deadline = time.monotonic() + timeout
        while True:
            if self._process.poll() is not None:
                said = (self._base / "qemu.log").read_text(errors="replace").strip()
                raise HostError(f"{self.name}: QEMU has ended with status {self._process.returncode}: {said}")
            if value := fact():
                return value
            if time.monotonic() > deadline:
                raise HostError(f"{self.name}: waited {timeout:.0f} s in vain for {what}")
            time.sleep(0.5)
