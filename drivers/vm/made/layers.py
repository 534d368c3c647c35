"""Transient disks: a guest writes into a layer that is made at its start and thrown away at its end.

It promises that the disk itself stays as it is. Imported after the first answer.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Collection
from typing import Any

from drivers import programs
from drivers.errors import Failed, Unsupported

TIMEOUT = 60.0


def make(folder: str, vm_id: str, disk: dict[str, Any]) -> str:
    """Make the layer above the disk's `path`, and return its own. Raises Failed or Unsupported."""
    program = shutil.which("qemu-img")
    if program is None:
        raise Unsupported(what="a transient disk", reason="qemu-img is not installed")
    os.makedirs(folder, mode=0o711, exist_ok=True)
    path = f"{folder}/{vm_id}.{disk['name']}.cow"
    below = "raw" if disk.get("format", "raw") == "raw" else "qcow2"
    # By a program: opening a disk may take for ever.
    ran = programs.run([program, "create", "-q", "-f", "qcow2", "-F", below, "-b", disk["path"], path], timeout=TIMEOUT)
    if ran.code:
        raise Failed(action=f"making a layer for {disk['path']}", reason=ran.reason())
    return path


def remove(folder: str, vm_id: str) -> None:
    """Throw away all layers of a machine."""
    if os.path.isdir(folder):
        for name in os.listdir(folder):
            if name.startswith(f"{vm_id}."):
                os.unlink(f"{folder}/{name}")


def forget_other_boots(folder: str, known: Collection[str]) -> None:
    """Throw away the layers that nobody has written to in this boot, but for those of the machines `known`: they are on a disk,
    and nobody was there to see their machines end with the host."""
    booted = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
    for name in os.listdir(folder) if os.path.isdir(folder) else ():
        path = f"{folder}/{name}"
        if name.partition(".")[0] not in known and os.stat(path).st_ctime < booted:
            os.unlink(path)
