"""The beginning of a qcow2 file: what it says that it stems from (QEMU, docs/interop/qcow2.txt).

It promises that a chain is only ever given to `qemu-img` when no data in it lead to a file that is not one of its volumes: who
may write a volume's data must not be able to read another's, or the host's.
"""

from __future__ import annotations

import os
import re
import struct

from drivers.storage.contract import BLANK, GLUSTER_MOUNTS, MOUNTS
from drivers.storage.images.chains import Domains, Image, opened, payload
from drivers.storage.images.errors import ChainBroken, VolumeDamaged
from drivers.storage.images.qemuimg import NAMES
from drivers.storage.images.volume_metadata import Format

_MAGIC = b"QFI\xfb"
_EXTERNAL_DATA = 1 << 2
_LONGEST_NAME = 1023
_PARENT_FORMAT = 0xE2792ACA
"""The extension of the header that says what format the parent's data have."""
REPOSITORY = "/rhev/data-center"
"""Where every release that ever wrote a volume has had its domains, by default."""
HEADER = 1 << 16
"""Bytes in which the name of the parent lies."""


def backing(data: bytes, volume: str) -> str:
    """Return the name that the file stems from, '' for none. `data` are its first bytes. Raises VolumeDamaged."""
    if len(data) < 72 or data[:4] != _MAGIC:
        raise VolumeDamaged(volume=volume, reason="they are not qcow2")
    version, offset, length = struct.unpack_from(">IQI", data, 4)
    if version >= 3 and len(data) >= 104 and struct.unpack_from(">Q", data, 72)[0] & _EXTERNAL_DATA:
        raise VolumeDamaged(volume=volume, reason="they lie in yet another file")
    if not offset:
        return ""
    if length > _LONGEST_NAME or offset + length > len(data):
        raise VolumeDamaged(volume=volume, reason="the name of their parent is cut")
    return data[offset : offset + length].decode("utf-8", "replace")


def parent_format(data: bytes) -> str:
    """Return what the file says of its parent's format, as QEMU calls it, '' for nothing. `data` as for `backing`."""
    version, end = struct.unpack_from(">IQ", data, 4)
    place = struct.unpack_from(">I", data, 100)[0] if version >= 3 and len(data) >= 104 else 72
    while place + 8 <= min(end, len(data)):
        kind, length = struct.unpack_from(">II", data, place)
        if kind == _PARENT_FORMAT:
            return data[place + 8 : place + 8 + length].decode("ascii", "replace")
        if not kind:
            break
        place += 8 + -(-length // 8) * 8
    return ""


def checked_chain(domains: Domains, image: Image, leaf: str) -> list[str]:
    """Return the chain from the base to `leaf`, in which data and metadata say the same. Raises ChainBroken, VolumeDamaged."""
    chain = image.chain(leaf)
    for name in chain:
        if name not in image.stats or not image.stats[name].is_file:
            raise VolumeDamaged(volume=name, reason="there are none")
    _domain, files = opened(domains, image.domain.uuid)
    cow = [name for name in chain if image.volumes[name].format is Format.COW]
    headers = dict(zip(cow, files.read_many([payload(image.uuid, name) for name in cow], HEADER), strict=True))
    for name in chain:
        parent = image.volumes[name].parent
        if name in headers and not stems_from(headers[name] or b"", name, parent, image):
            raise ChainBroken(
                image=image.uuid, reason=f"the data of {name} do not stem from {parent}, as its metadata say"
            )
        if name not in headers and parent != BLANK:
            raise ChainBroken(image=image.uuid, reason=f"{name} is raw and has a parent: {parent}")
    return chain


def stems_from(data: bytes, volume: str, parent: str, image: Image) -> bool:
    """Whether the data say that they stem from that volume beside them (BLANK: from none), and take it for what it is.

    Where nothing is said of the parent's format, QEMU guesses it from bytes that a guest may have written, and where it is
    wrongly called qcow2, they are followed: to any file of this host. Raises VolumeDamaged.
    """
    name = backing(data, volume)
    if parent == BLANK:
        return not name
    if parent not in image.volumes or not leads_to(name, parent, image):
        return False
    wanted = image.volumes[parent].format
    return parent_format(data) in ({NAMES[wanted.name], ""} if wanted is Format.COW else {NAMES[wanted.name]})


def leads_to(name: str, parent: str, image: Image) -> bool:
    """Whether a name in a volume's data stands for that volume beside it. Others write it with directories: those of a
    repository, where nobody else can put anything, and no protocol."""
    folder, base = os.path.split(name)
    return base == parent and (folder in ("", ".", f"../{image.uuid}") or _is_own(folder, image))


def _is_own(folder: str, image: Image) -> bool:
    repository = image.domain.path.rpartition(f"/{MOUNTS}/")[0]
    tops = "|".join(re.escape(top) for top in (repository, REPOSITORY) if top)
    between = rf"({MOUNTS}/({GLUSTER_MOUNTS}/)?)?(?!\.)[^/]+"
    return re.fullmatch(rf"({tops})/{between}/{image.domain.uuid}/images/{image.uuid}", folder, re.DOTALL) is not None
