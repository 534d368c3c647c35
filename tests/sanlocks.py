"""sanlock for hosts under test: a daemon for each, without privileges, in a directory of its own.

It promises that nothing of one outlives `end`, and that hosts of one test know nothing of each other but what is on storage.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from tests.until import until

RESOURCE_OFFSET = 1 << 20
PROGRAM = shutil.which("sanlock") or shutil.which("sanlock", path="/usr/sbin:/sbin")

needs_sanlock = pytest.mark.skipif(PROGRAM is None, reason="sanlock is not installed")


class Sanlock:
    """One daemon. `env`: what its clients must have in their environment. `place`: a short path, as a socket lies in it."""

    def __init__(self, place: Path, name: str) -> None:
        assert PROGRAM is not None
        place.mkdir()
        self.env = {"SANLOCK_RUN_DIR": str(place), "SANLOCK_PRIVILEGED": "0"}
        self._log = (place / "log").open("wb")
        # No watchdog, no real-time priority, no locked memory: this is no host that may be reset.
        argv = [PROGRAM, "daemon", "-D", "-w", "0", "-h", "0", "-l", "0", "-e", name]
        self._process = subprocess.Popen(argv, env=self.env, stdout=self._log, stderr=self._log)
        until(lambda: (place / "sanlock.sock").exists(), 60, "sanlock to start")

    def end(self) -> None:
        """End it as a power cut would: what it holds on storage stays until it has expired."""
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()
        self._log.close()


def leader(leases: Path, domain: str) -> dict[str, str]:
    """Return what stands on storage of the SPM's lease: owner_id, owner_generation, lver, timestamp (0: free) ..."""
    assert PROGRAM is not None
    resource = f"{domain}:SDM:{leases}:{RESOURCE_OFFSET}"
    argv = [PROGRAM, "direct", "read_leader", "-r", resource]
    told = subprocess.run(argv, check=True, capture_output=True, text=True)
    words = (line.split(maxsplit=1) for line in told.stdout.splitlines())
    return {pair[0]: pair[1] for pair in words if len(pair) == 2}
