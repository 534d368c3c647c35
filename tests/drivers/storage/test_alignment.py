"""Alignment: what partition tables say, and where they are looked for."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from drivers.errors import Failed
from drivers.storage.errors import InvalidParameter
from drivers.storage.images.alignment import alignment, of_device, partitions
from tests.drivers.storage import images_stand
from tests.drivers.storage.images_stand import COW, RAW, create, new_id
from tests.drivers.storage.tasks_stand import SD, Farm


@pytest.fixture
def farm(tmp_path: Path) -> Iterator[Farm]:
    farm = Farm(tmp_path)
    yield farm
    farm.close()


def mbr(*entries: tuple[int, int, int]) -> bytes:
    """Return an MBR with partitions of (kind, first sector, sectors)."""
    table = b"".join(struct.pack("<B3xB3xII", 0, *entry) for entry in entries)
    return bytes(446) + table.ljust(64, b"\0") + b"\x55\xaa"


def gpt(*starts: int, size: int = 128) -> bytes:
    header = b"EFI PART".ljust(72, b"\0") + struct.pack("<QII", 2, 128, size)
    entries = b"".join(
        (b"\1" * 16 + bytes(16) + struct.pack("<QQ", start, start + 7)).ljust(size, b"\0") for start in starts
    )
    return mbr((0xEE, 1, 2**32 - 1)) + header.ljust(512, b"\0") + entries


@pytest.mark.parametrize(
    ("head", "found"),
    [
        (mbr((0x83, 2048, 100), (0, 0, 0), (0x82, 63, 100)), [(1, 1 << 20), (3, 63 * 512)]),
        (gpt(2048, 4097), [(1, 1 << 20), (2, 4097 * 512)]),
        (gpt(), []),
        (b"", []),
        (bytes(4096), []),
        (mbr((0xEE, 1, 5)), []),
        (gpt(2048)[:1030], []),
        (gpt(2048, size=0), []),
        (mbr((0xEE, 1, 5)) + b"EFI PART" + b"\xff" * 504, []),
    ],
)
def test_tables_are_read_and_nonsense_is_none(head: bytes, found: list[tuple[int, int]]) -> None:
    assert list(partitions(head)) == found


@pytest.mark.parametrize("form", [RAW, COW])
def test_a_volume_tells_by_what_a_guest_would_read(farm: Farm, form: int) -> None:
    image, volume = new_id(), new_id()
    farm.done(create(farm, image, volume, form))
    assert alignment(farm.local, SD, image, volume) == {}
    images_stand.fill(farm, image, volume, 0, mbr((0x83, 2048, 100), (0x83, 63, 100)))
    assert alignment(farm.local, SD, image, volume) == {"/dev/sda1": True, "/dev/sda2": False}


def test_a_device_tells_likewise(tmp_path: Path) -> None:
    (tmp_path / "36001405a").write_bytes(mbr((0x83, 2048, 100), (0x83, 63, 100)).ljust(1 << 20, b"\0"))
    assert of_device("36001405a", str(tmp_path)) == {"/dev/sda1": True, "/dev/sda2": False}
    with pytest.raises(InvalidParameter, match="GUID"):
        of_device("../sda", str(tmp_path))
    with pytest.raises(Failed, match="reading device no-such-one"):
        of_device("no-such-one", str(tmp_path))
