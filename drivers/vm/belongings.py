"""Belongings: what a machine has on the host beside its domain, made at its start and taken away at its end.

Media made of files, taps in bridges, layers that are thrown away, the right to open devices. It promises that nothing is made
that is not found again by the machine's id, so that whoever sees a machine's end, whenever, takes all of it away.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from functools import partial
from typing import TYPE_CHECKING, Any

from drivers.base import Host
from drivers.errors import DriverError
from drivers.vm.machine import Machine
from drivers.vm.machines import Machines
from drivers.vm.made import hostdevs, layers, payload, taps

if TYPE_CHECKING:
    from drivers.vm.changes.images import Images
    from drivers.vm.hypervisor.kinds import Hypervisor

log = logging.getLogger("vm")

Conf = dict[str, Any]
Struct = dict[str, Any]


class Belongings:
    """Calls come from worker threads with the machine's id as key, but for `ended`, `unplugged` and `sweep` (any thread)."""

    def __init__(self, host: Host, machines: Machines, images: Callable[[], Images]) -> None:
        self._host = host
        self._machines = machines
        self._images = images

    def make(self, conf: Conf, row: Hypervisor) -> Conf:
        """Make all that the machine needs, and return the configuration in which its devices name it. Raises Failed,
        Unsupported, or ImageUnavailable, and then some may be there: `drop` is for that."""
        vm_id = str(conf["vmId"])
        return {**conf, "devices": [self._device(vm_id, device, row) for device in conf["devices"]]}

    def plug(self, vm_id: str, nic: Struct, row: Hypervisor) -> Struct:
        """Have what a nic needs on the host's side, as it is to be plugged in now. Returns the nic with its name there.
        Raises Failed."""
        if not is_tapped(nic, row):
            return nic
        named = {**nic, "name": taps.name_of(vm_id, str(nic.get("macAddr", "")))}
        taps.plug(self._host.root, named)
        return named

    def has_tap(self, vm_id: str, nic: Struct, row: Hypervisor) -> bool:
        """Say whether a nic that is plugged in has a tap of ours: it may be in no bridge by now."""
        return row.taps and taps.is_of(vm_id, str(nic.get("name", "")))

    def move(self, nic: Struct, before: Struct) -> None:
        """Plug the tap of a nic into the bridge that the nic says, or into none, with all that it asks for. Raises Failed."""
        taps.plug(self._host.root, nic, before)

    def watch(self, nic: Struct, before: Struct) -> None:
        """Have a nic whose tap is libvirt's get copies of what passes the networks that it watches. Raises Failed."""
        if nic.get("name"):
            taps.watch(self._host.root, nic, before)

    def watch_all(self, vm_id: str, devices: list[Struct], row: Hypervisor) -> None:
        """Do so for a machine that has just started. It runs: what cannot be is logged."""
        for nic in devices:
            if nic.get("portMirroring") and not row.taps:
                try:
                    self.watch(nic, {})
                except DriverError as error:
                    log.error("A nic watches no networks vm=%s nic=%s error=%s", vm_id, nic.get("name"), error)

    def tidy(self, machine: Machine) -> None:
        """Remove the taps of nics that the machine has no more."""
        names: set[str] = set()
        for nic in (*machine.conf["devices"], *machine.intended.get("devices", ())):
            if nic.get("type") == "interface":
                mac, name = str(nic.get("macAddr", "")), str(nic.get("name", ""))
                if not mac and not name:
                    return  # whose it is cannot be told
                names |= {name, taps.name_of(machine.vm_id, mac)}
        taps.remove(self._host.root, (name for name in taps.present(machine.vm_id) if name not in names))

    def drop(self, vm_id: str) -> None:
        """Take away all that belongs to a machine which has ended. Any number of times; what cannot be is logged."""
        machine = self._machines.find(vm_id)
        for nic in machine.conf.get("devices", ()) if machine else ():
            if nic.get("portMirroring") and not taps.is_of(vm_id, str(nic.get("name", ""))):
                taps.unwatch(self._host.root, nic)
        taps.remove(self._host.root, taps.present(vm_id))
        if machine and hostdevs.must_be_granted() and any(map(hostdevs.is_usb, machine.conf.get("devices", ()))):
            hostdevs.revoke(self._host.root, vm_id)
        for remove in (partial(payload.remove, self._media), partial(layers.remove, self._layers)):
            try:
                remove(vm_id)
            except OSError as error:
                log.error("Something of a machine stays behind vm=%s error=%s", vm_id, error)

    def leave(self, machine: Machine) -> None:
        """Take away all that belongs to a machine which has ended, and let go of its images."""
        self.drop(machine.vm_id)
        self._release(machine)

    def ended(self, machine: Machine) -> None:
        """The machine is Down: have all that belongs to it taken away, unless it has a successor by then."""
        self._host.submit(partial(self._ended, machine), partial(_dropped, machine), key=machine.vm_id)

    def unplugged(self, vm_id: str) -> None:
        """The machine has let go of a device, perhaps long after it was asked to."""
        machine = self._machines.find(vm_id)
        if machine is not None:
            self._host.submit(partial(self.tidy, machine), partial(_dropped, machine), key=machine.vm_id)

    def sweep(self, live: Collection[str] = ()) -> None:
        """A previous run may not have come to it: take away what belongs to machines that are Down, or that ended with the host
        when it did. `live`: the domains there are."""
        for machine in self._machines.all():
            if machine.is_down:
                self.ended(machine)
        known = {*live, *(machine.vm_id for machine in self._machines.all())}
        self._host.submit(partial(layers.forget_other_boots, self._layers, known), _swept, key="vm/layers")

    def _ended(self, machine: Machine) -> None:
        if self._machines.find(machine.vm_id) is machine:
            self.leave(machine)

    def _release(self, machine: Machine) -> None:
        """Let go of the images that no other machine uses."""
        others = [other for other in self._machines.all() if other is not machine and not other.is_down]
        used = {disk.get("imageID") for other in others for disk in other.conf["devices"]}
        for disk in machine.conf["devices"]:
            if disk.get("type") == "disk" and disk.get("imageID") and disk["imageID"] not in used:
                self._images().release(disk)

    def _device(self, vm_id: str, device: Struct, row: Hypervisor) -> Struct:
        if device.get("type") == "interface":
            return self.plug(vm_id, device, row)
        if hostdevs.is_usb(device):
            return self._usb(vm_id, device, row)
        return self._disk(vm_id, device) if device.get("type") == "disk" else device

    def _usb(self, vm_id: str, device: Struct, row: Hypervisor) -> Struct:
        found = hostdevs.located(device)
        if row.children_are_ours and hostdevs.must_be_granted():
            hostdevs.grant(self._host.root, vm_id, found)  # QEMU runs as the ordinary user that we are
        return found

    def _disk(self, vm_id: str, disk: Struct) -> Struct:
        if (disk.get("specParams") or {}).get("vmPayload"):
            return {**disk, "path": payload.make(self._media, vm_id, disk)}
        if _is_to_be_found(disk):
            disk = {**disk, "path": self._images().prepare(disk)}
        if disk.get("shared") == "transient":
            disk = {**disk, "path": layers.make(self._layers, vm_id, disk), "format": "cow"}
        return disk

    @property
    def _media(self) -> str:
        return f"{self._host.run_dir}/payload"

    @property
    def _layers(self) -> str:
        return f"{self._host.lib_dir}/transient"


def _is_to_be_found(disk: Struct) -> bool:
    """Say whether only storage knows where the data are: they are named by ids, or are a medium's of an ISO domain."""
    path = str(disk.get("path") or "")
    if path:
        return not path.startswith("/") and disk.get("device") in ("cdrom", "floppy")
    return any(map(disk.get, ("imageID", "volumeID")))


def is_tapped(nic: Struct, row: Hypervisor) -> bool:
    """Say whether root makes a tap for the nic when it is plugged in."""
    return row.taps and nic.get("device", "bridge") in ("", "bridge") and bool(nic.get("network"))


def _swept(_: None, error: Exception | None) -> None:
    if error is not None:
        log.error("Layers of machines that ended with the host stay behind", exc_info=error)


def _dropped(machine: Machine, _: None, error: Exception | None) -> None:
    if isinstance(error, DriverError):
        log.error("Something of a machine stays behind vm=%s error=%s", machine.vm_id, error)
    elif error is not None:
        log.error("Unexpected failure while cleaning up vm=%s", machine.vm_id, exc_info=error)
