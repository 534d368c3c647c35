"""Alignment: whether the partitions in a volume begin where storage can write them without touching more than it must.

It promises to read the partition table and nothing else, whatever a guest has written there: no name in it is followed.
"""

from __future__ import annotations

import re
import struct
import tempfile
from collections.abc import Iterator

from drivers import programs
from drivers.errors import Failed
from drivers.storage.errors import InvalidParameter
from drivers.storage.images.chains import Domains, load, opened, payload
from drivers.storage.images.qcow2 import checked_chain
from drivers.storage.images.volume_metadata import Format

QEMU_IMG = "/usr/bin/qemu-img"
TIMEOUT = 60.0
HEAD = 1 << 20
"""Bytes in which every table lies: a GPT's entries take 16 KiB."""
SECTOR = 512
GOOD = 64 << 10
"""Bytes. What begins at a multiple of this suits every storage there is; virt-alignment-scan draws the same line."""
PROTECTIVE = 0xEE


def alignment(domains: Domains, sd: str, image: str, volume: str) -> dict[str, bool]:
    """Return for each partition, by the name that a guest may have for it, whether it begins at a good place. Raises the
    errors of chains; Failed when the data cannot be read."""
    return {f"/dev/sda{number}": start % GOOD == 0 for number, start in partitions(_head(domains, sd, image, volume))}


def of_device(guid: str, folder: str = "/dev/mapper") -> dict[str, bool]:
    """Return the same of a device of this host. Raises InvalidParameter, and Failed when it cannot be read."""
    if not re.fullmatch(r"[A-Za-z0-9][\w.:-]*", guid):
        raise InvalidParameter(what="GUID", reason="not the name of a device")
    head = _first_bytes(f"{folder}/{guid}", "raw", f"device {guid}")
    return {f"/dev/sda{number}": start % GOOD == 0 for number, start in partitions(head)}


def partitions(head: bytes) -> Iterator[tuple[int, int]]:
    """Yield number and first byte of each partition that the table names: a GPT's, or the four of an MBR."""
    if len(head) < SECTOR or head[510:512] != b"\x55\xaa":
        return
    entries = [struct.unpack_from("<B3xB3xII", head, 446 + 16 * number) for number in range(4)]
    if any(kind == PROTECTIVE for _, kind, _, _ in entries):
        yield from _gpt(head)
        return
    for number, (_, kind, start, length) in enumerate(entries, 1):
        if kind and length:
            yield number, start * SECTOR


def _gpt(head: bytes) -> Iterator[tuple[int, int]]:
    if head[SECTOR : SECTOR + 8] != b"EFI PART":
        return
    place, count, size = struct.unpack_from("<QII", head, SECTOR + 72)
    for number in range(min(count, 128)):
        entry = head[place * SECTOR + number * size :][:48]
        if size >= 128 and len(entry) == 48 and any(entry[:16]):
            yield number + 1, struct.unpack_from("<Q", entry, 32)[0] * SECTOR


def _head(domains: Domains, sd: str, image: str, volume: str) -> bytes:
    """Return the first bytes that a guest would read of the volume."""
    there = load(domains, sd, image)
    checked_chain(domains, there, volume)
    if there.get(volume).format is Format.RAW:
        _domain, files = opened(domains, sd)
        return files.read(payload(image, volume), 0, HEAD)
    return _first_bytes(there.path(volume), "qcow2", f"volume {volume}")


def _first_bytes(path: str, form: str, what: str) -> bytes:
    with tempfile.NamedTemporaryFile(prefix="head-") as out:
        copy = [
            "dd",
            "-U",
            "-f",
            form,
            "-O",
            "raw",
            f"bs={HEAD}",
            "count=1",
            f"if={path}",
            f"of={out.name}",
        ]
        ran = programs.run([QEMU_IMG, *copy], timeout=TIMEOUT)
        if ran.code:
            raise Failed(action=f"reading {what}", reason=ran.reason())
        with open(out.name, "rb") as file:
            return file.read(HEAD)
