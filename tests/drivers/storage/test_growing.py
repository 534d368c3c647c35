"""A volume that no machine uses, and that is to show a larger disk."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from drivers.storage.images.chains import load
from drivers.storage.images.errors import NoSuchVolume, SizeImpossible, VolumeExtensionFailed
from drivers.storage.images.growing import NotWritable, grow
from tests.drivers.storage.images_stand import COW, MIB, RAW, SIZE, create, new_id, path
from tests.drivers.storage.tasks_stand import SD, Farm

pytestmark = pytest.mark.slow


@pytest.fixture
def farm(tmp_path: Path) -> Iterator[Farm]:
    farm = Farm(tmp_path)
    yield farm
    farm.close()


def shows(farm: Farm, image: str, volume: str) -> int:
    """Return how many bytes the data of a volume say that they are for."""
    asked = ["qemu-img", "info", "-U", "--output=json", path(farm.local, image, volume)]
    told: int = json.loads(subprocess.run(asked, capture_output=True, check=True).stdout)["virtual-size"]
    return told


def test_a_cow_volume_grows(farm: Farm) -> None:
    image, volume = new_id(), new_id()
    farm.done(create(farm, image, volume, COW))
    assert grow(farm.local, SD, image, volume, SIZE + MIB - 1) == SIZE + MIB
    assert shows(farm, image, volume) == SIZE + MIB == load(farm.local, SD, image).get(volume).capacity
    assert grow(farm.local, SD, image, volume, SIZE + MIB) == SIZE + MIB
    with pytest.raises(SizeImpossible, match="smaller"):
        grow(farm.local, SD, image, volume, SIZE)
    assert shows(farm, image, volume) == SIZE + MIB


def test_a_raw_volume_says_how_large_it_is(farm: Farm) -> None:
    image, volume = new_id(), new_id()
    farm.done(create(farm, image, volume, RAW))
    assert grow(farm.local, SD, image, volume, SIZE + MIB) == SIZE
    assert Path(path(farm.local, image, volume)).stat().st_size == SIZE


def test_what_is_below_others_stays_as_it_is(farm: Farm) -> None:
    image, below, leaf = new_id(), new_id(), new_id()
    farm.done(create(farm, image, below, COW))
    farm.done(create(farm, image, leaf, COW, parent_image=image, parent=below))
    with pytest.raises(NotWritable, match="not the last of its chain"):
        grow(farm.local, SD, image, below, SIZE + MIB)
    assert shows(farm, image, below) == SIZE
    assert grow(farm.local, SD, image, leaf, SIZE + MIB) == SIZE + MIB


def test_what_cannot_be_found_or_is_damaged(farm: Farm) -> None:
    image, volume = new_id(), new_id()
    with pytest.raises(NoSuchVolume):
        grow(farm.local, SD, image, volume, SIZE)


def test_what_a_machine_has_after_all_stays_as_it_is(farm: Farm) -> None:
    image, volume = new_id(), new_id()
    farm.done(create(farm, image, volume, COW))
    holder = subprocess.Popen(
        ["qemu-io", "-f", "qcow2", path(farm.local, image, volume)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert holder.stdin and holder.stdout
        holder.stdin.write(b"length\n")
        holder.stdin.flush()
        assert holder.stdout.readline()  # it has opened it
        with pytest.raises(VolumeExtensionFailed, match="another process using"):
            grow(farm.local, SD, image, volume, SIZE + MIB)
    finally:
        holder.communicate()
    assert load(farm.local, SD, image).get(volume).capacity == SIZE
