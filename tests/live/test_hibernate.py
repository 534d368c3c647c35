"""Guests that are saved to a file and go on from it, under a daemon that is replaced, killed, refused."""

from __future__ import annotations

import itertools
import os
import select
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from drivers.vm.travel.memory import is_whole
from tests.conftest import Guest
from tests.live.test_guests import boot, stats, ticks
from tests.running import Running, Stage
from tests.until import until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

Start = Callable[..., Running]
PATIENCE = 240.0
NO_VM = 1


def status(daemon: Running, vm_id: str) -> str:
    return str(stats(daemon, vm_id)["status"])


def counts_on(daemon: Running, vm_id: str) -> None:
    """The guest goes on, and its count has no gap and no double."""
    seen = ticks(daemon, vm_id)
    until(lambda: ticks(daemon, vm_id)[-1] > seen[-1], PATIENCE, "the guest to count on")
    assert all(b == a + 1 for a, b in itertools.pairwise(ticks(daemon, vm_id)))


def create(daemon: Running, guest: Guest, vm_id: str, **params: Any) -> dict[str, Any]:
    return daemon.call(
        "create",
        {
            "vmId": vm_id,
            "memSize": 96,
            "kernel": guest.kernel,
            "initrd": guest.initramfs,
            "kernelArgs": "console=ttyS0 quiet",
            **params,
        },
    )


def say_hook(folder: Path, point: str) -> Path:
    """Have a script at the point write down what it is told. Returns where."""
    said = folder / f"{point}.said"
    script = folder / point / "script"
    script.parent.mkdir(parents=True, exist_ok=True)
    script.write_text(f'#!/bin/sh\necho "$vmId $FROM_SNAPSHOT" >>{said}\ngrep -c "<uuid>" "$_hook_domxml" >>{said}\n')
    script.chmod(0o755)
    return said


def test_a_guest_goes_on_from_a_file(daemon: Start, stage: Stage, guest: Guest) -> None:
    hooks = stage.base / "hooks"
    points = ("before_vm_hibernate", "after_vm_hibernate", "before_vm_dehibernate", "after_vm_dehibernate")
    said = {point: say_hook(hooks, point) for point in points}
    vdsmd = daemon(uri="embed", config={"paths": {"hooks": hooks}, "vars": {"migration_monitor_interval": 0.2}})
    (vm_id,) = boot(vdsmd, guest)
    memory = stage.base / "memory"
    assert vdsmd.call("hibernate", vm_id, "a,b,c")["status"]["code"] == 91
    assert vdsmd.call("migrateCancel", vm_id)["status"]["code"] == 47
    vdsmd.must("hibernate", vm_id, str(memory))
    assert vdsmd.call("hibernate", vm_id, str(memory))["status"]["code"] in (4, NO_VM)
    # Wanted while libvirt saves inside of the daemon: it waits, and happens by itself.
    generation = vdsmd.generation
    os.kill(vdsmd.pid, signal.SIGHUP)
    until(lambda: vdsmd.generation == generation + 1, PATIENCE)
    down = until(lambda: (s := stats(vdsmd, vm_id))["status"] == "Down" and s, PATIENCE)
    assert (down["exitCode"], down["exitReason"]) == (0, 5)
    assert is_whole(str(memory))
    ended = until(lambda: (m := vdsmd.must("migrateStatus", vm_id))["progress"] == 100 and m, PATIENCE)
    assert ended["migrationStats"]["status"] == {"code": 0, "message": "SaveState done"}
    vdsmd.must("destroy", vm_id)
    last = ticks(vdsmd, vm_id)[-1]

    reply = create(vdsmd, guest, vm_id, hiberVolHandle=str(memory), restoreFromSnapshot=True)
    assert reply["vmList"]["status"] == "WaitForLaunch"
    until(lambda: status(vdsmd, vm_id) == "Up", PATIENCE)
    until(lambda: ticks(vdsmd, vm_id)[-1] > last, PATIENCE)
    counts_on(vdsmd, vm_id)
    assert is_whole(str(memory))
    assert "hiberVolHandle" not in vdsmd.must("list", True, [vm_id])["vmList"][0]
    told = {point: until(lambda p=point: (t := said[p]).exists() and t.read_text(), PATIENCE) for point in points}  # type: ignore[misc]
    assert told["before_vm_hibernate"] == told["after_vm_hibernate"] == f"{vm_id} \n1\n"
    assert told["before_vm_dehibernate"] == told["after_vm_dehibernate"] == f"{vm_id} True\n1\n"
    events = vdsmd.must("vdsmd.events", 0)["events"] if vdsmd.call("vdsmd.events", 0)["status"]["code"] == 0 else []
    assert not events or "Restoring state" in {event.get("status") for event in events}


def test_the_configuration_is_kept_beside_the_memory_and_a_paused_guest_stays_paused(
    daemon: Start, stage: Stage, guest: Guest
) -> None:
    vdsmd = daemon(uri="embed")
    (vm_id,) = boot(vdsmd, guest)
    vdsmd.must("pause", vm_id)
    memory = stage.base / "memory"
    vdsmd.must("migrate", {"vmId": vm_id, "mode": "file", "dst": str(memory)})
    until(lambda: status(vdsmd, vm_id) == "Down", PATIENCE)
    vdsmd.must("destroy", vm_id)
    create(vdsmd, guest, vm_id, restoreState=str(memory))
    until(lambda: status(vdsmd, vm_id) == "Paused", PATIENCE)
    seen = ticks(vdsmd, vm_id)[-1]
    vdsmd.must("cont", vm_id)
    until(lambda: ticks(vdsmd, vm_id)[-1] > seen, PATIENCE)
    counts_on(vdsmd, vm_id)


def test_what_fails_leaves_the_guest_running_or_the_memory_whole(daemon: Start, stage: Stage, guest: Guest) -> None:
    vdsmd = daemon(uri="embed")
    (vm_id,) = boot(vdsmd, guest)
    vdsmd.must("hibernate", vm_id, str(stage.base / "no" / "such" / "folder"))
    failed = until(lambda: (m := vdsmd.call("migrateStatus", vm_id))["status"]["code"] != 0 and m, PATIENCE)
    assert failed["status"]["code"] == 12 and "no/such/folder" in failed["status"]["message"]
    until(lambda: status(vdsmd, vm_id) == "Up", PATIENCE)
    counts_on(vdsmd, vm_id)
    half = stage.base / "half"
    half.write_bytes(b"LibvirtQemudPart" + bytes(4096))
    vdsmd.must("destroy", vm_id)
    create(vdsmd, guest, vm_id, hiberVolHandle=str(half))
    down = until(lambda: (s := stats(vdsmd, vm_id))["status"] == "Down" and s, PATIENCE)
    assert (down["exitCode"], down["exitReason"]) == (1, 3) and "no memory" in down["exitMessage"]
    assert half.exists()


def test_a_crash_in_the_middle(daemon: Start, stage: Stage, guest: Guest) -> None:
    """Into a pipe that nobody reads: libvirt comes no further until the daemon is gone."""
    vdsmd = daemon(uri="embed")
    (vm_id,) = boot(vdsmd, guest)
    memory = stage.base / "memory"
    os.mkfifo(memory)
    reader = os.open(memory, os.O_RDONLY | os.O_NONBLOCK)
    try:
        vdsmd.must("hibernate", vm_id, str(memory))
        until(lambda: select.select([reader], [], [], 0)[0], PATIENCE, "the first bytes of the memory")
        assert os.read(reader, 16) == b"LibvirtQemudPart"
        assert status(vdsmd, vm_id) == "Saving State"
        seen = len(ticks(vdsmd, vm_id))
        vdsmd.kill()
    finally:
        os.close(reader)
    vdsmd = stage.start(uri="embed", again=vdsmd)
    until(lambda: vdsmd.call("ping")["status"]["code"] == 0, PATIENCE)
    until(lambda: status(vdsmd, vm_id) == "Up", PATIENCE)
    until(lambda: len(ticks(vdsmd, vm_id)) > seen, PATIENCE, "the guest to count on")
    counts_on(vdsmd, vm_id)
    assert vdsmd.call("migrateStatus", vm_id)["status"]["code"] == 12
