"""What may go wrong around machines, with real QEMUs and a real libvirtd: it is told, holds up no other, and mends itself."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Guest
from tests.drivers.network.namespace import inside
from tests.libvirts import Host, _call
from tests.live.test_create import MACS, bridges, created, links, machine, nic, payload, shown, stats
from tests.live.test_guests import console
from tests.running import PATIENCE, Running, Stage, runs
from tests.until import until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900 + 5 * int(os.environ.get("VDSMD_CYCLES", "0")))]

Start = Callable[..., Running]
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can do this to a host")


CYCLES = int(os.environ.get("VDSMD_CYCLES", "6"))
"""How many real machines come and go. With a thousand it takes some twenty minutes."""

IDS = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}")


def small(**more: Any) -> dict[str, Any]:
    return machine(memSize=16, **more)


def test_one_sample_is_enough_to_find_a_live_locked_qemu(daemon: Start) -> None:
    """The period is an hour: what is found is found within the first one."""
    vdsmd = daemon(uri="embed", config={"vars": {"vm_sample_interval": 3600}})
    stuck, other = (created(vdsmd, small()) for _ in range(2))
    pid = int(stats(vdsmd, stuck)["pid"])
    os.kill(pid, signal.SIGSTOP)
    try:
        vdsmd.must("destroy", created(vdsmd, small()))  # a start brings about a sample
        until(lambda: stats(vdsmd, stuck)["monitorResponse"] == "-1", PATIENCE, "it to be found out")
        assert stats(vdsmd, stuck)["status"] == "Paused"
        vdsmd.must("cont", other)
        assert (stats(vdsmd, other)["status"], stats(vdsmd, other)["monitorResponse"]) == ("Up", "0")
    finally:
        os.kill(pid, signal.SIGCONT)
    until(lambda: stats(vdsmd, stuck)["monitorResponse"] == "0", PATIENCE, "it to recover")
    vdsmd.must("cont", stuck)
    # Stopped anew, with a verb that waits for its monitor: who wants it gone does not wait for that verb.
    os.kill(pid, signal.SIGSTOP)
    answers: list[int] = []
    waiting = threading.Thread(target=lambda: answers.append(vdsmd.call("pause", stuck)["status"]["code"]))
    waiting.start()
    until(lambda: "verb=pause" in vdsmd.log(), PATIENCE, "it to be asked to pause")
    vdsmd.must("destroy", stuck)
    waiting.join()
    assert answers[0] != 0 and not runs(pid)
    assert (stats(vdsmd, other)["status"], stats(vdsmd, other)["monitorResponse"]) == ("Up", "0")
    vdsmd.must("destroy", other)


@pytest.fixture
def loop(stage: Stage) -> Iterator[tuple[str, Path]]:
    """Give a disk of the host, and the file that it is made of: what of it is not there cannot be read."""
    backing = stage.base / "backing"
    backing.touch()
    os.truncate(backing, 1 << 20)
    attached = subprocess.run(["losetup", "--show", "-f", backing], capture_output=True, text=True, check=False)
    if attached.returncode:
        pytest.skip(f"no loop devices here: {attached.stderr}")
    device = attached.stdout.strip()
    yield device, backing
    subprocess.run(["losetup", "-d", device], check=True)


@as_root
def test_a_guest_goes_on_when_its_storage_is_back(daemon: Start, guest: Guest, loop: tuple[str, Path]) -> None:
    device, backing = loop
    vdsmd = daemon(uri="embed", config={"vars": {"vm_sample_interval": 1}})
    disk = {"type": "disk", "device": "disk", "iface": "virtio", "path": device, "format": "raw"}
    boot = {"kernel": guest.kernel, "initrd": guest.initramfs, "kernelArgs": "console=ttyS0 quiet"}
    vm_id = created(vdsmd, machine(disk, memSize=96, **boot))
    os.truncate(backing, 0)
    vdsmd.must("cont", vm_id)
    until(lambda: stats(vdsmd, vm_id).get("pauseCode") in ("EIO", "EOTHER"), PATIENCE, "the guest to meet the error")
    vdsmd.reexec()
    assert stats(vdsmd, vm_id)["status"] == "Paused"
    os.truncate(backing, 1 << 20)
    until(lambda: b"demo guest ready" in console(vdsmd, vm_id), PATIENCE, "the guest to go on")
    assert stats(vdsmd, vm_id)["status"] == "Up" and "pauseCode" not in stats(vdsmd, vm_id)
    vdsmd.must("destroy", vm_id)


@pytest.fixture
def host(stage: Stage) -> Iterator[Host]:
    """Give a host with a libvirtd of its own."""
    host = Host(stage.base / "host", 1)
    try:
        host.start_libvirtd()
        yield host
    finally:
        host.clear()


@as_root
def test_libvirtd_is_killed_and_comes_back(stage: Stage, host: Host) -> None:
    vdsmd = stage.start(
        uri=host.uri, config={"vars": {"vm_sample_interval": 1}}, launcher=host.launcher, wait=False
    )  # fmt: skip
    vdsmd.call = lambda verb, *args: _call(vdsmd, verb, *args)  # type: ignore[method-assign]
    vdsmd.serving()
    vm_ids = [created(vdsmd, small(custom={"colour": "red"})) for _ in range(2)]
    vdsmd.must("cont", vm_ids[0])
    before = {vm_id: (stats(vdsmd, vm_id)["status"], stats(vdsmd, vm_id)["pid"]) for vm_id in vm_ids}
    assert host.libvirtd is not None
    for number in (signal.SIGKILL, signal.SIGTERM):
        host.libvirtd.send_signal(number)
        host.libvirtd.wait(PATIENCE)
        until(lambda: stats(vdsmd, vm_ids[0])["monitorResponse"] == "-1", PATIENCE, "the loss to be told")
        assert {v: (stats(vdsmd, v)["status"], stats(vdsmd, v)["pid"]) for v in vm_ids} == before
        assert vdsmd.call("pause", vm_ids[0])["status"]["code"] == 19
        waiting = small()
        vdsmd.must("create", waiting)
        vdsmd.reexec()
        assert {v: stats(vdsmd, v)["status"] for v in vm_ids} == {v: before[v][0] for v in vm_ids}
        host.start_libvirtd()
        until(lambda: all(stats(vdsmd, v)["monitorResponse"] == "0" for v in vm_ids), PATIENCE, "it to be found again")
        assert {v: (stats(vdsmd, v)["status"], stats(vdsmd, v)["pid"]) for v in vm_ids} == before
        until(lambda w=waiting: stats(vdsmd, w["vmId"])["status"] == "Paused", PATIENCE, "what waited to start")  # type: ignore[misc]
        vdsmd.must("destroy", waiting["vmId"])
    assert shown(vdsmd, vm_ids[0])["custom"] == {"colour": "red"}
    for vm_id in vm_ids:
        vdsmd.must("destroy", vm_id)


class Held:
    """What a daemon holds: descriptors, threads, children, and memory in KiB."""

    def __init__(self, daemon: Running) -> None:
        proc = Path(f"/proc/{daemon.pid}")
        opened = [os.readlink(entry) for entry in (proc / "fd").iterdir()]
        self.descriptors = sorted(path.partition(":")[0] for path in opened)
        fields = dict(line.split(":", 1) for line in (proc / "status").read_text().splitlines())
        self.threads, self.memory = int(fields["Threads"]), int(fields["VmRSS"].split()[0])
        self.children = (proc / "task" / str(daemon.pid) / "children").read_text().split()
        places = [*daemon.run_dir.rglob("*"), *daemon.lib_dir.rglob("*")]
        self.files = {str(path) for path in places if IDS.search(path.name)}
        """Those that are about one machine."""


def nothing_more(vdsmd: Running, before: Held) -> bool:
    """Whether it holds no descriptor that it did not hold before, when one of then may have been about to be closed."""
    assert not (more := Counter(Held(vdsmd).descriptors) - Counter(before.descriptors)), more
    return True


def cycles(vdsmd: Running, count: int, *devices: dict[str, Any]) -> None:
    with vdsmd.proxy() as proxy:
        for number in range(count):
            params = machine(*devices, memSize=16, vmName=f"number-{number}")
            vm_id, calls = params["vmId"], proxy
            assert calls.create(params)["status"]["code"] == 0  # type: ignore[index, call-overload]
            if devices:
                until(lambda v=vm_id: stats(vdsmd, v)["status"] == "Paused", PATIENCE)  # type: ignore[misc]
            assert calls.destroy(vm_id)["status"]["code"] == 0  # type: ignore[index, call-overload]


def test_a_thousand_machines_come_and_go_and_leave_nothing(daemon: Start) -> None:
    vdsmd = daemon(config={"vars": {"log_level": "ERROR", "vm_sample_interval": 1}})
    cycles(vdsmd, 100)
    before = Held(vdsmd)
    cycles(vdsmd, 900)
    assert vdsmd.must("list")["vmList"] == []
    until(lambda: nothing_more(vdsmd, before), PATIENCE, "descriptors to be closed")
    after = Held(vdsmd)
    assert (after.files, after.children) == (set(), before.children)
    assert after.threads <= before.threads + 2  # workers are made when they are needed, up to their limit
    assert after.memory < before.memory + 8 * 1024


@as_root
def test_real_machines_come_and_go_and_leave_nothing(daemon: Start) -> None:
    def come_and_go() -> None:
        bridges()
        vdsmd = daemon(uri="embed", config={"vars": {"vm_sample_interval": 1}})
        devices = (nic(MACS[0]), payload("floppy", "a", b"b"), payload("cdrom", "a", b"b", iface="ide"))
        cycles(vdsmd, 2, *devices)
        until(lambda: not links() and not list((vdsmd.run_dir / "payload").iterdir()), PATIENCE)
        before = Held(vdsmd)
        cycles(vdsmd, CYCLES, *devices)
        assert links() == {} and vdsmd.must("list")["vmList"] == []
        until(lambda: not Held(vdsmd).files, PATIENCE, "files to be gone")
        until(lambda: nothing_more(vdsmd, before), PATIENCE, "descriptors to be closed")
        until(lambda: Held(vdsmd).children == before.children, PATIENCE, "no children to be left")
        assert Held(vdsmd).memory < before.memory + 16 * 1024

    inside(come_and_go)
