"""A daemon to measure, in a directory of its own, and what the system says of it."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from scripts.benchmarks.client import Client, machine

ROOT = Path(__file__).resolve().parents[2]
T = TypeVar("T")
HELPER_REPLACED = "Replaced; going on"
"""What the helper logs then."""


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def until(fact: Callable[[], T], what: str, timeout: float = 300.0, pause: float = 0.002) -> T:
    """Wait for a fact, asking every `pause` seconds."""
    deadline = time.monotonic() + timeout
    while not (value := fact()):
        if time.monotonic() > deadline:
            raise RuntimeError(f"waited {timeout:.0f} s in vain for {what}")
        time.sleep(pause)
    return value


class Lab:
    """One daemon. A context: at its end the daemon, its guests and its files are gone.

    `spawned`: the helper is started, as root, and runs the daemon as an ordinary user. `irs`: options about storage.
    `launcher`: a command that becomes the daemon, given how to start it.
    """

    def __init__(
        self,
        uri: str = "embed",
        *,
        spawned: bool = False,
        irs: Mapping[str, object] | None = None,
        launcher: Sequence[str] = (),
        **options: object,
    ) -> None:
        self.base = Path(tempfile.mkdtemp(prefix="vb-", dir="/tmp"))
        self.base.chmod(0o755)  # not everything runs as us
        self.spawned = spawned
        self.uri = f"qemu:///embed?root={self.base}/lib/libvirt" if uri == "embed" else uri
        self.options = options
        self.irs = irs or {}
        self._launcher = launcher
        self._generation = 0
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Lab:
        self._configure()
        self.start()
        return self

    def start(self) -> None:
        """Start the daemon, or start it again."""
        output = (self.base / "output").open("ab")
        program = ["supervdsm", "--spawn"] if self.spawned else ["vdsmd"]
        command = [*self._launcher, sys.executable, "-m", *program, "--config", str(self.base / "vdsm.conf")]
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd=ROOT)
        until(self._serves, "the daemon to serve")
        self.client = Client(self.port)

    def kill(self) -> None:
        """Kill the daemon, and nothing else."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(60)
        (self.base / "run" / "endpoints.json").unlink()  # whoever waits for the next daemon waits for its own

    def __exit__(self, *_: object) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(60)
        for pid in self._guests():
            os.kill(pid, signal.SIGKILL)
        until(lambda: not self._guests(), "the guests to end")
        shutil.rmtree(self.base, ignore_errors=True)

    @property
    def pid(self) -> int:
        return int(self.endpoints()["pid"])

    @property
    def port(self) -> int:
        return int(self.endpoints()["xmlrpc"]["port"])

    @property
    def generation(self) -> int:
        return int(self.endpoints()["generation"])

    def endpoints(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.base / "run" / "endpoints.json").read_text())
        return found

    def status(self) -> dict[str, Any]:
        told: dict[str, Any] = self.client.must("vdsmd.status")["info"]
        return told

    def reexec(self) -> dict[str, Any]:
        """Re-exec, and return the outcome once done. Raises RuntimeError when it is refused."""
        before = self.generation
        os.kill(self.pid, signal.SIGHUP)
        until(lambda: self.generation > before or self._refused(), "a re-exec")
        outcome: dict[str, Any] = self.status()["reexec"]
        if outcome["state"] != "done":
            raise RuntimeError(f"re-exec {outcome['state']}: {outcome['reason']}")
        return outcome

    def replace_helper(self) -> None:
        """Have the helper, which is the daemon's parent, replace itself, and wait until it has."""
        assert self.process is not None
        log = self.base / "log" / "supervdsm.log"
        done = log.read_text().count(HELPER_REPLACED)
        self.process.send_signal(signal.SIGHUP)
        until(lambda: log.read_text().count(HELPER_REPLACED) > done, "the helper to be replaced")

    def boot(self, count: int, *, memory: int, **more: object) -> list[str]:
        """Create machines and wait until all are there; return their ids."""
        ids = [str(uuid.uuid4()) for _ in range(count)]
        for number, vm_id in enumerate(ids, 1):
            self.client.must("create", machine(vm_id, memory=memory, **more))  # type: ignore[arg-type]
            if number % 10 == 0:
                say(f"  {number} of {count} guests asked for")
        until(lambda: self._launched(ids), f"{count} guests to be launched", 600)
        return ids

    def pids(self) -> dict[str, int]:
        """Return each machine's QEMU pid."""
        return {vm["vmId"]: int(vm["pid"]) for vm in self.client.must("list", True)["vmList"]}

    def ticks(self, vm_id: str) -> list[int]:
        """Return the numbers the guest has counted on its console, in order, over all rotated logs."""
        directory = self.base / "log" / "console"
        logs = sorted(
            directory.glob(f"{vm_id}.log*"), key=lambda path: -int(path.suffix[1:] if path.suffix != ".log" else 0)
        )
        text = b"".join(path.read_bytes() for path in logs)
        return [int(number) for number in re.findall(rb"tick (\d+)\r?\n", text)]

    def counts(self) -> dict[str, int]:
        """Return what must not grow: descriptors, threads, zombies, environment; and resident memory in KiB."""
        proc = Path(f"/proc/{self.pid}")
        status = dict(line.split(":", 1) for line in (proc / "status").read_text().splitlines())
        return {
            "descriptors": self._descriptors(proc / "fd"),
            "threads": int(status["Threads"]),
            "zombies": len(self._zombies()),
            "environment": len((proc / "environ").read_bytes()),
            "rss_kib": int(status["VmRSS"].split()[0]),
        }

    def _descriptors(self, folder: Path) -> int:
        """Return the least number seen over a while: the connections that ask for it come and go."""
        seen = []
        for _ in range(20):
            seen.append(len(list(folder.iterdir())))
            time.sleep(0.02)
        return min(seen)

    def cpu_seconds(self) -> float:
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def load(self, kind: str, argument: str = "") -> subprocess.Popen[str]:
        """Start a load generator; `finish` ends it."""
        command = [sys.executable, "-m", "scripts.benchmarks.client", str(self.port), kind, argument]
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)

    def _configure(self) -> None:
        base = self.base
        (base / "vdsm.conf").write_text(
            "[vars]\nssl = false\nlog_level = INFO\n"
            + "".join(f"{name} = {value}\n" for name, value in self.options.items())
            + "[addresses]\nmanagement_ip = 127.0.0.1\nmanagement_port = 0\n"
            + f"[paths]\nrun_dir = {base}/run\nlib_dir = {base}/lib\nlog_dir = {base}/log\nrepository = {base}/repository\n"
            + f"[libvirt]\nuri = {self.uri}\nvirt_type = qemu\n"
            + "[irs]\n"
            + "".join(f"{name} = {value}\n" for name, value in self.irs.items())
        )

    def _serves(self) -> bool:
        assert self.process is not None
        if self.process.poll() is not None:
            raise RuntimeError(f"the daemon did not start:\n{(self.base / 'output').read_text()}")
        return (self.base / "run" / "endpoints.json").exists()

    def _refused(self) -> bool:
        return bool(self.status()["reexec"]["state"] == "refused")

    def _launched(self, ids: list[str]) -> bool:
        statuses = {vm["vmId"]: vm["status"] for vm in self.client.must("list")["vmList"]}
        down = [vm_id for vm_id in ids if statuses[vm_id] == "Down"]
        if down:
            raise RuntimeError(f"a guest did not start: {self.client.must('getVmStats', down[0])}")
        return all(statuses[vm_id] in ("Up", "Paused") for vm_id in ids)

    def _guests(self) -> list[int]:
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    command = (entry / "cmdline").read_bytes()
                except OSError:
                    continue
                if b"qemu" in command.split(b"\0")[0] and str(self.base).encode() in command:
                    found.append(int(entry.name))
        return found

    def _zombies(self) -> list[int]:
        listed = subprocess.run(
            ["ps", "--ppid", str(self.pid), "-o", "pid=,state="], capture_output=True, text=True, check=False
        )
        return [int(line.split()[0]) for line in listed.stdout.splitlines() if line.split()[1] == "Z"]


def finish(load: subprocess.Popen[str]) -> dict[str, Any]:
    """End a load generator; return what it saw."""
    said, _ = load.communicate("", timeout=120)
    seen: dict[str, Any] = json.loads(said)
    return seen


def demo_guest(folder: Path) -> dict[str, object]:
    """Return the parameters that boot the counting guest, from copies in a folder that QEMU can read."""
    made = subprocess.run([ROOT / "scripts" / "guest"], capture_output=True, text=True, check=True)
    kernel, initramfs = (shutil.copy(path, folder) for path in made.stdout.split())
    return {"kernel": kernel, "initrd": initramfs, "kernelArgs": "console=ttyS0 quiet"}
