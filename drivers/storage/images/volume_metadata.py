"""The text that describes a volume on disk: `KEY=value` lines up to a line `EOF`, in `<volUUID>.meta`.

It promises that what other implementations of the format wrote is read, whatever the order of its lines; that keys it does not
know are kept; and that what it writes, they read. Numbers of the wire stand for the words on disk in requests.
"""

from __future__ import annotations

import time
from enum import IntEnum
from typing import Any

import msgspec

from drivers.storage.contract import BLANK, is_uuid
from drivers.storage.images.errors import VolumeMetadataBroken

SECTOR = 512
LARGEST = 1 << 63
"""Bytes; what neither file systems nor images can be."""
LONGEST_DESCRIPTION = 1024
"""Bytes that are kept of a description."""
_END = "EOF"


class Allocation(IntEnum):
    PREALLOCATED = 1
    SPARSE = 2


class Format(IntEnum):
    COW = 4
    RAW = 5


class VolumeRole(IntEnum):
    SHARED = 6
    INTERNAL = 7
    LEAF = 8


class DiskType(IntEnum):
    UNKNOWN = 0
    SYSTEM = 1
    DATA = 2
    SHARED = 3
    SWAP = 4
    TEMP = 5


LEGALITIES = ("LEGAL", "ILLEGAL", "FAKE")


class Volume(msgspec.Struct, frozen=True, kw_only=True):
    """A volume as its metadata tell it. `capacity` in bytes. `rest` holds the lines of keys that are not ours."""

    domain: str
    image: str
    capacity: int
    format: Format
    allocation: Allocation
    role: VolumeRole = VolumeRole.LEAF
    parent: str = BLANK
    disk_type: str = "2"
    """As it stands on disk: a number, or a name in later releases."""
    description: str = ""
    legality: str = "LEGAL"
    created: int = 0
    generation: int | None = None
    sequence: int | None = None
    rest: tuple[tuple[str, str], ...] = ()

    @property
    def is_legal(self) -> bool:
        return self.legality != "ILLEGAL"

    @property
    def disk_type_name(self) -> str:
        known = {str(int(kind)): kind.name for kind in DiskType}
        return known.get(self.disk_type, self.disk_type)


def encode(volume: Volume, version: int) -> bytes:
    """Return the metadata's text for a domain of that version."""
    lines: dict[str, Any] = dict(volume.rest)
    if version >= 5:
        lines["CAP"] = volume.capacity
    else:
        lines |= {"SIZE": -(-volume.capacity // SECTOR), "MTIME": 0, "POOL_UUID": ""}
    generation = volume.generation if volume.generation is not None else 0 if version >= 4 else None
    lines |= {
        "CTIME": volume.created,
        "DESCRIPTION": _one_line(volume.description),
        "DISKTYPE": volume.disk_type,
        "DOMAIN": volume.domain,
        "FORMAT": volume.format.name,
        "GEN": generation,
        "IMAGE": volume.image,
        "LEGALITY": volume.legality,
        "PUUID": volume.parent,
        "SEQ": volume.sequence,
        "TYPE": volume.allocation.name,
        "VOLTYPE": volume.role.name,
    }
    text = "".join(f"{key}={value}\n" for key, value in sorted(lines.items()) if value is not None)
    return f"{text}{_END}\n".encode()


def _one_line(description: str) -> str:
    """Return it without whatever anybody might take for the end of a line, and cut to fit."""
    line = " ".join(description.splitlines())
    return line.encode()[:LONGEST_DESCRIPTION].decode(errors="ignore")


_OURS = {
    "CAP",
    "SIZE",
    "MTIME",
    "POOL_UUID",
    "CTIME",
    "DESCRIPTION",
    "DISKTYPE",
    "DOMAIN",
    "FORMAT",
    "GEN",
    "IMAGE",
} | {*("LEGALITY", "PUUID", "SEQ", "TYPE", "VOLTYPE")}


def decode(data: bytes, what: str) -> Volume:
    """Return what the text says. Raises VolumeMetadataBroken naming the volume `what` and what is wrong with it."""
    lines = _lines(data, what)
    try:
        return Volume(
            domain=_id(lines, "DOMAIN"),
            image=_id(lines, "IMAGE"),
            capacity=_capacity(lines),
            format=Format[lines["FORMAT"]],
            allocation=Allocation[lines["TYPE"]],
            role=VolumeRole[lines["VOLTYPE"]],
            parent=_id(lines, "PUUID"),
            disk_type=lines.get("DISKTYPE", "2"),
            description=lines.get("DESCRIPTION", ""),
            legality=_legality(lines["LEGALITY"]),
            created=int(lines.get("CTIME", "0")),
            generation=int(lines["GEN"]) if "GEN" in lines else None,
            sequence=int(lines["SEQ"]) if "SEQ" in lines else None,
            rest=tuple((key, value) for key, value in lines.items() if key not in _OURS),
        )
    except KeyError as error:
        raise VolumeMetadataBroken(volume=what, reason=f"{error.args[0]} is missing or unknown") from None
    except ValueError as error:
        raise VolumeMetadataBroken(volume=what, reason=str(error)) from None


def fresh(**fields: Any) -> Volume:
    """Return the description of a new volume, made now, not legal yet."""
    return Volume(created=int(time.time()), **({"legality": "ILLEGAL"} | fields))


def _lines(data: bytes, what: str) -> dict[str, str]:
    lines: dict[str, str] = {}
    for line in data.decode("utf-8", "replace").split("\n"):
        if line.strip() == _END:
            return lines
        key, equals, value = line.partition("=")
        if equals:
            lines[key.strip()] = value.strip()
    if lines and "DOMAIN" in lines and "VOLTYPE" in lines:
        return lines  # written by those who leave out the last line; what is missing is found by its key
    raise VolumeMetadataBroken(volume=what, reason="it is empty or cut")


def _id(lines: dict[str, str], key: str) -> str:
    """Return an id: what is one can be a part of a path without harm."""
    if not is_uuid(lines[key]):
        raise ValueError(f"{key}={lines[key][:60]} is no UUID")
    return lines[key]


def _capacity(lines: dict[str, str]) -> int:
    capacity = int(lines["CAP"]) if "CAP" in lines else int(lines["SIZE"]) * SECTOR
    if not 0 <= capacity < LARGEST:
        raise ValueError(f"{capacity} bytes are impossible")
    return capacity


def _legality(word: str) -> str:
    if word not in LEGALITIES:
        raise ValueError(f"LEGALITY={word} is unknown")
    return word
