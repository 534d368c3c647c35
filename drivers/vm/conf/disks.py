"""Where the disks of a virtual machine go: path, bus, and the name that the guest and the statistics know them by.

It promises that names never clash and stay what they are: they are given once, when the configuration is made.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from drivers.errors import Invalid, MissingParameter
from drivers.vm.conf.devices import Disk
from drivers.vm.made import payload

Struct = dict[str, Any]

_TWO_LETTERS = 26 + 26 * 26

_BUSES = {
    "ide": ("hd", 4),
    "fdc": ("fd", 2),
    "virtio": ("vd", _TWO_LETTERS),
    "scsi": ("sd", _TWO_LETTERS),
    "sata": ("sd", _TWO_LETTERS),
    "usb": ("sd", _TWO_LETTERS),
}
"""How the disks of a bus are called, and how many there can be."""

_UNSAID = {
    "format": "raw",
    "shared": "false",
    "propagateErrors": "off",
    "optional": "false",
    "truesize": "0",
    "apparentsize": "0",
}
"""What callers read of every disk, and what holds when nothing is said."""

_CDROM_INDEX = 2
"""Where callers and guests expect the first CD-ROM drive: hdc."""
_PAYLOAD_INDEX = 3
"""Out of the way of that one."""


def place(disks: list[tuple[str, Struct, Disk]], machine: str, names: Collection[str] = ()) -> None:
    """Write path, iface, index and name into the structs of all disks of a machine of type `machine`. The disks come
    as (path of the struct, struct, view). Those that ask for an index choose first. `names`: taken by other disks.

    The path of what is made or found when the machine is started is empty until then."""
    taken = set(names)
    for where, struct, disk in sorted(disks, key=lambda entry: entry[2].index is None):
        bus = _bus(disk, machine)
        index, name = _free_name(disk, bus, taken)
        taken.add(name)
        said = {key: value for key, value in struct.items() if value != ""}
        struct |= {**_UNSAID, "readonly": _truth(disk.device == "cdrom"), **said}
        struct |= {"path": _path(disk, where), "iface": bus, "index": index, "name": name}


def _truth(value: bool) -> str:
    return "true" if value else "false"


def _path(disk: Disk, where: str) -> str:
    if disk.spec_params.vm_payload:
        payload.check(disk.device, disk.spec_params.vm_payload, f"{where}.specParams.vmPayload")
        return ""
    if disk.path:
        return disk.path
    if disk.guid:
        return f"/dev/mapper/{disk.guid}"
    if disk.uuid:
        return f"/dev/disk/by-uuid/{disk.uuid}"
    if disk.device in ("disk", "lun") and not (disk.image_id or disk.volume_id):
        raise MissingParameter(name=f"{where}.path")
    return ""


def _bus(disk: Disk, machine: str) -> str:
    if disk.device == "floppy":
        return "fdc"
    if disk.iface:
        return disk.iface
    if disk.device == "lun":
        return "scsi"
    return "sata" if "q35" in machine else "ide"


def _free_name(disk: Disk, bus: str, taken: set[str]) -> tuple[int, str]:
    prefix, room = _BUSES[bus]
    wish = disk.index if disk.index is not None else _wish(disk)
    for index in (min(wish, room - 1), *range(room)):
        name = prefix + _letters(index)
        if name not in taken:
            return index, name
    raise Invalid(what="devices", reason=f"more than {room} disks on bus {bus}")


def _wish(disk: Disk) -> int:
    if disk.device != "cdrom":
        return 0
    return _PAYLOAD_INDEX if disk.spec_params.vm_payload else _CDROM_INDEX


def _letters(index: int) -> str:
    rest, last = divmod(index, 26)
    return (chr(ord("a") + rest - 1) if rest else "") + chr(ord("a") + last)
