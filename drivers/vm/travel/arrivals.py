"""Arrivals: machines that come from other hosts.

It promises that a machine is expected before libvirt is told to bring it, that it is waited for as long as the setting
says, over a re-exec and a crash, and that what has arrived is never ended because of what anyone said of its journey.
"""

from __future__ import annotations

import logging
import time
from functools import partial
from typing import Any

import msgspec

from drivers.errors import DriverError, Invalid, Unsupported
from drivers.vm.conf.params import Defaults, normalise
from drivers.vm.contract import NEVER_CAME, Status
from drivers.vm.desk import Desk
from drivers.vm.errors import CreateFailed, MigrationFailed
from drivers.vm.hypervisor.link import Link, Seen
from drivers.vm.machine import Journey, Machine, Stage, Way
from drivers.vm.xml.transfer import relocated

log = logging.getLogger("vm")

Struct = dict[str, Any]


class Arrivals:
    """See the module. Calls come from the loop's thread unless said otherwise."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def expect(self, params: Struct) -> tuple[Machine, str]:
        """In a worker: take in a machine that comes, and return it, and its definition for this host. Raises VmExists,
        Invalid, MissingParameter, Unsupported, CreateFailed, HookFailed, MigrationFailed, HypervisorDown."""
        given = {key: value for key, value in params.items() if not key.startswith("_")}
        xml, offset = params.get("_srcDomXML", ""), given.pop("elapsedTimeOffset", 0)
        given.pop("migrationDest", None)
        if not isinstance(xml, str) or isinstance(offset, bool) or not isinstance(offset, int | float):
            raise Invalid(what="params", reason="_srcDomXML must be a string, elapsedTimeOffset a number")
        settings = self._desk.settings()
        conf = normalise(given, Defaults(nic_model=settings.nic_model, bridge=settings.bridge))
        link = self._desk.connection.require()
        if not link.row.migrates:
            raise MigrationFailed(
                vm=conf["vmId"], reason="libvirt works inside of this daemon, and takes nothing from others"
            )
        now = time.time()
        machine = Machine(
            vm_id=conf["vmId"],
            conf=conf,
            status=Status.MIGRATION_DESTINATION,
            created=now,
            started=now - max(0.0, min(float(offset), now)),
            status_since=now,
            journey=Journey(way=Way.IN, stage=Stage.BEGINNING, begun=now),
        )
        self._desk.machines.add(machine)
        try:
            return machine, self._prepare(link, machine, xml)
        except (DriverError, OSError) as error:
            self._withdraw(machine)
            raise error if isinstance(error, DriverError) else CreateFailed(vm=machine.vm_id, reason=error) from error

    def any(self) -> bool:
        """Whether somebody is awaited."""
        return any(machine.status is Status.MIGRATION_DESTINATION for machine in self._desk.machines.all())

    def came(self, machine: Machine) -> None:
        """Its domain is here, and not running yet."""
        if machine.journey is not None and machine.journey.stage is Stage.BEGINNING:
            self._desk.note(machine, msgspec.structs.replace(machine.journey, stage=Stage.MOVING))

    def arrived(self, machine: Machine) -> None:
        """It runs here."""
        if machine.journey is not None and not machine.journey.is_over:
            self._desk.note(machine, msgspec.structs.replace(machine.journey, stage=Stage.DONE, progress=100))
        self._desk.agents.announce(machine, "after_migration")
        link = self._desk.connection.link
        if link is not None:
            self._desk.host.submit(
                partial(self._welcome, machine, link),
                partial(self._welcomed, machine),
                key=f"{machine.vm_id}/way",
                timeout=0,  # each script has one
            )

    def tick(self) -> None:
        """Give up those that have not come in time."""
        link, patience = self._desk.connection.link, self._desk.settings().migration_destination_timeout
        for machine in self._desk.machines.all():
            journey = machine.journey
            awaited = machine.status is Status.MIGRATION_DESTINATION and journey and journey.stage is Stage.BEGINNING
            if awaited and journey and link and time.time() - journey.begun > patience:
                self._desk.host.submit(
                    partial(link.observe, machine.vm_id), partial(self._give_up, machine), key=machine.vm_id
                )

    def _prepare(self, link: Link, machine: Machine, xml: str) -> str:
        vm_id = machine.vm_id
        xml = self._desk.hooked.over("before_vm_migrate_destination", machine.conf, xml)
        self._desk.hooked.over_devices("before_device_migrate_destination", machine.conf, xml)
        try:
            _check_layers(machine)
            self._desk.machines.update(machine, conf=self._desk.belongings.make(machine.conf, link.row))
            disks = self._disks(machine)
            room = self._desk.room(link)
            self._desk.consoles.prepare(vm_id)
            console = self._desk.consoles.prefix(vm_id)
            return relocated(xml, vm_id=vm_id, channels_dir=room, console=console, disks=disks) if xml else ""
        except (DriverError, OSError) as error:
            raise CreateFailed(vm=vm_id, reason=error) from error

    def _disks(self, machine: Machine) -> dict[str, str]:
        """Return the paths of the disks' data on this host, by the disks' names."""
        images = self._desk.images()
        disks = [device for device in machine.conf["devices"] if device.get("type") == "disk" and device.get("name")]
        named = [disk for disk in disks if any(disk.get(key) for key in ("path", "GUID", "UUID", "volumeID"))]
        return {str(disk["name"]): images.prepare(disk) for disk in named}

    def _withdraw(self, machine: Machine) -> None:
        self._desk.consoles.remove(machine.vm_id)
        self._desk.belongings.drop(machine.vm_id)
        self._desk.machines.remove(machine)

    def _welcome(self, machine: Machine, link: Link) -> None:
        xml = link.xml(machine.vm_id)
        self._desk.hooked.over_devices("after_device_migrate_destination", machine.conf, xml)
        self._desk.hooked.over("after_vm_migrate_destination", machine.conf, xml)

    def _welcomed(self, machine: Machine, _: None, error: Exception | None) -> None:
        if isinstance(error, DriverError):
            log.warning("The scripts after an arrival were not run vm=%s error=%s", machine.vm_id, error)
        elif error is not None:
            log.error("Unexpected failure after an arrival vm=%s", machine.vm_id, exc_info=error)

    def _give_up(self, machine: Machine, seen: Seen | None, error: Exception | None) -> None:
        awaited = self._desk.machines.is_current(machine) and machine.status is Status.MIGRATION_DESTINATION
        if seen is None and error is None and awaited:
            self._desk.watch.conclude(machine, NEVER_CAME)


def _check_layers(machine: Machine) -> None:
    """Raise Unsupported for a disk of which a layer is on the other host, and nowhere else."""
    if any(device.get("shared") == "transient" for device in machine.conf["devices"]):
        raise Unsupported(what="a transient disk", reason="what was written to it stays on its host")
