"""The plans of tasks on single volumes: what is to be done, as steps, after everything that can be known has been checked.

It promises that a plan changes nothing, that what it finds impossible is told as what it is, and that each of its steps has
beside it what takes it back.
"""

from __future__ import annotations

from typing import Any

import msgspec

from drivers.storage.contract import BLANK, Domain
from drivers.storage.errors import InvalidParameter
from drivers.storage.images.chains import Domains, Image, check_ids, find, load, opened, users
from drivers.storage.images.errors import (
    HasChildren,
    IncorrectFormat,
    IncorrectType,
    NotLeaf,
    NotShareable,
    ParentIllegal,
    SharedNotWritable,
    SharedVolumeKept,
    SizeImpossible,
    VolumeExists,
    VolumeTooSmall,
)
from drivers.storage.images.qcow2 import checked_chain
from drivers.storage.images.volume_metadata import (
    LARGEST,
    SECTOR,
    Allocation,
    DiskType,
    Format,
    Volume,
    VolumeRole,
    encode,
    fresh,
)
from drivers.storage.tasks.record import Step, Undo
from drivers.storage.tasks.registry import plan

ROUND = 512


def step(
    name: str,
    where: dict[str, str] | None = None,
    *,
    undo: Undo | None = None,
    weight: float = 0.0,
    pivot: bool = False,
    **args: Any,
) -> Step:
    """Return a step; `where` and `args` together are its arguments."""
    return Step(name=name, args={**(where or {}), **args}, undo=undo, weight=weight, pivot=pivot)


def at(sd: str, image: str, volume: str) -> dict[str, str]:
    return {"sd": sd, "image": image, "volume": volume}


def undo(name: str, *args: str) -> Undo:
    return Undo(name=name, args=list(args))


def begin(domain: Domain, image: str, name: str, volume: Volume) -> Step:
    """Put metadata there, from which on the volume exists."""
    return step(
        "volume.begin",
        sd=domain.uuid,
        image=image,
        volume=name,
        text=encode(volume, domain.version).decode(),
        undo=undo("volume.discard", domain.uuid, image, name),
    )


def directory_steps(sd: str, image: str, *, fence: bool = False) -> list[Step]:
    """Make an image's directory. `fence`: another image had that name until the step before."""
    made = step("image.make_directory", sd=sd, image=image, undo=undo("image.drop_directory", sd, image))
    return [msgspec.structs.replace(made, fence=fence)]


def share_steps(sd: str, source: str, template: str, image: str) -> list[Step]:
    back = undo("volume.discard", sd, image, template)
    return [step("volume.share", sd=sd, source=source, volume=template, image=image, undo=back)]


@plan("createVolume", error="VolumeCreationError")
def create_volume(
    domains: Domains,
    sd: str,
    image: str,
    volume: str,
    size: int,
    form: int,
    allocation: int,
    disk_type: int,
    description: str,
    parent_image: str,
    parent: str,
) -> list[Step]:
    check_ids(imgUUID=image, volUUID=volume, srcImgUUID=parent_image, srcVolUUID=parent)
    domain, _files = opened(domains, sd)
    _check_kinds(size, form, allocation, disk_type, parent)
    there = find(domains, sd, image)
    if there is not None and (volume in there.volumes or volume in there.stats):
        raise VolumeExists(volume=volume)
    made = fresh(
        domain=sd,
        image=image,
        capacity=-(-size // ROUND) * ROUND,
        format=Format(form),
        allocation=Allocation(allocation),
        parent=parent,
        disk_type=str(disk_type),
        description=description,
    )
    ahead = _parent_steps(domains, there, made, parent_image) if parent != BLANK else directory_steps(sd, image)
    finish = step("volume.finish", sd=sd, image=image, volume=volume, legality="LEGAL", role="LEAF")
    return [*ahead, begin(domain, image, volume, made), _data_step(domains, made, volume, parent_image), finish]


def _check_kinds(size: int, form: int, allocation: int, disk_type: int, parent: str) -> None:
    if form not in list(Format):
        raise IncorrectFormat(what="volFormat", format=form, reason="there is no such format")
    if allocation not in list(Allocation):
        raise IncorrectType(what="preallocate", allocation=allocation, reason="there is no such allocation")
    if disk_type not in list(DiskType):
        raise InvalidParameter(what="diskType", reason=f"there is no type {disk_type}")
    if not 0 < size < LARGEST:
        raise InvalidParameter(what="size", reason=f"{size} bytes are impossible")
    if parent != BLANK and form != Format.COW:
        raise IncorrectFormat(what="volFormat", format=Format(form).name, reason="what has a parent must be COW")
    if parent != BLANK and allocation != Allocation.SPARSE:
        raise IncorrectType(what="preallocate", allocation=allocation, reason="what has a parent must be SPARSE")


def _parent_steps(domains: Domains, there: Image | None, made: Volume, parent_image: str) -> list[Step]:
    """Check the parent, and have it ready: a template is shared into the image, a volume of the image becomes internal."""
    sd, image, parent = made.domain, made.image, made.parent
    source = load(domains, sd, parent_image if parent_image != BLANK else image)
    volume = source.get(parent)
    checked_chain(domains, source, parent)
    if not volume.is_legal:
        raise ParentIllegal(volume=parent)
    if made.capacity < volume.capacity:
        raise VolumeTooSmall(what="size", size=made.capacity, parent=volume.capacity)
    if source.uuid != image:
        if volume.role is not VolumeRole.SHARED:
            raise NotShareable(volume=parent, image=source.uuid)
        shared = [] if there is not None and parent in there.volumes else share_steps(sd, source.uuid, parent, image)
        return directory_steps(sd, image) + shared
    if volume.role is VolumeRole.LEAF:
        back = undo("volume.restore_role", sd, image, parent, "LEAF")
        return [step("volume.set_role", sd=sd, image=image, volume=parent, role="INTERNAL", undo=back)]
    if source.children(parent) and volume.role is VolumeRole.INTERNAL:
        raise HasChildren(volume=parent, children=", ".join(source.children(parent)))
    return []


def _data_step(domains: Domains, made: Volume, name: str, parent_image: str) -> Step:
    where = {"sd": made.domain, "image": made.image, "volume": name}
    if made.format is Format.RAW and made.allocation is Allocation.SPARSE:
        return step("volume.make_raw", where, size=made.capacity)
    form = ""
    if made.parent != BLANK:
        source = load(domains, made.domain, parent_image if parent_image != BLANK else made.image)
        form = source.get(made.parent).format.name
    return step(
        "volume.create",
        where,
        size=made.capacity,
        form=made.format.name,
        preallocate=made.allocation is Allocation.PREALLOCATED,
        parent=made.parent,
        parent_form=form,
        weight=1.0,
    )


@plan("deleteVolume", error="CannotDeleteVolume")
def delete_volume(
    domains: Domains, sd: str, image: str, volumes: list[str], post_zero: bool, force: bool
) -> list[Step]:
    check_ids(imgUUID=image, **{f"volumes[{number}]": volume for number, volume in enumerate(volumes)})
    there = load(domains, sd, image)
    doomed = [name for name in _leaves_first(there) if name in volumes]
    for name in volumes:
        _check_deletable(domains, there, there.get(name), name, doomed, force)
    if not doomed:
        return []
    marks = [step("volume.spoil", sd=sd, image=image, volume=name, pivot=True) for name in doomed]
    gone = [part for name in doomed for part in volume_removal(there, name, post_zero)]
    parents = dict.fromkeys(there.volumes[name].parent for name in doomed)
    left = [name for name in parents if name in there.own and name not in doomed]
    tell = [step("volume.tell_parent", sd=sd, image=image, volume=name) for name in left]
    return [*marks, *gone, *tell, step("image.tidy", sd=sd, image=image)]


def _leaves_first(image: Image) -> list[str]:
    """Return the volumes such that none comes after its parent; also when they are no chain."""
    left, ordered = dict(image.volumes), list[str]()
    while left:
        parents = {volume.parent for volume in left.values()}
        free = sorted(name for name in left if name not in parents) or sorted(left)
        ordered += free
        for name in free:
            del left[name]
    return ordered


def _check_deletable(domains: Domains, there: Image, volume: Volume, name: str, doomed: list[str], force: bool) -> None:
    if volume.role is VolumeRole.SHARED:
        others = users(domains, there.domain.uuid, there, name) if volume.image == there.uuid else [volume.image]
        if others:
            raise SharedVolumeKept(volume=name, users=", ".join(others))
        if not force:
            raise SharedVolumeKept(volume=name, users="it is a template, and force was not asked for")
    children = [child for child in there.children(name) if child not in doomed]
    if children and not force:
        raise HasChildren(volume=name, children=", ".join(children))


def volume_removal(there: Image, name: str, post_zero: bool) -> list[Step]:
    """Return what deletes one volume."""
    where = {"sd": there.domain.uuid, "image": there.uuid, "volume": name}
    size = there.stats[name].allocated if name in there.stats and there.stats[name].is_file else 0
    zero = [step("volume.zero", where, weight=float(size))] if post_zero and size else []
    return [*zero, step("volume.delete", where)]


@plan("extendVolumeSize", error="VolumeExtendingError")
def extend_volume_size(domains: Domains, sd: str, image: str, volume: str, size: int) -> list[Step]:
    check_ids(imgUUID=image, volUUID=volume)
    there = load(domains, sd, image)
    grown = there.get(volume)
    size = -(-size // SECTOR) * SECTOR
    check_writable(there, volume)
    if size < grown.capacity or size >= LARGEST:
        reason = "it cannot be made smaller" if size < grown.capacity else "that is impossible"
        raise SizeImpossible(what="newSize", volume=volume, size=grown.capacity, wanted=size, reason=reason)
    checked_chain(domains, there, volume)
    where = {"sd": sd, "image": image, "volume": volume}
    back = undo("volume.shrink_raw", sd, image, volume, str(grown.capacity)) if grown.format is Format.RAW else None
    preallocate = grown.allocation is Allocation.PREALLOCATED
    if grown.format is Format.RAW and not preallocate:
        grow = step("volume.grow_raw", where, size=size, undo=back)
    else:
        form = grown.format.name
        preallocate = preallocate and grown.format is Format.RAW
        # What has grown inside of a cow volume cannot be taken back.
        pivot = grown.format is Format.COW
        grow = step(
            "volume.resize", where, size=size, form=form, preallocate=preallocate, weight=1.0, undo=back, pivot=pivot
        )
    # Once it is told how long it is, a guest may have written there.
    return [grow, step("volume.set_capacity", where, size=size, pivot=True)]


def check_writable(there: Image, volume: str) -> None:
    """Raise SharedNotWritable or NotLeaf unless the volume is the one of its chain that may be written."""
    if there.get(volume).role is VolumeRole.SHARED:
        raise SharedNotWritable(volume=volume)
    if there.get(volume).role is not VolumeRole.LEAF or there.children(volume):
        raise NotLeaf(volume=volume)
