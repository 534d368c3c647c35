"""The lab: several virtual hosts with this checkout in them, and what they leave.

It promises that at its end, however that comes, no host runs and none of its files is left but those that were asked for.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType

from scripts.virtualhost.emulator import command
from scripts.virtualhost.image import Image, obtain, say
from scripts.virtualhost.machine import Machine
from scripts.virtualhost.payload import pack
from scripts.virtualhost.switch import Switch

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / ".cache" / "lab"
RESULTS = CACHE / "results"
CARDS = ("eth1", "eth2", "eth3")
"""Those of each host on the network between them."""
PLACE, PREFIX = Path("/tmp"), "vdsmd-lab-"
"""Short: a Unix socket's path may have 107 bytes."""
INSIDE = "/var/log/lab"
"""Where tests in a host leave what is worth looking at."""


def _sweep() -> None:
    """Remove what a lab that was killed has left on the disk. Its hosts have gone with it."""
    for path in PLACE.glob(f"{PREFIX}[0-9]*-*"):
        if path.stat().st_uid == os.getuid() and not Path(f"/proc/{path.name.split('-')[2]}").exists():
            shutil.rmtree(path, ignore_errors=True)


class Lab:
    """A context. Inside it, `hosts` are up."""

    def __init__(self, count: int) -> None:
        self._count = count
        self.hosts: list[Machine] = []

    def __enter__(self) -> Lab:
        image = obtain(CACHE)
        _sweep()
        self._base = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-", dir=PLACE))
        self._switch = Switch(self._base)
        begun = time.monotonic()
        try:
            payload = self._base / "checkout.tar"
            pack(ROOT, payload)
            # A copy: somebody may make a newer image meanwhile, which takes this one off the disk.
            shutil.copy(image.key, self._base / "key")
            for number in range(1, self._count + 1):
                self.hosts.append(self._host(number, image, payload))
            self._switch.start()
            say(f"booting {self._count} {'host' if self._count == 1 else 'hosts'}")
            self._wait()
        except BaseException:  # also an interrupt: QEMU must not be left
            self.__exit__(None, None, None)
            raise
        say(f"up after {time.monotonic() - begun:.0f} s")
        return self

    def _host(self, number: int, image: Image, payload: Path) -> Machine:
        base = self._base / f"host{number}"
        base.mkdir()
        networks = {name: self._switch.plug(name) for name in (f"{card}-{number}" for card in CARDS)}
        return Machine(
            base.name, base, self._base / "key", command(base, image, payload, number, self._count, networks)
        )

    def _wait(self) -> None:
        with ThreadPoolExecutor(self._count) as pool:
            try:
                list(pool.map(Machine.wait_until_up, self.hosts))
            except BaseException:  # whatever it was: those who wait for the other hosts need not any more
                for host in self.hosts:
                    host.close()
                raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for host in self.hosts:
            host.close()
        self._switch.close()
        self._keep_consoles()
        shutil.rmtree(self._base, ignore_errors=True)

    def test(self, arguments: Sequence[str]) -> int:
        """Run pytest on the first host, in the checkout; return its exit status."""
        for host in self.hosts:
            host.run(f"mkdir -p {INSIDE}")
        pytest = [".venv/bin/python", "-m", "pytest", f"--junitxml={INSIDE}/junit.xml", *arguments]
        line = f"cd {shlex.quote(str(ROOT))} && exec env PYTHONUNBUFFERED=1 {shlex.join(pytest)}"
        return subprocess.run(self.hosts[0].ssh(line), stdin=subprocess.DEVNULL, check=False).returncode

    def shell(self) -> int:
        line = f"cd {shlex.quote(str(ROOT))} && exec bash -l"
        return subprocess.run(self.hosts[0].ssh(line, terminal=True), check=False).returncode

    def collect(self) -> Path:
        """Bring back what the hosts have to tell, in place of what an earlier run has left; return where it is."""
        for host in self.hosts:
            target = RESULTS / host.name
            host.run(f"mkdir -p {INSIDE}; journalctl --no-pager -o short-precise >{INSIDE}/journal")
            host.fetch(INSIDE, target)
        first = RESULTS / self.hosts[0].name / "junit.xml"
        if first.exists():
            first.rename(RESULTS / "junit.xml")
        return RESULTS

    def _keep_consoles(self) -> None:
        for host in self.hosts:
            if host.console.exists():
                target = RESULTS / host.name
                target.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(host.console, target / "console.log")
