"""Give device nodes to the daemon's user for a guest, by rules of udev's that last while the guest has the device.

It promises that a rule is written from typed values only, that its file is whole or not there, and that a device this host
has mounted is not given away.
"""

from __future__ import annotations

import os
import re

from supervdsm.errors import ActionError, Failed, Invalid, NotAllowed, NotFound
from supervdsm.meanings import meaning
from supervdsm.mounts import in_use
from supervdsm.programs import find, run
from supervdsm.registry import HSMD, VDSMD, Context, action
from supervdsm.sysfs import read

PREFIX = "99-vdsmd-"
GUID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")
VM = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


@action("udev.grant_lun", callers=(VDSMD, HSMD), slow=True, timeout=60)
def grant_lun(context: Context, guid: str, vm: str) -> str:
    """Give the multipath device `guid` to the daemon's user for the VM. Return the name of the rule's file. May be repeated.

    Raises Invalid, NotAllowed (the host has mounted it), Unsupported (no udev) and Failed.
    """
    if not GUID.fullmatch(guid):
        raise Invalid(f"not the identifier of a device: {guid!r}")
    _check_unused(context, guid)
    match = f'SUBSYSTEM=="block", ENV{{DM_UUID}}=="mpath-{guid}"'
    return _grant(context, vm, f"lun-{guid}", match)


@action("udev.grant_iommu_group", callers=(VDSMD,), slow=True, timeout=60)
def grant_iommu_group(context: Context, group: int, vm: str) -> str:
    """Give the devices of an IOMMU group, once bound to vfio, to the daemon's user for the VM. Return the rule's file.

    Raises Invalid, NotFound (no such group), Unsupported (no udev) and Failed.
    """
    if not os.path.isdir(f"{context.sysfs}/kernel/iommu_groups/{group}"):
        raise NotFound(f"this host has no IOMMU group {group}")
    return _grant(context, vm, f"iommu-{group}", f'SUBSYSTEM=="vfio", KERNEL=="{group}"')


@action("udev.grant_usb", callers=(VDSMD,), slow=True, timeout=60)
def grant_usb(context: Context, bus: int, device: int, vm: str) -> str:
    """Give a USB device to the daemon's user for the VM. Return the rule's file.

    Raises Invalid, NotAllowed (the host has mounted it), Unsupported (no udev) and Failed."""
    if not (0 < bus < 1000 and 0 < device < 128):
        raise Invalid(f"not the number of a USB device: {bus}, {device}")
    _check_usb_unused(context, bus, device)
    match = f'SUBSYSTEM=="usb", ATTR{{busnum}}=="{bus}", ATTR{{devnum}}=="{device}"'
    return _grant(context, vm, f"usb-{bus}-{device}", match)


@action("udev.revoke", callers=(VDSMD, HSMD), slow=True, timeout=60)
def revoke(context: Context, vm: str) -> list[str]:
    """Take away everything that was given for the VM. Return the names of the rules that went; none is no error.

    Raises Invalid, Unsupported and Failed.
    """
    _check_vm(vm)
    ending = f"-{vm.lower()}.rules"
    with meaning(context.udev_rules):
        there = sorted(os.listdir(context.udev_rules)) if os.path.isdir(context.udev_rules) else []
        gone = [name for name in there if name.startswith(PREFIX) and name.endswith(ending)]
        for name in gone:
            os.unlink(f"{context.udev_rules}/{name}")
    _apply([name.removeprefix(PREFIX).removesuffix(ending) for name in gone])
    return gone


def _grant(context: Context, vm: str, what: str, match: str) -> str:
    _check_vm(vm)
    name = f"{PREFIX}{what}-{vm.lower()}.rules"
    path = f"{context.udev_rules}/{name}"
    was_there = os.path.exists(path)
    _write(path, f'ACTION!="remove", {match}, OWNER="{context.uid}", GROUP="{context.gid}", MODE="0660"\n')
    try:
        _apply([what])
    except ActionError:
        if not was_there:
            os.unlink(path)
        raise
    return name


def _write(path: str, text: str) -> None:
    """Replace the file as a whole. Its directory is root's, so names in it are nobody else's."""
    with meaning(path):
        os.makedirs(os.path.dirname(path), 0o755, exist_ok=True)
        fresh = f"{path}.new"  # udev reads *.rules only
        with open(fresh, "w", encoding="ascii") as file:
            os.fchmod(file.fileno(), 0o644)
            file.write(text)
        os.replace(fresh, path)


def _apply(changed: list[str]) -> None:
    """Have udev read its rules again, and use them on the devices that those are about: on no other, for each event makes
    others look at a device again."""
    if changed:
        _udevadm("control", "--reload")
    for what in changed:
        kind, _, which = what.partition("-")
        bus, _, device = which.partition("-")
        only = {
            "lun": ("--subsystem-match=block", f"--property-match=DM_UUID=mpath-{which}"),
            "iommu": ("--subsystem-match=vfio", f"--sysname-match={which}"),
            "usb": ("--subsystem-match=usb", f"--attr-match=busnum={bus}", f"--attr-match=devnum={device}"),
        }
        _udevadm("trigger", "--settle", "--action=change", *only[kind])


def _udevadm(*arguments: str) -> None:
    ended = run(find("udevadm"), *arguments, timeout=15)
    if ended.code:
        raise Failed(f"udevadm {' '.join(arguments)}: {ended.last_line()}")


def _check_vm(vm: str) -> None:
    if not VM.fullmatch(vm):
        raise Invalid(f"not the identifier of a VM: {vm!r}")


def _check_unused(context: Context, guid: str) -> None:
    """Raise when the device, or what is made of it (partitions, logical volumes), is mounted."""
    block = f"{context.sysfs}/block"
    for name in os.listdir(block) if os.path.isdir(block) else []:
        if read(f"{block}/{name}/dm/uuid") == f"mpath-{guid}":
            _check_not_mounted(guid, _numbers(block, f"{block}/{name}"))


def _check_usb_unused(context: Context, bus: int, device: int) -> None:
    """Raise when a disk on the device, or what is made of it, is mounted."""
    devices = f"{context.sysfs}/bus/usb/devices"
    for name in os.listdir(devices) if os.path.isdir(devices) else []:
        place = f"{devices}/{name}"
        if (read(f"{place}/busnum"), read(f"{place}/devnum")) == (str(bus), str(device)):
            walk = os.walk(f"{place}/")  # a disk lies in .../block/sda, a partition in .../block/sda/sda1
            disks = [folder for folder, _, files in walk if "/block/" in folder and "dev" in files]
            numbers = [number for disk in disks for number in _numbers(f"{context.sysfs}/block", disk)]
            _check_not_mounted(f"USB device {bus}, {device}", numbers)


def _check_not_mounted(what: str, numbers: list[str]) -> None:
    mounted = in_use()
    for number in numbers:
        if number in mounted:
            raise NotAllowed(f"{what} is this host's own: it is mounted at {mounted[number]}")


def _numbers(block: str, place: str) -> list[str]:
    """Return the number of the device with this directory in sysfs, and those of what is made of it."""
    holders = f"{place}/holders"
    above = os.listdir(holders) if os.path.isdir(holders) else []
    return [
        read(f"{place}/dev") or "",
        *(number for holder in above for number in _numbers(block, f"{block}/{holder}")),
    ]
