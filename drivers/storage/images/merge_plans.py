"""The plans of tasks that make one volume of several: merging a chain, and leaving out its zeroes.

It promises that new data are made beside the volume that they are for, and take its place by one rename, when they are whole.
"""

from __future__ import annotations

import msgspec

from drivers.storage.contract import BLANK
from drivers.storage.errors import InvalidParameter
from drivers.storage.images.chains import Domains, Image, check_ids, load
from drivers.storage.images.errors import (
    NotSparse,
    SharedVolumeKept,
    VolumeTooSmall,
)
from drivers.storage.images.qcow2 import checked_chain
from drivers.storage.images.volume_metadata import Allocation, Format, Volume, VolumeRole, encode
from drivers.storage.images.volume_plans import at, check_writable, step, undo, volume_removal
from drivers.storage.tasks.record import Step
from drivers.storage.tasks.registry import plan


@plan("mergeSnapshots", error="MergeSnapshotsError")
def merge_snapshots(
    domains: Domains, sd: str, image: str, ancestor: str, successor: str, post_zero: bool
) -> list[Step]:
    """Give `successor` all that the volumes from `ancestor` on say, and delete those.

    The merged data are made beside it, and take its place by one rename: until then nothing has changed. Where the ancestor
    is the base of the chain, the result has its format and allocation.
    """
    check_ids(imgUUID=image, ancestor=ancestor, successor=successor)
    there = load(domains, sd, image)
    chain = checked_chain(domains, there, successor)
    there.get(ancestor)
    if ancestor not in chain[:-1]:
        raise InvalidParameter(what="ancestor", reason=f"{ancestor} is not among the ancestors of {successor}")
    gone = chain[chain.index(ancestor) : -1]
    for name in (*gone, successor):
        _check_merges(there, name)
    base, last = there.volumes[ancestor], there.volumes[successor]
    is_base = base.parent == BLANK
    merged = msgspec.structs.replace(
        last,
        parent=base.parent,
        format=base.format if is_base else last.format,
        allocation=base.allocation if is_base else last.allocation,
    )
    where = at(sd, image, successor)
    return [
        *_merged_data(there, chain, successor, merged),
        step("volume.check", where, form=merged.format.name),
        step("volume.adopt_data", where, pivot=True),
        step("volume.rewrite", where, text=encode(merged, there.domain.version).decode()),
        *_told_children(there, successor, merged),
        *(part for name in gone[::-1] for part in volume_removal(there, name, post_zero)),
    ]


def _check_merges(there: Image, name: str) -> None:
    if name not in there.own or there.volumes[name].role is VolumeRole.SHARED:
        raise SharedVolumeKept(volume=name, users="it is a template")
    if len(there.children(name)) > 1:
        raise SharedVolumeKept(volume=name, users=", ".join(there.children(name)))


def _merged_data(there: Image, chain: list[str], successor: str, merged: Volume) -> list[Step]:
    sd, image = there.domain.uuid, there.uuid
    where, last = at(sd, image, successor), there.volumes[successor]
    weight = float(sum(there.stats[name].allocated for name in chain) + 1)
    is_base = merged.parent == BLANK
    copy = step(
        "volume.convert",
        where,
        source_sd=sd,
        source_image=image,
        source_volume=successor,
        source_form=last.format.name,
        form=merged.format.name,
        preallocate=merged.allocation is Allocation.PREALLOCATED and merged.format is Format.RAW,
        parent=BLANK if is_base else last.parent,
        parent_form="" if is_base else there.volumes[last.parent].format.name,
        weight=weight,
        error="MergeSnapshotsError",
        undo=undo("volume.drop_part", sd, image, successor),
    )
    if is_base:
        return [copy]
    parent_form = there.volumes[merged.parent].format.name
    rebase = step("volume.rebase_part", where, parent=merged.parent, parent_form=parent_form, weight=weight)
    return [copy, rebase]


def _told_children(there: Image, successor: str, merged: Volume) -> list[Step]:
    """A parent's format stands in its children's data."""
    if merged.format is there.volumes[successor].format:
        return []
    sd, image = there.domain.uuid, there.uuid
    return [
        step("volume.point_to", at(sd, image, child), parent=successor, parent_form=merged.format.name)
        for child in there.children(successor)
    ]


@plan("sparsifyImage", error="CannotSparsifyVolume")
def sparsify_image(
    domains: Domains, sd: str, image: str, volume: str, target_sd: str, target_image: str, target_volume: str
) -> list[Step]:
    """Copy what a volume and its parents say into a volume that is there, leaving out what is all zeroes."""
    check_ids(imgUUID=image, tmpVolUUID=volume, dstImgUUID=target_image, dstVolUUID=target_volume)
    source, there = load(domains, sd, image), load(domains, target_sd, target_image)
    checked_chain(domains, source, volume)
    check_writable(there, target_volume)
    target = there.get(target_volume)
    if target.allocation is not Allocation.SPARSE:
        raise NotSparse(volume=target_volume)
    if target.parent != BLANK or target.capacity < source.get(volume).capacity:
        raise VolumeTooSmall(what="dstVolUUID", size=target.capacity, parent=source.get(volume).capacity)
    where = at(target_sd, target_image, target_volume)
    copy = step(
        "volume.convert",
        where,
        source_sd=sd,
        source_image=image,
        source_volume=volume,
        source_form=source.get(volume).format.name,
        form=target.format.name,
        error="CannotSparsifyVolume",
        weight=1.0,
        undo=undo("volume.drop_part", target_sd, target_image, target_volume),
    )
    return [copy, step("volume.check", where, form=target.format.name), step("volume.adopt_data", where, pivot=True)]
