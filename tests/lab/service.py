"""vdsmd as a service of a real systemd: what `systemctl` does to it and says of it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Self

from tests.lab.installation import CONFIG, run
from tests.running import Running
from tests.until import until

UNIT = "vdsmd.service"
PATIENCE = 300.0
"""Seconds. A guest in a virtual host is emulated by what is emulated itself."""


class Service(Running):
    """The daemon that the unit runs, as it was found last. Everything that Running asks of a daemon works."""

    def __init__(self, unit: str = UNIT) -> None:
        self.unit = unit
        self.base = Path("/")
        self.run_dir, self.lib_dir, self.log_dir = Path("/run/vdsm"), Path("/var/lib/vdsm"), Path("/var/log/vdsm")
        self.config = CONFIG
        self.taken = 0

    @property
    def pid(self) -> int:
        """The daemon's process, as it was found last."""
        return self.taken

    def systemctl(self, verb: str, *, check: bool = True) -> str:
        return run("systemctl", verb, self.unit, check=check)

    def start(self) -> Self:
        """Start it, unless it runs, and wait until it has looked at its machines."""
        self.systemctl("start")
        return self.found()

    def found(self) -> Self:
        """Take the daemon that runs now for ours, and wait until it has looked at its machines."""
        self.taken = self.running_pid()
        until(lambda: self.call("ping")["status"]["code"] == 0, PATIENCE, "it to have looked at its machines")
        return self

    def running_pid(self) -> int:
        """Return the pid of the daemon that runs now."""
        return self.main_pid

    def alive(self) -> bool:
        return is_process(self.pid)

    def endpoints(self) -> dict[str, Any]:
        assert self.alive(), f"the daemon is gone:\n{self.log()}"
        found: dict[str, Any] = json.loads((self.run_dir / "endpoints.json").read_text(encoding="utf-8"))
        assert found["pid"] == self.pid, "endpoints.json is another daemon's"
        return found

    def show(self, name: str) -> str:
        """Return a property of the unit."""
        return run("systemctl", "show", "--value", "--property", name, self.unit).strip()

    @property
    def main_pid(self) -> int:
        return int(self.show("MainPID"))

    @property
    def restarts(self) -> int:
        """How often systemd has started it again, by itself."""
        return int(self.show("NRestarts"))

    def restarted(self, before: int) -> Self:
        """Wait until systemd has started it again, which it had done `before` times, and it serves."""
        until(lambda: self.restarts > before and self.show("ActiveState") == "active", PATIENCE, "a restart")
        return self.found()

    def environment(self) -> dict[str, str]:
        """Return what systemd started it with. Only right until it re-executes itself."""
        entries = Path(f"/proc/{self.pid}/environ").read_text(errors="replace").split("\0")
        return {name: value for name, _, value in (entry.partition("=") for entry in entries if entry)}

    def log(self) -> str:
        return run("journalctl", "--no-pager", "--lines=200", f"--unit={self.unit}", check=False)


def is_process(pid: int) -> bool:
    return os.path.exists(f"/proc/{pid}")
