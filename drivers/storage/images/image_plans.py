"""The plans of tasks on whole images: copy, move, delete.

It promises that an image is only ever replaced or deleted after its copy is whole, and that what is deleted is out of sight, by
one rename, before anything of it is gone. A volume that is being written bears the mark ILLEGAL until it is whole.
"""

from __future__ import annotations

import msgspec

from drivers.storage.contract import BLANK, Domain
from drivers.storage.errors import InvalidParameter
from drivers.storage.images.chains import KEPT, REMOVED, Domains, Image, check_ids, find, load, opened, users
from drivers.storage.images.errors import (
    ImageExists,
    IncorrectFormat,
    IncorrectType,
    SharedVolumeKept,
    TemplateMissing,
    VolumeExists,
    VolumeIllegal,
    VolumeMetadataBroken,
)
from drivers.storage.images.qcow2 import checked_chain
from drivers.storage.images.volume_metadata import Allocation, Format, Volume, VolumeRole, fresh
from drivers.storage.images.volume_plans import at, begin, directory_steps, share_steps, step, undo
from drivers.storage.tasks.record import Step
from drivers.storage.tasks.registry import plan


@plan("deleteImage", error="ImageDeleteError")
def delete_image(domains: Domains, sd: str, image: str, post_zero: bool, force: bool) -> list[Step]:
    check_ids(imgUUID=image)
    try:
        there = load(domains, sd, image)
    except VolumeMetadataBroken:
        if not force:
            raise
        there = Image(domain=opened(domains, sd)[0], uuid=image, volumes={}, stats={})
    _check_unused(domains, there)
    return removal_steps(there, post_zero)


def removal_steps(there: Image, post_zero: bool) -> list[Step]:
    """Delete an image: out of sight first. There is no way back from the first step."""
    sd, prefix = there.domain.uuid, f"{REMOVED}ZERO_" if post_zero else REMOVED
    sizes = {
        name: there.stats[name].allocated for name in there.own if name in there.stats and there.stats[name].is_file
    }
    zero = [
        step("volume.zero", at(sd, f"{prefix}{there.uuid}", name), weight=float(size))
        for name, size in sizes.items()
        if post_zero and size
    ]
    aside = step("image.set_aside", sd=sd, image=there.uuid, prefix=prefix, pivot=True)
    return [aside, *zero, step("image.remove", sd=sd, image=there.uuid, prefix=prefix)]


@plan("copyImage", error="TemplateCreationError")
def copy_image(
    domains: Domains,
    sd: str,
    source_image: str,
    source_volume: str,
    target_sd: str,
    image: str,
    volume: str,
    description: str,
    role: int,
    form: int,
    allocation: int,
    force: bool,
) -> list[Step]:
    """Copy what a volume and its parents say into one volume of a new image."""
    check_ids(srcImgUUID=source_image, srcVolUUID=source_volume, dstImgUUID=image, dstVolUUID=volume)
    source = load(domains, sd, source_image)
    checked_chain(domains, source, source_volume)
    origin = source.get(source_volume)
    if not origin.is_legal:
        raise VolumeIllegal(volume=source_volume)
    if (target_sd, image) == (sd, source_image):
        raise InvalidParameter(what="dstImgUUID", reason="an image cannot be copied into itself")
    if role not in (VolumeRole.SHARED, VolumeRole.LEAF):
        raise InvalidParameter(what="volType", reason=f"{role} is neither SHARED (6) nor LEAF (8)")
    made = msgspec.structs.replace(
        fresh(
            domain=target_sd,
            image=image,
            capacity=origin.capacity,
            format=_format(form, origin),
            allocation=_allocation(allocation, origin),
        ),
        description=description or origin.description,
        disk_type=origin.disk_type,
    )
    domain, _files = opened(domains, target_sd)
    target = at(target_sd, image, volume)
    copy = step(
        "volume.convert",
        target,
        source_sd=sd,
        source_image=source_image,
        source_volume=source_volume,
        source_form=origin.format.name,
        form=made.format.name,
        preallocate=made.allocation is Allocation.PREALLOCATED,
        weight=float(made.capacity),
    )
    before, after = _room(domains, target_sd, image, volume, force)
    return [
        *before,
        *directory_steps(target_sd, image, fence=bool(before)),
        begin(domain, image, volume, made),
        copy,
        step("volume.check", target, form=made.format.name),
        step("volume.adopt_data", target),
        step("volume.finish", target, legality="LEGAL", role=VolumeRole(role).name),
        *after,
    ]


def _format(number: int, origin: Volume) -> Format:
    if number == 3:  # unknown, which means: as it is
        return origin.format
    if number not in list(Format):
        raise IncorrectFormat(what="volFormat", format=number, reason="there is no such format")
    return Format(number)


def _allocation(number: int, origin: Volume) -> Allocation:
    if number == 0:
        return origin.allocation
    if number not in list(Allocation):
        raise IncorrectType(what="preallocate", allocation=number, reason="there is no such allocation")
    return Allocation(number)


def _room(domains: Domains, sd: str, image: str, volume: str, force: bool) -> tuple[list[Step], list[Step]]:
    """Return what makes room for an image that may be there already, and what is to be done when the new one is whole."""
    there = find(domains, sd, image)
    if there is None or not there.volumes:
        return [], []
    if not force:
        if volume in there.volumes:
            raise VolumeExists(volume=volume)
        raise ImageExists(image=image, domain=sd)
    _check_unused(domains, there)
    aside = step("image.set_aside", sd=sd, image=image, prefix=KEPT, undo=undo("image.put_back", sd, image))
    return [aside], [step("image.remove", sd=sd, image=image, prefix=KEPT, pivot=True)]


@plan("moveImage", error="MoveImageError")
def move_image(
    domains: Domains, sd: str, target_sd: str, image: str, delete: bool, post_zero: bool, force: bool
) -> list[Step]:
    """Copy an image with all its volumes to another domain, and with `delete` remove it from this one."""
    source, copies, after = _copies(domains, sd, target_sd, image, force)
    if delete:
        _check_unused(domains, source)
        after += removal_steps(source, post_zero)
    return copies + after


@plan("moveMultipleImages", error="MultipleMoveImageError")
def move_multiple_images(domains: Domains, sd: str, target_sd: str, images: dict[str, bool], force: bool) -> list[Step]:
    """Move images: none is deleted before all of them are copied. The values say which are to be zeroed."""
    first, last = list[Step](), list[Step]()
    for image, post_zero in images.items():
        source, copies, after = _copies(domains, sd, target_sd, image, force)
        _check_unused(domains, source)
        first += copies
        last += after + removal_steps(source, post_zero)
    return first + last


def _check_unused(domains: Domains, image: Image) -> None:
    """Raise SharedVolumeKept when other images stem from this one."""
    for name in image.own:
        others = users(domains, image.domain.uuid, image, name)
        if others:
            raise SharedVolumeKept(volume=name, users=", ".join(others))


def _copies(domains: Domains, sd: str, target_sd: str, image: str, force: bool) -> tuple[Image, list[Step], list[Step]]:
    """Return the image, what copies it, and what is to be done when that is whole."""
    source, before, after = _structure(domains, sd, target_sd, image, force)
    made, filled, finished = list[Step](), list[Step](), list[Step]()
    for name in source.chain(source.leaf()):
        if name in source.own:
            volume = source.own[name]
            made.append(begin(opened(domains, target_sd)[0], image, name, _moved(volume, target_sd)))
            filled += [*_fill(source, name, target_sd), step("volume.adopt_data", at(target_sd, image, name))]
            finished.append(_finish(volume, target_sd, image, name))
    return source, [*before, *made, *filled, *finished], after


def _finish(volume: Volume, target_sd: str, image: str, name: str) -> Step:
    return step("volume.finish", at(target_sd, image, name), legality=volume.legality, role=volume.role.name)


def _structure(
    domains: Domains, sd: str, target_sd: str, image: str, force: bool
) -> tuple[Image, list[Step], list[Step]]:
    """Check an image that is to be copied whole, and return it with what must be done before and after."""
    check_ids(imgUUID=image)
    if sd == target_sd:
        raise InvalidParameter(what="dstDomUUID", reason="it is the domain that the image is on")
    source = load(domains, sd, image)
    checked_chain(domains, source, source.leaf())
    template = [name for name in source.volumes if name not in source.own]
    before, after = _room(domains, target_sd, image, "", force)
    shared = [part for name in template for part in _shared(domains, source, name, target_sd)]
    return source, [*before, *directory_steps(target_sd, image, fence=bool(before)), *shared], after


def _shared(domains: Domains, source: Image, name: str, target_sd: str) -> list[Step]:
    """Have an image that stems from a template stem from that template's copy on the other domain."""
    template = source.volumes[name].image
    there = find(domains, target_sd, template)
    if there is None or name not in there.volumes:
        raise TemplateMissing(kind="template", image=source.uuid, volume=name, domain=target_sd)
    return share_steps(target_sd, template, name, source.uuid)


def _moved(volume: Volume, target_sd: str) -> Volume:
    return msgspec.structs.replace(volume, domain=target_sd, legality="ILLEGAL")


def _fill(source: Image, name: str, target_sd: str) -> list[Step]:
    """Copy what one volume says beyond its parent, to be adopted when it is whole."""
    volume, target = source.volumes[name], at(target_sd, source.uuid, name)
    parent = source.volumes.get(volume.parent)
    copy = step(
        "volume.convert",
        target,
        source_sd=source.domain.uuid,
        source_image=source.uuid,
        source_volume=name,
        source_form=volume.format.name,
        form=volume.format.name,
        preallocate=volume.allocation is Allocation.PREALLOCATED and volume.format is Format.RAW,
        parent=volume.parent if parent else BLANK,
        parent_form=parent.format.name if parent else "",
        weight=float(source.stats[name].allocated + 1),
        undo=undo("volume.drop_part", target_sd, source.uuid, name),
    )
    return [copy, step("volume.check", target, form=volume.format.name)]


@plan("cloneImageStructure", error="CopyImageError")
def clone_image_structure(domains: Domains, sd: str, target_sd: str, image: str) -> list[Step]:
    """Make an image of the same volumes on another domain, all of them empty."""
    source, before, _after = _structure(domains, sd, target_sd, image, force=False)
    chain = [name for name in source.chain(source.leaf()) if name in source.own]
    made = [part for name in chain for part in _empty_copy(opened(domains, target_sd)[0], source, name)]
    finished = [_finish(source.own[name], target_sd, image, name) for name in chain]
    return [*before, *made, *finished]


def _empty_copy(domain: Domain, source: Image, name: str) -> list[Step]:
    volume, target = source.own[name], at(domain.uuid, source.uuid, name)
    parent = source.volumes.get(volume.parent)
    made = begin(domain, source.uuid, name, _moved(volume, domain.uuid))
    if volume.format is Format.RAW and volume.allocation is Allocation.SPARSE:
        return [made, step("volume.make_raw", target, size=volume.capacity)]
    data = step(
        "volume.create",
        target,
        size=volume.capacity,
        form=volume.format.name,
        preallocate=volume.allocation is Allocation.PREALLOCATED and volume.format is Format.RAW,
        parent=volume.parent,
        parent_form=parent.format.name if parent else "",
        weight=1.0,
    )
    return [made, data]


SYNC_TYPES = ("ALL", "INTERNAL", "LEAF")


@plan("syncImageData", error="CopyImageError")
def sync_image_data(domains: Domains, sd: str, target_sd: str, image: str, what: str) -> list[Step]:
    """Copy the data of all volumes, of all but the leaf, or of the leaf, into those that cloneImageStructure has made: into
    all of them, or none."""
    check_ids(imgUUID=image)
    if what not in SYNC_TYPES:
        raise InvalidParameter(what="syncType", reason=f"{what!r} is none of {', '.join(SYNC_TYPES)}")
    source, target = load(domains, sd, image), load(domains, target_sd, image)
    leaf = source.leaf()
    checked_chain(domains, source, leaf)
    chain = [name for name in source.chain(leaf) if name in source.own]
    chosen = {"ALL": chain, "INTERNAL": [name for name in chain if name != leaf], "LEAF": [leaf]}[what]
    for name in chosen:
        target.get(name)
    filled = [part for name in chosen for part in _fill(source, name, target_sd)]
    return filled + [step("volume.adopt_data", at(target_sd, image, name), pivot=True) for name in chosen]
