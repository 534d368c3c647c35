"""Drives: disks that are plugged in and out, media that are changed, disks that grow."""

from __future__ import annotations

import time
from functools import partial
from typing import Any

from drivers.errors import Failed
from drivers.vm.answers import shown
from drivers.vm.changes import lookup
from drivers.vm.changes.bench import Bench, Conf
from drivers.vm.conf.params import new_device
from drivers.vm.errors import (
    ChangeDiskFailed,
    ChangeFailed,
    HotplugDiskFailed,
    HotunplugDiskFailed,
    ImageUnavailable,
    ResizeFailed,
)
from drivers.vm.hooked import element_text
from drivers.vm.hypervisor.link import Link
from drivers.vm.machine import Machine

Struct = dict[str, Any]

NO_SUCH_FILE = ("No such file or directory", "not a directory")
GONE_CHECK = 0.2


class Drives:
    """See the module. All calls raise NoSuchVm, MigrationInProgress, NotResponding, and the error of their own."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench

    def change_medium(self, vm_id: str, kind: str, said: str | Struct) -> Conf:
        """Put a medium into the drive of the kind ('cdrom' or 'floppy'), '' for none. Returns the machine.
        Raises ChangeDiskFailed, and ImageUnavailable when there is no such medium."""
        with self._bench.work(vm_id, ChangeDiskFailed, "changing a medium") as (machine, link):
            spec = said if isinstance(said, dict) else {"path": said}
            drive = lookup.drive_for(machine.conf, kind, spec)
            path = self._bench.images.prepare(spec) if any(map(spec.get, _PLACES)) else ""
            ids = {key: spec.get(key, "") for key in _IDS if key in spec or key in drive}

            def edit(conf: Conf) -> Conf:
                return {**lookup.replaced(conf, drive, path=path, **ids), kind: path}

            try:
                with self._bench.change(machine, link, edit):
                    link.devices.change_medium(machine.vm_id, drive["name"], path)
            except Failed as error:
                if any(words in str(error) for words in NO_SUCH_FILE):
                    raise ImageUnavailable(reason=error) from error
                raise
            return shown(machine)

    def hotplug(self, params: Struct) -> Conf:
        """Plug in the disk `drive`. Returns the machine. Raises MissingParameter, HotplugDiskFailed."""
        vm_id = lookup.text(params, "vmId")
        drive = lookup.struct(params, "drive")
        with self._bench.work(vm_id, HotplugDiskFailed, "plugging in a disk") as (machine, link):
            given = dict(drive)
            if given.get("device", "disk") in ("disk", "lun") and given.get("diskType") != "network":
                given["path"] = self._bench.images.prepare(drive)
            device = new_device(machine.conf, given, "disk", nic_model="")
            self._plug(machine, link, device)
            return shown(machine)

    def _plug(self, machine: Machine, link: Link, device: Struct) -> None:
        element = link.device_xml(machine.vm_id, device, drive_cache=self._bench.settings.drive_cache)
        script = self._bench.hooked.around_piece("disk_hotplug", machine.conf, device.get("custom"))
        change = self._bench.change(machine, link, lambda conf: {**conf, "devices": [*conf["devices"], device]})
        with script as amend, change:
            link.devices.attach(machine.vm_id, amend(element))

    def hotunplug(self, params: Struct) -> Conf:
        """Plug out the disk `drive`. Returns the machine. Raises MissingParameter, HotunplugDiskFailed, also when the guest
        does not let go of it in time; should it do so later, that is noticed."""
        vm_id = lookup.text(params, "vmId")
        said = lookup.struct(params, "drive")
        with self._bench.work(vm_id, HotunplugDiskFailed, "unplugging a disk") as (machine, link):
            disk = lookup.disk(machine.conf, said)
            unplug(self._bench, machine, link, disk, HotunplugDiskFailed)
            return shown(machine)

    def extend(self, vm_id: str, said: Struct, size: int) -> int:
        """Make a disk larger, as the guest sees it. Returns its size in bytes. Raises ResizeFailed."""
        with self._bench.work(vm_id, ResizeFailed, "resizing a disk") as (machine, link):
            disk = lookup.image(machine.conf, said)
            name, now = disk["name"], link.blocks.capacity(machine.vm_id, disk["name"])
            if size < now:
                raise ResizeFailed(vm=vm_id, reason=f"disk {name} has {now} bytes: it can only be made larger")
            link.blocks.resize(machine.vm_id, name, size)
            return link.blocks.capacity(machine.vm_id, name)


_IDS = ("poolID", "domainID", "imageID", "volumeID")
_PLACES = ("path", "GUID", "UUID", "imageID", "volumeID")


def unplug(bench: Bench, machine: Machine, link: Link, device: Struct, error: type[ChangeFailed]) -> None:
    """Have the guest let go of a device, and wait until it has."""
    name = "nic_hotunplug" if device["type"] == "interface" else "disk_hotunplug"
    seen = partial(_element, link, machine, device)
    script = bench.hooked.around(name, machine.conf, seen, device.get("custom"), keep=True)
    with script, bench.change(machine, link, lambda conf: lookup.without(conf, device)):
        link.devices.detach(machine.vm_id, device)
        deadline = time.monotonic() + bench.settings.hotunplug_timeout
        while link.devices.has(machine.vm_id, device):
            if time.monotonic() > deadline:
                raise error(vm=machine.vm_id, reason="the guest does not let go of the device")
            time.sleep(GONE_CHECK)


def _element(link: Link, machine: Machine, device: Struct) -> str:
    return element_text(link.xml(machine.vm_id), device)
