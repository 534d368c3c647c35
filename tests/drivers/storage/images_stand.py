"""Images for tests: made through tasks, filled with real data, and looked at with real qemu-img."""

from __future__ import annotations

import hashlib
import itertools
import os
import subprocess
from pathlib import Path
from typing import Any

from drivers.storage.images.chains import broken, find, load
from tests.drivers.storage.tasks_stand import OTHER, POOL, SD, Farm, Local

COW, RAW = 4, 5
PREALLOCATED, SPARSE = 1, 2
MIB = 1 << 20
SIZE = 2 * MIB
_NUMBERS = itertools.count(1000)
"""Beyond the numbers that tests choose."""


def new_id(number: int | None = None) -> str:
    """Return an id that no test has had: of a number below 1000, or of the next one from there on."""
    return f"10000000-0000-4000-8000-{next(_NUMBERS) if number is None else number:012d}"


def create(farm: Farm, image: str, volume: str, form: int = RAW, **fields: Any) -> str:
    """Begin to make a volume, and return the task."""
    given = {"size": SIZE, "allocation": SPARSE, "disk_type": 2, "description": "", "sd": SD, **fields}
    return farm.images.create_volume(POOL, image=image, volume=volume, form=form, **given)


def path(local: Local, image: str, volume: str, sd: str = SD) -> str:
    return f"{local.get(sd).path}/images/{image}/{volume}"


def fill(farm: Farm, image: str, volume: str, offset: int, data: bytes) -> None:
    """Write into a volume as a guest would."""
    file = path(farm.local, image, volume)
    form = "qcow2" if is_qcow2(file) else "raw"
    source = Path(f"{farm.base}/pattern")
    source.write_bytes(data)
    command = f"write -s {source} {offset} {len(data)}"
    subprocess.run(["qemu-io", "-f", form, "-c", command, file], check=True, capture_output=True)


def is_qcow2(file: str) -> bool:
    with open(file, "rb") as opened:
        return opened.read(4) == b"QFI\xfb"


def digest(local: Local, image: str, volume: str, sd: str = SD) -> str:
    """Return a hash of all that a guest would read. What has been read before, bytes and chain alike, is not read again."""
    there = load(local, sd, image)
    files = [Path(path(local, image, name, sd)) for name in there.chain(volume)]
    key = tuple(hashlib.sha256(file.read_bytes()).hexdigest() for file in files)
    if key not in _DIGESTS:
        _DIGESTS[key] = _digest(str(files[-1]))
    return _DIGESTS[key]


_DIGESTS: dict[tuple[str, ...], str] = {}


def _digest(file: str) -> str:
    raw = f"{file}.raw"
    form = "qcow2" if is_qcow2(file) else "raw"
    run = subprocess.run(["qemu-img", "convert", "-f", form, "-O", "raw", file, raw], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    try:
        return hashlib.sha256(Path(raw).read_bytes()).hexdigest()
    finally:
        os.unlink(raw)


def facts(local: Local, *, with_data: bool = True) -> dict[str, str]:
    """Return all volumes of both domains, each with what it is and a hash of what it says. Two domains that are alike have the
    same."""
    found = {}
    for sd in (SD, OTHER):
        for image in sorted(os.listdir(f"{local.get(sd).path}/images")):
            there = find(local, sd, image)
            assert there is not None
            for name, volume in there.volumes.items():
                told = f"{volume.format.name} {volume.role.name} {volume.legality} {volume.parent} {volume.capacity}"
                data = digest(local, image, name, sd) if with_data and name in there.stats else "-"
                found[f"{sd[-1]}/{image}/{name}"] = f"{told} {data}"
    return found


def is_clean(local: Local) -> bool:
    found = [broken(local, sd) for sd in (SD, OTHER)]
    assert found == [{}, {}], found
    return True


class Scene:
    """A template, an image of three volumes that stems from nothing, and one that stems from the template."""

    def __init__(self, farm: Farm) -> None:
        self.template, self.template_volume = new_id(101), new_id(102)
        self.image, self.base, self.middle, self.leaf = (new_id(number) for number in (111, 112, 113, 114))
        self.clone, self.clone_volume = new_id(121), new_id(122)
        farm.done(create(farm, self.image, self.base))
        fill(farm, self.image, self.base, 0, b"base" * 16384)
        for volume, parent, text in ((self.middle, self.base, b"midd"), (self.leaf, self.middle, b"leaf")):
            farm.done(create(farm, self.image, volume, COW, parent=parent))
            fill(farm, self.image, volume, (MIB if text == b"midd" else MIB + MIB // 2), text * 16384)
        farm.done(copy(farm, (SD, self.image, self.middle), (SD, self.template, self.template_volume)))
        above = {"parent_image": self.template, "parent": self.template_volume}
        farm.done(create(farm, self.clone, self.clone_volume, COW, **above))
        fill(farm, self.clone, self.clone_volume, MIB + MIB // 4, b"clon" * 16384)
        for task in farm.tasks.all():
            farm.tasks.clear(task.task_id)


def copy(farm: Farm, source: tuple[str, str, str], target: tuple[str, str, str], **fields: Any) -> str:
    given = {"description": "", "role": 6, "form": 3, "allocation": 0, "force": False, **fields}
    return farm.images.copy(POOL, source, target, **given)
