"""Real guests under a daemon that is replaced, stopped, killed: the reason why all of this exists."""

from __future__ import annotations

import itertools
import json
import os
import re
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Guest
from tests.running import Running, Stage
from tests.until import until

pytestmark = pytest.mark.slow

Start = Callable[..., Running]
ROOT = Path(__file__).parents[2]
PATIENCE = 240.0


def boot(daemon: Running, guest: Guest, count: int = 1) -> dict[str, int]:
    """Boot guests and wait until each counts; return their QEMU pids."""
    ids = [str(uuid.uuid4()) for _ in range(count)]
    for vm_id in ids:
        daemon.must(
            "create",
            {
                "vmId": vm_id,
                "vmName": f"guest-{vm_id[:8]}",
                "memSize": 96,
                "smp": 1,
                # No display: where several libvirts choose ports at the same time, two may choose the same.
                "kernel": guest.kernel,
                "initrd": guest.initramfs,
                "kernelArgs": "console=ttyS0 quiet",
            },
        )
    until(lambda: all(ticks(daemon, vm_id) for vm_id in ids), PATIENCE, "all guests to count")
    return {vm_id: pid(daemon, vm_id) for vm_id in ids}


def console(daemon: Running, vm_id: str) -> bytes:
    logs = daemon.log_dir.joinpath("console").glob(f"{vm_id}.log*")
    ordered = sorted(logs, key=lambda path: -int(path.suffix[1:]) if path.suffix != ".log" else 0)
    return b"".join(path.read_bytes() for path in ordered)


def ticks(daemon: Running, vm_id: str) -> list[int]:
    return [int(number) for number in re.findall(rb"tick (\d+)\r?\n", console(daemon, vm_id))]


def pid(daemon: Running, vm_id: str) -> int:
    return int(stats(daemon, vm_id)["pid"])


def stats(daemon: Running, vm_id: str) -> dict[str, Any]:
    found: dict[str, Any] = daemon.must("getVmStats", vm_id)["statsList"][0]
    return found


def assert_counted(daemon: Running, vm_id: str) -> int:
    """The guest's count on the console has no gap and no double; it still goes on. Return how far it has come."""
    seen = ticks(daemon, vm_id)
    gaps = [(a, b) for a, b in itertools.pairwise(seen) if b != a + 1]
    assert not gaps
    until(lambda: ticks(daemon, vm_id)[-1] > seen[-1], PATIENCE, "the guest to count on")
    return seen[-1]


def settled(daemon: Running) -> bool:
    return not any(daemon.must("vdsmd.status")["info"]["owners"].values())


@pytest.mark.timeout(900)
def test_re_execs_under_load_lose_nothing(daemon: Start, guest: Guest) -> None:
    """The short form of `scripts/bench reexec`: guests that count, clients that never retry, some of them changing things."""
    vdsmd = daemon(uri="embed", config={"vars": {"log_level": "WARNING"}})
    pids = boot(vdsmd, guest, 2)
    vdsmd.reexec()
    until(lambda: settled(vdsmd), PATIENCE)
    proc = Path(f"/proc/{vdsmd.pid}")
    named = set(vdsmd.must("vdsmd.status")["info"]["named_descriptors"])
    environment = len((proc / "environ").read_bytes())
    kinds = [("reader", ""), ("pauser", next(iter(pids))), ("maker", ""), ("prober", "")]
    loads = [
        subprocess.Popen(
            [sys.executable, "-m", "scripts.benchmarks.client", str(vdsmd.port), kind, argument],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT,
        )
        for kind, argument in kinds
    ]  # fmt: skip
    try:
        for _ in range(8):
            vdsmd.reexec()
    finally:
        seen = [json.loads(load.communicate("")[0]) for load in loads]
    assert [tally["failures"] for tally in seen] == [[], [], [], []]
    assert all(tally["calls"] for tally in seen)
    until(lambda: settled(vdsmd), PATIENCE)
    assert {vm_id: pid(vdsmd, vm_id) for vm_id in pids} == pids
    for vm_id in pids:
        vdsmd.call("cont", vm_id)
        assert_counted(vdsmd, vm_id)
    assert set(vdsmd.must("vdsmd.status")["info"]["named_descriptors"]) == named
    assert len((proc / "environ").read_bytes()) == environment
    until(lambda: no_zombies(vdsmd.pid), PATIENCE, "no zombies")


def no_zombies(parent: int) -> bool:
    listed = subprocess.run(
        ["ps", "--ppid", str(parent), "-o", "state=,args="], capture_output=True, text=True, check=False
    )
    assert not [line for line in listed.stdout.splitlines() if line.startswith("Z")]
    return True


@pytest.mark.timeout(900)
def test_guests_outlive_the_daemon_however_it_ends(daemon: Start, stage: Stage, guest: Guest) -> None:
    vdsmd = daemon(uri="embed")
    pids = boot(vdsmd, guest)
    (vm_id,) = pids
    for number in (signal.SIGTERM, signal.SIGKILL):
        vdsmd.end(number)
        assert os.path.exists(f"/proc/{pids[vm_id]}")
        vdsmd = stage.start(uri="embed", again=vdsmd)
        until(lambda d=vdsmd: d.call("ping")["status"]["code"] == 0, PATIENCE)  # type: ignore[misc]
        until(lambda d=vdsmd: stats(d, vm_id)["status"] == "Up" and settled(d), PATIENCE)  # type: ignore[misc]
        assert pid(vdsmd, vm_id) == pids[vm_id] and vdsmd.generation == 0
        assert_counted(vdsmd, vm_id)
    vdsmd.reexec()
    assert_counted(vdsmd, vm_id)
    vdsmd.must("destroy", vm_id)
    until(lambda: not os.path.exists(f"/proc/{pids[vm_id]}"), PATIENCE)
    assert vdsmd.must("list")["vmList"] == []


@pytest.mark.timeout(900)
def test_a_guest_that_dies_in_the_pause_is_told_afterwards(daemon: Start, guest: Guest) -> None:
    vdsmd = daemon(uri="embed")
    pids = boot(vdsmd, guest, 2)
    gone, stays = pids
    os.kill(vdsmd.pid, signal.SIGSTOP)
    os.kill(pids[gone], signal.SIGKILL)
    os.kill(vdsmd.pid, signal.SIGHUP)
    os.kill(vdsmd.pid, signal.SIGCONT)
    until(lambda: vdsmd.generation == 1, PATIENCE)
    down = until(lambda: (s := stats(vdsmd, gone))["status"] == "Down" and s, PATIENCE)
    assert down["exitCode"] == 1
    assert pid(vdsmd, stays) == pids[stays]
    assert_counted(vdsmd, stays)
    vdsmd.must("destroy", gone)


@pytest.mark.timeout(900)
def test_a_guest_shuts_down_when_asked(daemon: Start, guest: Guest) -> None:
    vdsmd = daemon(uri="embed")
    (vm_id,) = boot(vdsmd, guest)
    vdsmd.must("shutdown", vm_id, 0, "maintenance")
    vdsmd.reexec()
    down = until(lambda: (s := stats(vdsmd, vm_id))["status"] == "Down" and s, PATIENCE)
    assert (down["exitCode"], down["exitReason"]) == (0, 6)
