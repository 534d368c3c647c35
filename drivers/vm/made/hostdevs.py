"""USB devices of the host that guests get: found by libvirt's name for their socket, and given to the user that QEMU runs as.

It promises that a device is looked for at each start, since it gets another number each time it is plugged in. In worker
threads, with the machine's id as key. Imported after the first answer.
"""

from __future__ import annotations

import logging
import os
import re
from typing import Any

from drivers.base import Root
from drivers.errors import Failed, NotFound
from supervdsm.client import ActionError

log = logging.getLogger("vm")

Struct = dict[str, Any]

DEVICES = "/sys/bus/usb/devices"


def is_usb(device: Struct) -> bool:
    return device.get("type") == "hostdev" and str(device.get("device")).startswith("usb_")


def located(device: Struct) -> Struct:
    """Return the device with its `hostAddress`: bus and number. Raises NotFound."""
    name = str(device["device"])
    for place in os.listdir(DEVICES) if os.path.isdir(DEVICES) else ():
        if name == f"usb_{re.sub('[^A-Za-z0-9]', '_', place)}":
            return {**device, "hostAddress": {"bus": _number(place, "busnum"), "device": _number(place, "devnum")}}
    raise NotFound(kind="USB device of this host", name=name)


def must_be_granted() -> bool:
    """Say whether we can open only what we were given."""
    return os.geteuid() != 0


def grant(root: Root, vm_id: str, device: Struct) -> None:
    """Let our user open a device that was located, for this machine. Raises Failed."""
    address = device["hostAddress"]
    try:
        root.call("udev.grant_usb", bus=address["bus"], device=address["device"], vm=vm_id)
    except ActionError as error:
        raise Failed(action=f"giving {device['device']} to the virtual machine", reason=error) from error


def revoke(root: Root, vm_id: str) -> None:
    """Take back all that was given for the machine. What cannot be is logged."""
    try:
        root.call("udev.revoke", vm=vm_id)
    except ActionError as error:
        log.error("A device stays given away vm=%s error=%s", vm_id, error)


def _number(place: str, what: str) -> int:
    try:
        with open(f"{DEVICES}/{place}/{what}", encoding="ascii") as file:
            return int(file.read())
    except (OSError, ValueError) as error:
        raise NotFound(kind=f"{what} of USB device", name=f"{place} ({error})") from error
