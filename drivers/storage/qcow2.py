"""The beginning of a qcow2 file: what it says that it stems from (QEMU, docs/interop/qcow2.txt).

It promises that a chain is only ever given to `qemu-img` when no data in it lead to a file that is not one of its volumes: who
may write a volume's data must not be able to read another's, or the host's.
"""

from __future__ import annotations

import os
import struct

from drivers.storage.chains import Domains, Image, opened, payload
from drivers.storage.contract import BLANK
from drivers.storage.image_errors import ChainBroken, VolumeDamaged
from drivers.storage.volume_metadata import Format

_MAGIC = b"QFI\xfb"
_EXTERNAL_DATA = 1 << 2
_LONGEST_NAME = 1023
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
        if name in headers and not leads_to(backing(headers[name] or b"", name), parent, image):
            raise ChainBroken(
                image=image.uuid, reason=f"the data of {name} do not stem from {parent}, as its metadata say"
            )
        if name not in headers and parent != BLANK:
            raise ChainBroken(image=image.uuid, reason=f"{name} is raw and has a parent: {parent}")
    return chain


def leads_to(name: str, parent: str, image: Image) -> bool:
    """Whether a name in a volume's data stands for that volume beside it. Others write it with directories."""
    if parent == BLANK:
        return not name
    folder, base = os.path.split(name)
    is_own = folder in ("", ".", f"../{image.uuid}") or folder.endswith(f"/{image.domain.uuid}/images/{image.uuid}")
    return base == parent and is_own and "/../" not in folder
