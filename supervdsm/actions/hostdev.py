"""Host devices that are given to guests: how many virtual functions a network card shows."""

from __future__ import annotations

import os
import re

from supervdsm.errors import ActionError, Invalid, NotFound, Unsupported
from supervdsm.locks import alone
from supervdsm.registry import VDSMD, Context, action
from supervdsm.sysfs import number, read, write

PCI = re.compile(r"(?:pci_)?([0-9a-f]{4})[:_]([0-9a-f]{2})[:_]([0-9a-f]{2})[._]([0-7])")


@action("hostdev.set_numvfs", callers=(VDSMD,), slow=True, timeout=120)
def set_numvfs(context: Context, device: str, count: int) -> int:
    """Have a PCI device ("pci_0000_05_00_0", libvirt's name, or "0000:05:00.0") show `count` virtual functions. Return the
    count.

    The kernel changes it only by way of none at all, so a change takes away the present ones. When it fails they are made
    again. Raises Invalid, NotFound, Unsupported (the device has no or fewer functions), Busy (one is in use) and Failed.
    """
    found = PCI.fullmatch(device)
    if found is None:
        raise Invalid(f"not the name of a PCI device: {device!r}")
    directory = f"{context.sysfs}/bus/pci/devices/{found[1]}:{found[2]}:{found[3]}.{found[4]}"
    if not os.path.isdir(directory):
        raise NotFound(f"there is no PCI device {device}")
    most = int(read(f"{directory}/sriov_totalvfs") or 0)
    if not 0 <= count <= most:
        raise Unsupported(f"{device} can have from 0 to {most} virtual functions")
    with alone(context, directory):
        _change(f"{directory}/sriov_numvfs", count)
    return count


def _change(path: str, count: int) -> None:
    before = number(path)
    if count == before:
        return
    if before:
        write(path, 0)
    try:
        write(path, count)
    except ActionError:
        write(path, before)
        raise
