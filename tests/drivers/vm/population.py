"""Machines of every kind that a record or a checkpoint can be about."""

from __future__ import annotations

import msgspec

from drivers.vm.conf.params import normalise
from drivers.vm.contract import USER_SHUTDOWN, Status, Virt
from drivers.vm.machine import Machine, Shutdown, VmRecord
from drivers.vm.vmstats import Sample

UP, PAUSED, ASKED, SAVING, WAITING, DOWN = (f"{number}0000000-0000-4000-8000-000000000000" for number in range(1, 7))
ALIVE = (UP, PAUSED, ASKED, SAVING)
"""Those whose domains exist. ASKED is one that an operator has asked to shut down, much later."""

DEVICES = [
    {"type": "disk", "device": "disk", "path": "/images/a", "format": "qcow2", "specParams": {}},
    {"type": "interface", "device": "bridge", "macAddr": "00:1a:4a:00:00:01", "network": "ovirtmgmt"},
    {"type": "balloon", "device": "memballoon", "specParams": {"model": "virtio"}},
]


def machine(vm_id: str, status: Status) -> Machine:
    conf = normalise({"vmId": vm_id, "memSize": "64", "vmName": f"guest {vm_id[0]}", "devices": DEVICES})
    one = Machine(vm_id=vm_id, conf=conf, status=status, created=1.7e9, started=1.7e9, status_since=1.7e9)
    one.pid, one.pid_start = 4242, 123456
    return one


def machines() -> list[Machine]:
    up, paused, asked = machine(UP, Status.UP), machine(PAUSED, Status.PAUSED), machine(ASKED, Status.POWERING_DOWN)
    paused.pause_code, paused.xml, paused.watchdog = "ENOSPC", "<domain/>", {"action": "pause"}
    asked.shutdown = Shutdown(press_at=1e12, patience=120)
    down = machine(DOWN, Status.DOWN)
    down.ending, down.pid, down.pid_start = USER_SHUTDOWN, 0, 0
    return [up, paused, asked, machine(SAVING, Status.SAVING), machine(WAITING, Status.WAIT_FOR_LAUNCH), down]


def samples() -> str:
    last, before = (Sample(taken=t, cpu=9, vcpus=1, nics={"vnet0": [1] * 6}, disks={"hda": [2] * 10}) for t in (2, 1))
    return msgspec.json.encode({UP: (last, before), PAUSED: (last, None)}).decode()


def record() -> VmRecord:
    virt = Virt(kvm=True, machines=["pc"], models=["Westmere"], versions={"libvirt": "9"})
    return VmRecord(machines=machines(), samples=samples(), uri="fake:///", boot="", virt=virt)
