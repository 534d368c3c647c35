"""What is asked and told of volumes at once, without a task: information, lists, and changes to their metadata.

It promises replies in the words of the wire. For worker threads.
"""

from __future__ import annotations

import contextlib
import os
from typing import Any

from drivers.storage.contract import BLANK, is_uuid
from drivers.storage.errors import InvalidParameter
from drivers.storage.helpers.files import Files
from drivers.storage.images.chains import (
    Domains,
    Image,
    check_ids,
    directory,
    lease,
    list_volumes,
    load,
    opened,
    payload,
)
from drivers.storage.images.changing import change_meta
from drivers.storage.images.errors import (
    ChainBroken,
    NoSuchImage,
    NoSuchVolume,
    NotPrepared,
    VolumeIllegal,
    VolumeMetadataBroken,
)
from drivers.storage.images.qcow2 import HEADER, backing, checked_chain
from drivers.storage.images.steps import LEASES_FROM
from drivers.storage.images.volume_metadata import LARGEST, LEGALITIES, SECTOR, Format, Volume, VolumeRole
from drivers.storage.images.volume_plans import check_writable

Reply = dict[str, Any]


def find_volume(domains: Domains, sd: str, image: str, volume: str) -> tuple[Image, Volume]:
    """Return a volume and its image. Raises NoSuchVolume also where there is no such image."""
    check_ids(imgUUID=image, volUUID=volume)
    try:
        there = load(domains, sd, image)
    except NoSuchImage:
        raise NoSuchVolume(volume=volume) from None
    return there, there.get(volume)


def info(domains: Domains, sd: str, image: str, volume: str) -> Reply:
    """Return a volume as the wire tells it. Sizes and times are strings of digits."""
    there, found = find_volume(domains, sd, image, volume)
    return {
        "uuid": volume,
        "type": found.allocation.name,
        "format": found.format.name,
        "disktype": found.disk_type_name,
        "voltype": found.role.name,
        "capacity": str(found.capacity),
        "parent": found.parent,
        "description": found.description,
        "pool": "",
        "domain": found.domain,
        "image": found.image,
        "ctime": str(found.created),
        "mtime": "0",
        "legality": found.legality,
        "status": _status(there, volume),
        "children": _children(domains, there, volume),
        **_sizes(there, volume),
        **({"generation": found.generation} if found.generation is not None else {}),
    }


def size(domains: Domains, sd: str, image: str, volume: str) -> Reply:
    """Return how long a volume's data are, and how much room they take."""
    there, _found = find_volume(domains, sd, image, volume)
    return _sizes(there, volume)


def _sizes(there: Image, volume: str) -> Reply:
    stat = there.stats.get(volume)
    return {"apparentsize": str(stat.size if stat else 0), "truesize": str(stat.allocated if stat else 0)}


def _status(there: Image, volume: str) -> str:
    try:
        there.chain(volume)
    except ChainBroken:
        return "INVALID"
    if volume not in there.stats:
        return "INVALID"
    return "OK" if there.volumes[volume].is_legal else "ILLEGAL"


def _children(domains: Domains, there: Image, volume: str) -> list[str]:
    """Return the volumes that stem from this one; from a template, those of other images too."""
    children = set(there.children(volume))
    if there.volumes[volume].role is VolumeRole.SHARED:
        for user in list_volumes(domains, there.domain.uuid).get(volume, []):
            # An image that is damaged, or being deleted, must not hide what can be known of its template.
            with contextlib.suppress(NoSuchImage, VolumeMetadataBroken):
                children |= set(load(domains, there.domain.uuid, user).children(volume))
    return sorted(children)


def names(domains: Domains, sd: str, image: str) -> list[str]:
    """Return all volumes of a domain, or those of one image."""
    if image == BLANK:
        return sorted(list_volumes(domains, sd))
    check_ids(imgUUID=image)
    return sorted(load(domains, sd, image).volumes)


def images(domains: Domains, sd: str) -> list[str]:
    """Return the images of a domain."""
    _domain, files = opened(domains, sd)
    return [name for name in files.names("images") if is_uuid(name)]


def set_description(domains: Domains, sd: str, image: str, volume: str, text: str) -> None:
    _there, found = find_volume(domains, sd, image, volume)
    if any(letter in text for letter in "\n\r\0"):
        raise InvalidParameter(what="description", reason="it must be one line")
    change_meta(domains, sd, found.image, volume, description=text)


def set_legality(domains: Domains, sd: str, image: str, volume: str, word: str) -> None:
    _there, found = find_volume(domains, sd, image, volume)
    if word not in LEGALITIES:
        raise InvalidParameter(what="legality", reason=f"{word!r} is none of {', '.join(LEGALITIES)}")
    change_meta(domains, sd, found.image, volume, legality=word)


def set_size(domains: Domains, sd: str, image: str, volume: str, capacity: int) -> None:
    """Note another capacity; the data are left as they are. Less than 1: as long as they are."""
    there, _found = find_volume(domains, sd, image, volume)
    check_writable(there, volume)
    if capacity >= LARGEST:
        raise InvalidParameter(what="newSize", reason=f"{capacity} bytes are impossible")
    if capacity < 1:
        capacity = there.stats[volume].size if volume in there.stats else 0
    change_meta(domains, sd, image, volume, capacity=-(-capacity // SECTOR) * SECTOR)


def prepare(domains: Domains, sd: str, image: str, volume: str, run_dir: str, *, allow_illegal: bool = False) -> Reply:
    """Have an image ready for a guest, up to that volume ('': the last), and return where its volumes are."""
    check_ids(imgUUID=image)
    there = load(domains, sd, image)
    volume = volume or there.leaf()
    check_ids(volUUID=volume)
    chain = checked_chain(domains, there, volume)
    for name in chain:
        if not allow_illegal and not there.volumes[name].is_legal:
            raise VolumeIllegal(volume=name)
    _make_link(run_dir, sd, image, f"{there.domain.path}/{directory(image)}")
    told = {name: _place(there, name) for name in chain}
    return {"path": there.path(volume), "info": told[volume], "imgVolumesInfo": list(told.values())}


def _place(there: Image, name: str) -> Reply:
    place = {
        "domainID": there.domain.uuid,
        "imageID": there.uuid,
        "volumeID": name,
        "path": there.path(name),
        "volType": "path",
    }
    if there.domain.version < LEASES_FROM:
        return place
    return place | {"leasePath": f"{there.domain.path}/{lease(there.uuid, name)}", "leaseOffset": 0}


def teardown(domains: Domains, sd: str, image: str, run_dir: str) -> None:
    """A guest does not need the image any more. That it never did is no error."""
    check_ids(imgUUID=image)
    opened(domains, sd)
    link = _link(run_dir, sd, image)
    if os.path.islink(link):
        os.unlink(link)


def check_prepared(domains: Domains, sd: str, image: str, volume: str, run_dir: str) -> None:
    """Raise NotPrepared unless the image of a volume has been prepared on this host; NoSuchVolume when that is why."""
    check_ids(imgUUID=image, volUUID=volume)
    opened(domains, sd)
    if not os.path.islink(_link(run_dir, sd, image)):
        find_volume(domains, sd, image, volume)
        raise NotPrepared(volume=volume)


def _link(run_dir: str, sd: str, image: str) -> str:
    """Return where the link to an image lies that has been prepared: a local file, never one on storage."""
    return os.path.join(run_dir, "storage", sd, image)


def _make_link(run_dir: str, sd: str, image: str, target: str) -> None:
    link = _link(run_dir, sd, image)
    os.makedirs(os.path.dirname(link), mode=0o755, exist_ok=True)
    if os.path.islink(link) and os.readlink(link) == target:
        return
    fresh = f"{link}.new"
    if os.path.islink(fresh):
        os.unlink(fresh)
    os.symlink(target, fresh)
    os.rename(fresh, link)


def reconcile(domains: Domains, sd: str, image: str, leaf: str) -> list[str]:
    """Make metadata say what the data say: which volume stems from which, from `leaf` to the base. Return them, base first.

    A guest that merged its snapshots while it ran has changed its data; its volumes that are not in the chain are left.
    """
    there, _found = find_volume(domains, sd, image, leaf)
    files = domains.files(there.domain)
    chain = _actual_chain(there, files, leaf)
    for name, parent in zip(chain, [*chain[1:], BLANK], strict=True):
        volume = there.volumes[name]
        role = (
            volume.role
            if volume.role is VolumeRole.SHARED
            else VolumeRole.LEAF
            if name == leaf
            else VolumeRole.INTERNAL
        )
        if name in there.own and (volume.parent, volume.role) != (parent, role):
            change_meta(domains, sd, image, name, parent=parent, role=role)
    return chain[::-1]


def _actual_chain(there: Image, files: Files, leaf: str) -> list[str]:
    chain, name = list[str](), leaf
    while name:
        if name in chain:
            raise ChainBroken(image=there.uuid, reason=f"the data of {chain[-1]} lead back to {name}")
        if name not in there.volumes:
            raise ChainBroken(image=there.uuid, reason=f"the data of {chain[-1]} stem from {name}, which is missing")
        chain.append(name)
        is_cow = there.volumes[name].format is Format.COW
        name = os.path.basename(backing(files.read(payload(there.uuid, name), 0, HEADER), name)) if is_cow else ""
    return chain
