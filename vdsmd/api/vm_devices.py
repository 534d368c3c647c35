"""Verbs that change the devices of running virtual machines, their processors and their memory.

Those with a struct `params` find the machine's id in it, as `vmId`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vdsmd.api.table import Reply, verb
from vdsmd.api.wire import Number, Struct, Uuid

if TYPE_CHECKING:
    from vdsmd.daemon import Daemon


@verb("changeCD", key="vmId", cli="vm change-cd")
def change_cd(daemon: Daemon, vmId: Uuid, driveSpec: str | dict[str, Any]) -> Reply:
    """Put another medium into the CD-ROM drive of a virtual machine.

    It is done whether or not the guest has locked it. `driveSpec` is a path, '' for no medium, or a struct that names the
    medium: by `path`, or by the ids of its volume. Returns `vmList`, one struct: the machine.
    """
    return {"vmList": daemon.vms.changes.drives.change_medium(vmId, "cdrom", driveSpec)}


@verb("changeFloppy", key="vmId", cli="vm change-floppy")
def change_floppy(daemon: Daemon, vmId: Uuid, driveSpec: str | dict[str, Any]) -> Reply:
    """Put another medium into the floppy drive of a virtual machine. See changeCD."""
    return {"vmList": daemon.vms.changes.drives.change_medium(vmId, "floppy", driveSpec)}


@verb("hotplugDisk", key="params.vmId", cli="vm hotplug-disk")
def hotplug_disk(daemon: Daemon, params: Struct) -> Reply:
    """Plug a disk into a running virtual machine.

    `drive` is a struct as in the devices of create. Returns `vmList`, one struct: the machine."""
    return {"vmList": daemon.vms.changes.drives.hotplug(params)}


@verb("hotunplugDisk", key="params.vmId", timeout=120, cli="vm hotunplug-disk")
def hotunplug_disk(daemon: Daemon, params: Struct) -> Reply:
    """Plug a disk out of a running virtual machine.

    `drive` names it by its path, name, or the ids of its volume. The guest must let go of it within hotunplug_timeout
    seconds. Returns `vmList`, one struct: the machine."""
    return {"vmList": daemon.vms.changes.drives.hotunplug(params)}


@verb("hotplugNic", key="params.vmId", cli="vm hotplug-nic")
def hotplug_nic(daemon: Daemon, params: Struct) -> Reply:
    """Plug a network card into a running virtual machine.

    `nic` is a struct as in the devices of create. Returns `vmList`, one struct: the machine."""
    return {"vmList": daemon.vms.changes.nics.hotplug(params)}


@verb("hotunplugNic", key="params.vmId", timeout=120, cli="vm hotunplug-nic")
def hotunplug_nic(daemon: Daemon, params: Struct) -> Reply:
    """Plug a network card out of a running virtual machine.

    `nic` names it by its macAddr. The guest must let go of it within hotunplug_timeout seconds. Returns `vmList`, one
    struct: the machine."""
    return {"vmList": daemon.vms.changes.nics.hotunplug(params)}


@verb("vmUpdateDevice", key="vmId", cli="vm update-device")
def vm_update_device(daemon: Daemon, vmId: Uuid, params: Struct) -> Reply:
    """Change a device of a running virtual machine; what is not said stays.

    With `deviceType` 'interface': the card with this `alias`; its `linkActive`, `network`, and limits (`specParams`).
    Returns `vmList`, a struct with `devices`, a list of that card. With 'graphics': the password of the first display of the
    kind `graphicsType`: `password`, `ttl` seconds, `existingConnAction`.
    """
    return daemon.vms.changes.nics.update(vmId, params)


@verb("hotplugMemory", key="params.vmId", cli="vm hotplug-memory")
def hotplug_memory(daemon: Daemon, params: Struct) -> Reply:
    """Plug memory into a running virtual machine.

    `memory` is a module with `size` in MiB, and the `node` of the guest that it belongs to. The machine must have been made
    with room for it (maxMemSize, guestNumaNodes). Returns `vmList`, one struct: the machine."""
    return {"vmList": daemon.vms.changes.resources.hotplug_memory(params)}


@verb("setNumberOfCpus", key="vmId", cli="vm set-cpus")
def set_number_of_cpus(daemon: Daemon, vmId: Uuid, numberOfCpus: Number) -> Reply:
    """Have a running virtual machine go on with so many processors.

    It can have up to those that it was made with (maxVCpus). Returns `vmList`, one struct: the machine."""
    return {"vmList": daemon.vms.changes.resources.set_cpus(vmId, numberOfCpus)}


@verb("setBalloonTarget", key="vmId", cli="vm set-balloon")
def set_balloon_target(daemon: Daemon, vmId: Uuid, target: Number) -> Reply:
    """Ask the guest to make do with `target` KiB of memory.

    The rest of its memory goes back to the host, as far as the guest heeds it."""
    daemon.vms.changes.resources.set_balloon(vmId, target)
    return {}
