"""A place: one directory with a daemon and its guest in it.

It promises that starting and booting can be repeated (what runs already is used), and that `stop` leaves nothing behind.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import time
import uuid
from pathlib import Path
from typing import Any

from scripts.demo.client import call
from scripts.demo.outside import (
    Console,
    Mishap,
    command_line,
    pids,
    power_of,
    process_ended,
    process_start,
    say,
    until,
)

ROOT = Path(__file__).resolve().parent.parent.parent
PROGRAM = ["supervdsm", "--spawn"] if os.getuid() == 0 else ["vdsmd"]
"""As root: the helper, which runs vdsmd as an ordinary user."""
PROOF = 15
"""Lines that the guest counts before it is believed to run: one and a half seconds."""

CONFIG = """\
# Written by scripts/run. The options and their manual are in vdsmd/config.py.
[vars]
ssl = false

[addresses]
management_ip = 127.0.0.1
management_port = {port}

[paths]
run_dir = {dir}/run
lib_dir = {dir}/lib
log_dir = {dir}/log
repository = {dir}/data-center

[libvirt]
uri = qemu:///embed?root={dir}/lib/libvirt
"""


class Place:
    """A directory with a daemon and a guest in it."""

    def __init__(self, directory: Path, port: int) -> None:
        self.dir = directory
        self.port = port
        self.config = directory / "vdsm.conf"
        self.vm_id = ""

    def endpoints(self) -> dict[str, Any] | None:
        """Return what a running daemon says of itself; None when none runs here."""
        try:
            told: dict[str, Any] = json.loads((self.dir / "run" / "endpoints.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        if process_start(told["pid"]) is None:
            return None
        # In the middle of an exec a process has no command line.
        command = command_line(told["pid"])
        return told if not command or str(self.config).encode() in command else None

    def start(self) -> None:
        """Start a daemon here unless one runs already."""
        told = self.endpoints()
        if told is not None:
            self.port = int(told["xmlrpc"]["port"])
            say(f"   a vdsmd of an earlier run is here already: pid {told['pid']}, generation {told['generation']}")
            return
        self.config.write_text(CONFIG.format(dir=self.dir, port=self.port), encoding="utf-8")
        output = self.dir / "output"
        with output.open("wb") as file:
            process = subprocess.Popen(
                [ROOT / ".venv" / "bin" / "python", "-m", *PROGRAM, "--config", self.config],
                stdin=subprocess.DEVNULL, stdout=file, stderr=file, cwd="/", start_new_session=True,
            )  # fmt: skip
        until(lambda: self.endpoints() or process.poll() is not None, "vdsmd to serve")
        told = self.endpoints()
        if told is None:
            raise Mishap(last_words(output.read_text(errors="replace")))
        self.port = int(told["xmlrpc"]["port"])
        say(f"   vdsmd serves: pid {told['pid']}, user {power_of(told['pid']).user}, http://127.0.0.1:{self.port}")

    def call(self, verb: str, *arguments: Any) -> dict[str, Any]:
        try:
            return call(self.port, verb, *arguments)
        except (OSError, ValueError) as error:
            raise Mishap(f"vdsmd was asked for {verb}, and: {error}") from error

    def boot(self) -> None:
        """Boot the guest unless it runs already, and wait until it counts."""
        until(lambda: not self.call("vdsmd.status")["info"]["recovering"], "vdsmd to be ready")
        running = [vm["vmId"] for vm in self.call("list")["vmList"] if vm["status"] != "Down"]
        if running:
            self.vm_id = running[0]
            say(f"   its guest runs already: {self.vm_id}")
        else:
            self._create(*self._files())
        began = time.monotonic()
        before = self.console.last()
        until(lambda: self._counts(before), "the guest to boot and count (it is emulated, that takes seconds)")
        say(f"   the guest counts, {time.monotonic() - began:.1f} s later; QEMU is pid {self.qemu()}")

    def _files(self) -> list[str]:
        """Return the kernel and the initramfs, as copies of this demo's own: QEMU may not be allowed into the checkout."""
        made = subprocess.run([ROOT / "scripts" / "guest"], stdout=subprocess.PIPE, text=True, check=False)
        if made.returncode != 0:
            raise Mishap("the demo guest could not be made; see above")
        return [str(shutil.copy(file, self.dir)) for file in made.stdout.split()]

    def _create(self, kernel: str, initramfs: str) -> None:
        self.vm_id = str(uuid.uuid4())
        self.call(
            "create",
            {
                "vmId": self.vm_id, "vmName": "demo", "memSize": 128, "smp": "1",
                "kernel": kernel, "initrd": initramfs, "kernelArgs": "console=ttyS0 quiet",
                "devices": [{"type": "console", "device": "console", "specParams": {"consoleType": "serial"}}],
            },
        )  # fmt: skip
        say(f"   the guest boots: {self.vm_id}")

    def _counts(self, before: int) -> bool:
        stats = self.stats()
        if stats["status"] == "Down":
            raise Mishap(f"the guest did not start: {stats.get('exitMessage', 'nobody knows why')}")
        return self.console.last() > before + PROOF

    def stats(self) -> dict[str, Any]:
        found: dict[str, Any] = self.call("getVmStats", self.vm_id)["statsList"][0]
        return found

    def qemu(self) -> int:
        return int(self.stats().get("pid") or 0)

    @property
    def console(self) -> Console:
        return Console(self.dir / "log" / "console" / f"{self.vm_id}.log")

    def stop(self) -> None:
        """Stop the guest and the daemon, and remove the directory."""
        told = self.endpoints()
        if told is not None:
            self.port = int(told["xmlrpc"]["port"])
            with contextlib.suppress(OSError, ValueError):
                for vm in call(self.port, "list")["vmList"]:
                    call(self.port, "destroy", vm["vmId"])
            os.kill(told["pid"], signal.SIGTERM)
            until(lambda: process_ended(told["pid"]), "vdsmd to stop")
            until(lambda: not self._helper(), "supervdsm to stop")
        for pid in self._leftovers():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        until(lambda: not self._leftovers(), "the guest to be gone")
        shutil.rmtree(self.dir, ignore_errors=True)

    def programs(self) -> dict[str, int]:
        """Return the pids of what runs here, by name: supervdsm (where there is one), vdsmd, QEMU."""
        told = self.endpoints() or {"pid": 0}
        found = {"supervdsm": self._helper(), "vdsmd": told["pid"], "QEMU": self.qemu()}
        return {name: pid for name, pid in found.items() if pid}

    def _helper(self) -> int:
        """Return the pid of the helper that has started vdsmd; 0 when there is none."""
        mark = f"supervdsm\0--spawn\0--config\0{self.config}\0".encode()
        return next((pid for pid in self._leftovers() if mark in command_line(pid)), 0)

    def _leftovers(self) -> list[int]:
        """Return the processes whose command lines name this directory, this one and its parent apart."""
        mine = {os.getpid(), os.getppid()}
        return [pid for pid in pids() if pid not in mine and f"{self.dir}/".encode() in command_line(pid)]


def last_words(output: str) -> str:
    """Return what a daemon that could not start said about it: its own message, else the end of its output."""
    lines = output.strip().splitlines()
    return "\n".join([line for line in lines if line.startswith("vdsmd: ")] or ["vdsmd could not start:", *lines[-15:]])
