"""The short steps of tasks on images and volumes, and what takes each back. See `drivers.storage.tasks.registry`.

It promises that every function here may be called again after it was interrupted anywhere, and that an undo does nothing when
its step was never begun. All arguments are plain, and mean the same in every release.
"""

from __future__ import annotations

import contextlib
from typing import Protocol

import msgspec

from drivers.storage.contract import Domain
from drivers.storage.helpers.files import Files
from drivers.storage.images.chains import (
    KEPT,
    LEASE,
    META,
    PART,
    REMOVED,
    Domains,
    check_ids,
    directory,
    find,
    lease,
    meta,
    opened,
    payload,
)
from drivers.storage.images.changing import change_meta, read_meta, turn_meta
from drivers.storage.images.errors import VolumeDamaged
from drivers.storage.images.notes import Notes
from drivers.storage.images.volume_metadata import VolumeRole, decode
from drivers.storage.tasks.registry import deed, undo

LEASE_SIZE = 1 << 20
LEASES_FROM = 3
"""The version of domains from which on volumes have leases."""


@deed("image.make_directory")
def make_directory(domains: Domains, sd: str, image: str) -> None:
    _domain, files = opened(domains, sd)
    files.make_directory(directory(image), parents=True)


@undo("image.drop_directory")
def drop_directory(domains: Domains, sd: str, image: str) -> None:
    """Remove the directory of an image that has no volumes of its own; links to templates go with it."""
    _domain, files = opened(domains, sd)
    there = find(domains, sd, image)
    if there is not None and not there.own:
        files.remove_tree(directory(image))


@deed("image.tidy")
def tidy(domains: Domains, sd: str, image: str) -> None:
    """Remove an image of which the last volume has been deleted."""
    drop_directory(domains, sd, image)


@deed("volume.share")
def share(domains: Domains, sd: str, source: str, volume: str, image: str) -> None:
    """Let an image stem from a template, by a second name for each of its files."""
    _domain, files = opened(domains, sd)
    for suffix in ("", LEASE, META):
        with contextlib.suppress(FileExistsError):
            _link(files, payload(source, volume) + suffix, payload(image, volume) + suffix, optional=suffix == LEASE)


def _link(files: Files, source: str, target: str, *, optional: bool) -> None:
    try:
        files.link(source, target)
    except FileNotFoundError:
        if not optional:
            raise


class Lessors(Domains, Protocol):
    """Who knows the storage domains, and makes leases on them."""

    def make_lease(self, domain: Domain, path: str, name: str) -> None:
        """Write a lease of that name, which nobody holds, into a file of the domain, if sanlock is on this host."""


@deed("volume.begin")
def begin(domains: Lessors, sd: str, image: str, volume: str, text: str) -> None:
    """Put a new volume's metadata there, and its lease."""
    domain, files = opened(domains, sd)
    if domain.version >= LEASES_FROM:
        with contextlib.suppress(FileExistsError):
            files.create(lease(image, volume), size=max(LEASE_SIZE, domain.alignment))
        if not files.stat(lease(image, volume)).is_file:
            raise VolumeDamaged(volume=volume, reason="something else is in the place of its lease")
        domains.make_lease(domain, lease(image, volume), volume)
    files.write(meta(image, volume), text.encode())


@deed("volume.make_raw")
def make_raw(domains: Domains, sd: str, image: str, volume: str, size: int) -> None:
    """Put the data of a sparse raw volume there: a hole. They may be there already, or their beginning."""
    _domain, files = opened(domains, sd)
    try:
        files.create(payload(image, volume), size=size)
    except FileExistsError:
        if not files.stat(payload(image, volume)).is_file:
            raise VolumeDamaged(volume=volume, reason="something else is in their place") from None
        files.truncate(payload(image, volume), size)


@undo("volume.discard")
def discard(domains: Domains, sd: str, image: str, volume: str) -> None:
    """Remove all there is of a volume in an image."""
    _domain, files = opened(domains, sd)
    for suffix in (PART, "", LEASE, META):
        with contextlib.suppress(FileNotFoundError):
            files.remove_file(payload(image, volume) + suffix)


@deed("volume.delete")
def delete(domains: Domains, sd: str, image: str, volume: str) -> None:
    discard(domains, sd, image, volume)


@deed("volume.set_role")
def set_role(domains: Domains, sd: str, image: str, volume: str, role: str) -> None:
    change_meta(domains, sd, image, volume, role=VolumeRole[role])


@undo("volume.restore_role")
def restore_role(domains: Domains, sd: str, image: str, volume: str, role: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        set_role(domains, sd, image, volume, role)


@deed("volume.spoil")
def spoil(domains: Domains, sd: str, image: str, volume: str) -> None:
    """Mark a volume illegal that is about to be deleted. It may be gone already."""
    with contextlib.suppress(FileNotFoundError):
        change_meta(domains, sd, image, volume, legality="ILLEGAL")


@deed("volume.tell_parent")
def tell_parent(domains: Domains, sd: str, image: str, volume: str) -> None:
    """Make a volume that has lost its last child the leaf of its chain. A template stays one."""
    found = find(domains, sd, image)
    if found is None or volume not in found.own or found.children(volume):
        return
    if found.own[volume].role is VolumeRole.INTERNAL:
        change_meta(domains, sd, image, volume, role=VolumeRole.LEAF)


class Noting(Domains, Protocol):
    """Who knows the storage domains, and what this host may have left on them."""

    @property
    def notes(self) -> Notes: ...


@deed("volume.adopt_data")
def adopt_data(domains: Noting, sd: str, image: str, volume: str) -> None:
    """Give data that are whole the volume's name. They may have it already."""
    _domain, files = opened(domains, sd)
    with contextlib.suppress(FileNotFoundError):
        files.change_mode(payload(image, volume) + PART, 0o660)
        files.rename(payload(image, volume) + PART, payload(image, volume))
    domains.notes.remove(sd, image, volume)


@deed("volume.take_part")
def take_part(domains: Noting, sd: str, image: str, volume: str) -> None:
    """Call data that a client has brought what all are called that are not in their place yet. They may be already."""
    _domain, files = opened(domains, sd)
    with contextlib.suppress(FileNotFoundError):
        if token := domains.notes.token(sd, image, volume):
            files.rename(f"{payload(image, volume)}.{token}{PART}", payload(image, volume) + PART)


@undo("volume.drop_part")
def drop_part(domains: Noting, sd: str, image: str, volume: str) -> None:
    _domain, files = opened(domains, sd)
    with contextlib.suppress(FileNotFoundError):
        files.remove_file(payload(image, volume) + PART)
    drop_leftover(domains, sd, image, volume)


@undo("volume.drop_leftover")
@deed("volume.drop_leftover")
def drop_leftover(domains: Noting, sd: str, image: str, volume: str) -> None:
    """Remove what this host has left of data that a client was bringing. What is called `.part` may be another host's."""
    if token := domains.notes.token(sd, image, volume):
        _domain, files = opened(domains, sd)
        with contextlib.suppress(FileNotFoundError):
            files.remove_file(f"{payload(image, volume)}.{token}{PART}")
    domains.notes.remove(sd, image, volume)


@deed("volume.finish")
def finish(domains: Domains, sd: str, image: str, volume: str, legality: str, role: str) -> None:
    """The volume's data are there: let it be used. Raises VolumeDamaged when they are not."""
    _domain, files = opened(domains, sd)
    try:
        files.change_mode(payload(image, volume), 0o660)
    except FileNotFoundError:
        raise VolumeDamaged(volume=volume, reason="there are none") from None
    change_meta(domains, sd, image, volume, legality=legality, role=VolumeRole[role])


@deed("volume.grow_raw")
def grow_raw(domains: Domains, sd: str, image: str, volume: str, size: int) -> None:
    _domain, files = opened(domains, sd)
    if files.stat(payload(image, volume)).size < size:
        files.truncate(payload(image, volume), size)


@deed("volume.grow_part")
def grow_part(domains: Domains, sd: str, image: str, volume: str, size: int) -> None:
    """Have raw data that are not in their place yet be as long as the volume is. They may be there already."""
    _domain, files = opened(domains, sd)
    with contextlib.suppress(FileNotFoundError):
        if files.stat(payload(image, volume) + PART).size < size:
            files.truncate(payload(image, volume) + PART, size)


@undo("volume.shrink_raw")
def shrink_raw(domains: Domains, sd: str, image: str, volume: str, size: str) -> None:
    """Take back what was grown but never told of."""
    _domain, files = opened(domains, sd)
    with contextlib.suppress(FileNotFoundError):
        if files.stat(payload(image, volume)).size > int(size) and read_meta(files, image, volume).capacity <= int(
            size
        ):
            files.truncate(payload(image, volume), int(size))


@deed("volume.set_capacity")
def set_capacity(domains: Domains, sd: str, image: str, volume: str, size: int) -> None:
    change_meta(domains, sd, image, volume, capacity=size)


@deed("volume.rewrite")
def rewrite(domains: Domains, sd: str, image: str, volume: str, text: str) -> None:
    """Replace a volume's metadata by others, but for what clients may have said of it meanwhile."""
    fresh = decode(text.encode(), volume)
    turn_meta(
        domains,
        sd,
        image,
        volume,
        lambda there: msgspec.structs.replace(fresh, description=there.description, legality=there.legality),
    )


@deed("image.set_aside")
def set_aside(domains: Domains, sd: str, image: str, prefix: str) -> None:
    """Take an image out of sight, under another name. It may have that name already; then it is not here any more."""
    if prefix != KEPT and opened(domains, sd)[1].exists(directory(image)):
        remove(domains, sd, image, prefix)  # what an earlier image of that name has left
    _rename(domains, sd, directory(image), directory(f"{prefix}{image}"))


@undo("image.put_back")
def put_back(domains: Domains, sd: str, image: str) -> None:
    _rename(domains, sd, directory(f"{KEPT}{image}"), directory(image))


def _rename(domains: Domains, sd: str, source: str, target: str) -> None:
    _domain, files = opened(domains, sd)
    if files.exists(source):
        files.rename(source, target, replace=False)


@deed("image.remove")
def remove(domains: Domains, sd: str, image: str, prefix: str) -> None:
    """Remove an image that was set aside."""
    check_ids(imgUUID=image)
    assert prefix.startswith(REMOVED) or prefix == KEPT
    _domain, files = opened(domains, sd)
    files.remove_tree(directory(f"{prefix}{image}"))
