"""An image as it lies in its domain: its volumes, and the chains that they make.

It promises that a chain is returned whole, base first, or an error says what is wrong with it: a parent that is missing, or one
that leads back. Nothing here changes anything.
"""

from __future__ import annotations

from typing import Protocol

import msgspec

from drivers.storage.contract import BLANK, Domain, is_uuid
from drivers.storage.errors import InvalidParameter, NoSuchDomain
from drivers.storage.helpers.files import Files, Stat
from drivers.storage.images.errors import ChainBroken, NoSuchImage, NoSuchVolume, NotAnImageDomain, VolumeMetadataBroken
from drivers.storage.images.volume_metadata import Volume, VolumeRole, decode

META = ".meta"
LEASE = ".lease"
PART = ".part"
"""What data are called until they are whole."""
REMOVED = "_remove_me_"
"""Begins the name of an image's directory that is being deleted."""
KEPT = "_keep_me_"
"""Begins the name of one that a copy is to replace."""
LONGEST_META = 1 << 16


class Domains(Protocol):
    """Who knows the storage domains."""

    def get(self, sd_uuid: str) -> Domain: ...

    def files(self, domain: Domain) -> Files: ...


def directory(image: str) -> str:
    return f"images/{image}"


def payload(image: str, volume: str) -> str:
    return f"images/{image}/{volume}"


def meta(image: str, volume: str) -> str:
    return payload(image, volume) + META


def lease(image: str, volume: str) -> str:
    return payload(image, volume) + LEASE


def check_ids(**ids: str) -> None:
    """Raise InvalidParameter unless they are ids: what is one can be a part of a path without harm."""
    for what, text in ids.items():
        if not is_uuid(text):
            raise InvalidParameter(what=what, reason=f"{text[:100]!r} is not a UUID")


def opened(domains: Domains, sd: str) -> tuple[Domain, Files]:
    """Return a domain that can hold images, and what is done in it. Raises NoSuchDomain, NotAnImageDomain."""
    if not is_uuid(sd):
        raise NoSuchDomain(domain=sd)
    domain = domains.get(sd)
    if domain.is_iso:
        raise NotAnImageDomain(domain=sd)
    return domain, domains.files(domain)


class Image(msgspec.Struct, frozen=True, kw_only=True):
    """What there is of an image. `volumes`: all that have metadata, templates it stems from included."""

    domain: Domain
    uuid: str
    volumes: dict[str, Volume]
    stats: dict[str, Stat]
    """Everything in its directory, by name."""

    def get(self, volume: str) -> Volume:
        """Raises NoSuchVolume."""
        if volume not in self.volumes:
            raise NoSuchVolume(volume=volume)
        return self.volumes[volume]

    def path(self, volume: str) -> str:
        """Return the absolute path of a volume's data, for children."""
        return f"{self.domain.path}/{payload(self.uuid, volume)}"

    @property
    def own(self) -> dict[str, Volume]:
        """The volumes that are this image's, not a template's of another."""
        return {name: volume for name, volume in self.volumes.items() if volume.image == self.uuid}

    def children(self, parent: str) -> list[str]:
        return sorted(name for name, volume in self.volumes.items() if volume.parent == parent)

    def leaf(self) -> str:
        """Return the volume that is nobody's parent. Raises ChainBroken when there is none, or there are several."""
        parents = {volume.parent for volume in self.volumes.values()}
        leaves = [name for name in self.own if name not in parents]
        if len(leaves) != 1:
            raise ChainBroken(image=self.uuid, reason=f"{len(leaves)} volumes have no children, and one should")
        return leaves[0]

    def chain(self, leaf: str) -> list[str]:
        """Return the volumes from the base to `leaf`. Raises NoSuchVolume, ChainBroken."""
        self.get(leaf)
        names = [leaf]
        while (parent := self.volumes[names[-1]].parent) != BLANK:
            if parent in names:
                raise ChainBroken(image=self.uuid, reason=f"the parents of {leaf} lead back to {parent}")
            if parent not in self.volumes:
                raise ChainBroken(image=self.uuid, reason=f"{names[-1]} has a parent that is missing: {parent}")
            names.append(parent)
        return names[::-1]


def find(domains: Domains, sd: str, image: str) -> Image | None:
    """Return the image, None when the domain has none of that name. Raises VolumeMetadataBroken."""
    domain, files = opened(domains, sd)
    try:
        stats = files.scan(directory(image))
    except FileNotFoundError:
        return None
    described = [name.removesuffix(META) for name, stat in stats.items() if name.endswith(META) and stat.is_file]
    names = [name for name in described if is_uuid(name)]
    texts = files.read_many([meta(image, name) for name in names], LONGEST_META)
    volumes = {name: decode(text, name) for name, text in zip(names, texts, strict=True) if text is not None}
    return Image(domain=domain, uuid=image, volumes=volumes, stats=stats)


def load(domains: Domains, sd: str, image: str) -> Image:
    """Return the image. Raises NoSuchImage."""
    found = find(domains, sd, image)
    if found is None:
        raise NoSuchImage(image=image, domain=sd)
    return found


def list_volumes(domains: Domains, sd: str) -> dict[str, list[str]]:
    """Return all volumes of a domain, each with the images that have it (a template: those that stem from it, too)."""
    _domain, files = opened(domains, sd)
    images: dict[str, list[str]] = {}
    for path in files.find("images", f"*{META}"):
        image, _, name = path.rpartition("/")
        if is_uuid(image) and is_uuid(name.removesuffix(META)):
            images.setdefault(name.removesuffix(META), []).append(image)
    return images


def users(domains: Domains, sd: str, image: Image, volume: str) -> list[str]:
    """Return the images that stem from a shared volume."""
    if image.get(volume).role is not VolumeRole.SHARED:
        return []
    return [user for user in list_volumes(domains, sd).get(volume, []) if user != image.uuid]


def broken(domains: Domains, sd: str) -> dict[str, str]:
    """Return what is wrong with the images of a domain, by image; {} when it is clean. For whoever verifies one."""
    _domain, files = opened(domains, sd)
    found = {}
    for image in files.names("images"):
        reason = _broken(domains, sd, image) if is_uuid(image) else "it is left over"
        if reason:
            found[image] = reason
    return found


def _broken(domains: Domains, sd: str, name: str) -> str:
    try:
        image = load(domains, sd, name)
        for volume in image.volumes:
            image.chain(volume)
    except (ChainBroken, VolumeMetadataBroken) as error:
        return str(error)
    wanted = {suffixed for volume in image.volumes for suffixed in (volume, volume + META, volume + LEASE)}
    stray = sorted(set(image.stats) - wanted)
    missing = sorted(volume for volume in image.volumes if volume not in image.stats)
    illegal = sorted(name for name, volume in image.volumes.items() if not volume.is_legal)
    told = [("stray files", stray), ("no data", missing), ("illegal", illegal)]
    reasons = [f"{what}: {', '.join(names)}" for what, names in told if names]
    return "; ".join(reasons) if reasons or image.own else "it is empty"
