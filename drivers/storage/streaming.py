"""Images that clients bring and take over their own connection to the daemon: which task does it, and what it checks.

It promises that what a client brings takes the volume's place whole or not at all, is no more than the volume may hold, and
stems from what it should; and that such a task ends with its client: without one there is nobody to go on with. Needs no SPM.
"""

from __future__ import annotations

import struct

from drivers.storage.carrying import program
from drivers.storage.chains import PART, Domains, Image, check_ids, load, payload
from drivers.storage.errors import InvalidParameter
from drivers.storage.image_errors import VolumeDamaged
from drivers.storage.plans import at, check_writable, step, undo
from drivers.storage.qcow2 import checked_chain
from drivers.storage.qemuimg import path
from drivers.storage.tasks.engine import Attendance
from drivers.storage.tasks.owner import Tasks
from drivers.storage.tasks.record import Command, Lock, Step
from drivers.storage.tasks.registry import deed, plan, work
from drivers.storage.tasks.runner import HSM
from drivers.storage.volume_metadata import Allocation, Format, Volume

ERROR = "ImagesActionError"
COW_EXTRA = 64 << 20
"""Bytes, beside a sixteenth, that a cow volume's data may take beyond what they hold."""
_SIZE_AT = 24
"""Where a qcow2 file says how large its disk is (QEMU, docs/interop/qcow2.txt)."""


@work("volume.pour_in")
def pour_in(domains: Domains, sd: str, image: str, volume: str, length: int, sparse: bool, room: int) -> Command:
    target = path(domains, sd, image, volume) + PART
    argv = program("pour", "in", target, str(length), str(int(sparse)), str(room))
    return Command(argv=argv, error=ERROR, action=f"receiving volume {volume}")


@work("volume.pour_out")
def pour_out(domains: Domains, sd: str, image: str, volume: str, length: int) -> Command:
    argv = program("pour", "out", path(domains, sd, image, volume), str(length))
    return Command(argv=argv, error=ERROR, action=f"giving out volume {volume}")


@deed("volume.measure")
def measure(domains: Domains, sd: str, image: str, volume: str) -> None:
    """Raise VolumeDamaged when the disk in cow data that came in is larger than the volume."""
    there = load(domains, sd, image)
    data = domains.files(there.domain).read(payload(image, volume) + PART, _SIZE_AT, 8)
    size = struct.unpack(">Q", data)[0] if len(data) == 8 else 0
    if size > there.get(volume).capacity:
        reason = f"what came in is a disk of {size} bytes, and the volume is one of {there.get(volume).capacity}"
        raise VolumeDamaged(volume=volume, reason=reason)


@plan("downloadImageFromStream", error=ERROR)
def receive(domains: Domains, sd: str, image: str, volume: str, length: int) -> list[Step]:
    """Have a volume's data come from a client."""
    there, volume = _found(domains, sd, image, volume)
    check_writable(there, volume)
    found = there.get(volume)
    most = _most(found)
    if not 0 < length <= most:
        reason = f"volume {volume} can take 1 to {most} bytes, not {length}"
        raise InvalidParameter(what="Content-Length", reason=reason)
    where, back = at(sd, image, volume), undo("volume.drop_part", sd, image, volume)
    is_raw = found.format is Format.RAW
    preallocate = is_raw and found.allocation is Allocation.PREALLOCATED
    sparse, room = is_raw and not preallocate, found.capacity if preallocate else 0
    data = step("volume.pour_in", where, undo=back, weight=1.0, length=length, sparse=sparse, room=room)
    if is_raw:
        whole = step("volume.grow_part", where, size=found.capacity)
        return [data, whole, step("volume.adopt_data", where, pivot=True)]
    checks = [step("volume.inspect", where), step("volume.measure", where), step("volume.check", where, form="COW")]
    return [data, *checks, step("volume.adopt_data", where, pivot=True)]


def _most(volume: Volume) -> int:
    return volume.capacity if volume.format is Format.RAW else volume.capacity + volume.capacity // 16 + COW_EXTRA


@plan("uploadImageToStream", error=ERROR)
def give(domains: Domains, sd: str, image: str, volume: str, length: int) -> list[Step]:
    """Give a volume's data to a client, as they are: at most `length` bytes."""
    there, volume = _found(domains, sd, image, volume)
    checked_chain(domains, there, volume)
    return [step("volume.pour_out", at(sd, image, volume), length=min(length, _size(there, volume)), weight=1.0)]


def _found(domains: Domains, sd: str, image: str, volume: str) -> tuple[Image, str]:
    """Return the image, and its volume ('': the last of its chain)."""
    check_ids(imgUUID=image)
    there = load(domains, sd, image)
    volume = volume or there.leaf()
    check_ids(volUUID=volume)
    there.get(volume)
    return there, volume


def _size(there: Image, volume: str) -> int:
    if volume not in there.stats:
        raise VolumeDamaged(volume=volume, reason="there are none")
    return there.stats[volume].size


def begin_receiving(
    tasks: Tasks, ids: tuple[str, str, str, str], length: int, attendance: Attendance
) -> tuple[str, int, int]:
    """Have `length` bytes from a client put in the place of a volume's data: returns the task, its first, and its whole length.

    `ids`: of the pool, the domain, the image and the volume ('': the last). For workers. Raises what the plan does.
    """
    pool, sd, image, volume = ids
    args = {"sd": sd, "image": image, "volume": volume, "length": length}
    locks = [Lock(name=f"{sd}/{image}")]
    verb = "downloadImageFromStream"
    return tasks.submit(verb, args, pool=pool, tag=HSM, locks=locks, attendance=attendance), length, length


def begin_giving(
    tasks: Tasks, domains: Domains, ids: tuple[str, str, str, str], most: int | None, attendance: Attendance
) -> tuple[str, int, int]:
    """Have a volume's data given to a client, at most so many bytes: returns the task, how many, and how many there are."""
    pool, sd, image, volume = ids
    there, volume = _found(domains, sd, image, volume)
    size = _size(there, volume)
    length = size if most is None else min(most, size)
    args = {"sd": sd, "image": image, "volume": volume, "length": length}
    locks = [Lock(name=f"{sd}/{image}", shared=True)]
    verb = "uploadImageToStream"
    return tasks.submit(verb, args, pool=pool, tag=HSM, locks=locks, attendance=attendance), length, size
