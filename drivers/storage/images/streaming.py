"""Images that clients bring and take over their own connection to the daemon: which task does it, and what it checks.

It promises that what a client brings takes the volume's place whole or not at all, is no more than the volume may hold, and
stems from what it should; and that such a task ends with its client: without one there is nobody to go on with. Needs no SPM.
"""

from __future__ import annotations

import logging
import struct
from collections.abc import Callable
from functools import partial

import msgspec

from drivers.errors import DriverError
from drivers.storage.errors import InvalidParameter
from drivers.storage.images.carrying import found, most_for, program, taking_in
from drivers.storage.images.chains import PART, Domains, Image, load, payload
from drivers.storage.images.errors import VolumeDamaged
from drivers.storage.images.notes import Notes
from drivers.storage.images.qcow2 import checked_chain
from drivers.storage.images.qemuimg import path
from drivers.storage.images.steps import Noting
from drivers.storage.images.volume_metadata import Allocation, Format
from drivers.storage.images.volume_plans import at, check_writable, step, undo
from drivers.storage.tasks.engine import Attendance
from drivers.storage.tasks.owner import Tasks
from drivers.storage.tasks.record import Command, Lock, Step
from drivers.storage.tasks.registry import deed, plan, work
from drivers.storage.tasks.runner import HSM

log = logging.getLogger("storage")

ERROR = "ImagesActionError"
SWEEP = "dropLeftover"
_SIZE_AT = 24
"""Where a qcow2 file says how large its disk is (QEMU, docs/interop/qcow2.txt)."""


def lock_name(sd: str, image: str) -> str:
    """Return by what an image is known to those who want it for themselves: ids may be written in either case."""
    return f"{sd}/{image}".lower()


@work("volume.pour_in")
def pour_in(domains: Noting, sd: str, image: str, volume: str, length: int, sparse: bool, room: int) -> Command:
    target = f"{path(domains, sd, image, volume)}.{domains.notes.write(sd, image, volume)}{PART}"
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


@plan(SWEEP, error=ERROR)
def drop_leftover(domains: Domains, sd: str, image: str, volume: str) -> list[Step]:
    """Remove what a run of this host that was cut off has left."""
    return [step("volume.drop_leftover", at(sd, image, volume))]


@plan("downloadImageFromStream", error=ERROR, attended=True)
def receive(domains: Domains, sd: str, image: str, volume: str, length: int) -> list[Step]:
    """Have a volume's data come from a client."""
    there, volume = found(domains, sd, image, volume)
    check_writable(there, volume)
    target = there.get(volume)
    most = most_for(target)
    if not 0 < length <= most:
        reason = f"volume {volume} can take 1 to {most} bytes, not {length}"
        raise InvalidParameter(what="Content-Length", reason=reason)
    is_raw = target.format is Format.RAW
    preallocate = is_raw and target.allocation is Allocation.PREALLOCATED
    sparse, room = is_raw and not preallocate, target.capacity if preallocate else 0
    data, *rest = taking_in(there, volume, "volume.pour_in", length=length, sparse=sparse, room=room)
    brought = msgspec.structs.replace(data, undo=undo("volume.drop_leftover", sd, image, volume))
    return [brought, step("volume.take_part", at(sd, image, volume), undo=data.undo), *rest]


@plan("uploadImageToStream", error=ERROR, attended=True)
def give(domains: Domains, sd: str, image: str, volume: str, length: int) -> list[Step]:
    """Give a volume's data to a client, as they are: at most `length` bytes."""
    there, volume = found(domains, sd, image, volume)
    checked_chain(domains, there, volume)
    return [step("volume.pour_out", at(sd, image, volume), length=min(length, _size(there, volume)), weight=1.0)]


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
    locks = [Lock(name=lock_name(sd, image))]
    verb = "downloadImageFromStream"
    return tasks.submit(verb, args, pool=pool, tag=HSM, locks=locks, attendance=attendance), length, length


def begin_giving(
    tasks: Tasks, domains: Domains, ids: tuple[str, str, str, str], most: int | None, attendance: Attendance
) -> tuple[str, int, int]:
    """Have a volume's data given to a client, at most so many bytes: returns the task, how many, and how many there are."""
    pool, sd, image, volume = ids
    there, volume = found(domains, sd, image, volume)
    size = _size(there, volume)
    length = size if most is None else min(most, size)
    args = {"sd": sd, "image": image, "volume": volume, "length": length}
    locks = [Lock(name=lock_name(sd, image), shared=True)]
    verb = "uploadImageToStream"
    return tasks.submit(verb, args, pool=pool, tag=HSM, locks=locks, attendance=attendance), length, size


def sweep(tasks: Tasks, notes: Notes, sd: str, submit: Callable[..., None]) -> None:
    """Have tasks remove what this host has left on a domain of what clients were bringing. For workers; `submit` is theirs."""
    for old in tasks.all(HSM):
        if old.verb == SWEEP and old.is_final:
            _clear(tasks, old.task_id)  # there was a re-exec before that could be done
    for image, volume in notes.of(sd):
        clear = lambda task: submit(partial(_clear, tasks, task.task_id), timeout=0)  # noqa: E731
        cleared = Attendance(fds=(), ended=clear, holds=False)
        args, lock = {"sd": sd, "image": image, "volume": volume}, Lock(name=lock_name(sd, image))
        try:
            tasks.submit(SWEEP, args, tag=HSM, locks=[lock], attendance=cleared)
        except DriverError as error:
            log.warning("What was left of a volume stays domain=%s volume=%s reason=%s", sd, volume, error)


def _clear(tasks: Tasks, task_id: str) -> None:
    task = tasks.get(task_id)
    if not task.is_final:
        return  # it waits for its storage; the next sweep sees to it
    log.info("What was left of a volume: %s domain=%s volume=%s", task.state, task.args["sd"], task.args["volume"])
    tasks.clear(task_id)
