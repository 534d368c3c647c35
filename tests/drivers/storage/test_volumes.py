"""Volumes and images: made, read, changed and refused, with real qemu-img on real files."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from drivers.errors import DriverError
from drivers.storage.contract import BLANK
from drivers.storage.images import volumes
from drivers.storage.images.chains import list_volumes, load
from drivers.storage.images.errors import ChainBroken, VolumeDamaged, VolumeMetadataBroken
from drivers.storage.images.qcow2 import backing
from drivers.storage.images.volume_metadata import DiskType, Format, VolumeRole, decode, encode
from tests.drivers.storage.images_stand import (
    COW,
    MIB,
    PREALLOCATED,
    RAW,
    SIZE,
    SPARSE,
    Scene,
    copy,
    create,
    digest,
    facts,
    fill,
    is_clean,
    new_id,
    path,
)
from tests.drivers.storage.tasks_stand import OTHER, POOL, SD, Farm

OLD = b"""DOMAIN=5d000000-0000-4000-8000-000000000001
CTIME=1400000000
FORMAT=COW
DISKTYPE=2
LEGALITY=LEGAL
SIZE=8192
VOLTYPE=LEAF
DESCRIPTION=a=b, of someone else
IMAGE=10000000-0000-4000-8000-000000000111
PUUID=00000000-0000-0000-0000-000000000000
MTIME=0
POOL_UUID=
TYPE=SPARSE
FUTURE=kept
EOF
"""


@pytest.fixture
def farm(tmp_path: Path) -> Iterator[Farm]:
    farm = Farm(tmp_path)
    yield farm
    farm.close()


@pytest.fixture
def scene(farm: Farm) -> Scene:
    return Scene(farm)


def test_metadata_of_others_are_read_and_nothing_of_them_is_lost() -> None:
    volume = decode(OLD, "x")
    assert (volume.capacity, volume.role, volume.format) == (8192 * 512, VolumeRole.LEAF, Format.COW)
    assert volume.description == "a=b, of someone else" and volume.disk_type_name == "DATA"
    assert sorted(encode(volume, 3).splitlines()) == sorted(OLD.splitlines())
    assert decode(encode(volume, 3), "x") == volume


def test_metadata_of_newer_domains() -> None:
    lines = encode(decode(OLD, "x"), 5).decode().splitlines()
    assert "CAP=4194304" in lines and "GEN=0" in lines
    assert not {line.partition("=")[0] for line in lines} & {"SIZE", "MTIME", "POOL_UUID"}
    assert decode(OLD.replace(b"DISKTYPE=2", b"DISKTYPE=ISOF"), "x").disk_type_name == "ISOF"
    assert decode(OLD, "x").disk_type_name == DiskType.DATA.name


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        OLD[:100],
        OLD.replace(b"FORMAT=COW", b"FORMAT=COPY"),
        OLD.replace(b"SIZE=8192", b"SIZE=many"),
        OLD.replace(b"LEGALITY=LEGAL", b"LEGALITY=MAYBE"),
        OLD.replace(b"VOLTYPE=LEAF", b"VOLTYPE=LE"),
        b"\xff\x00" * 300,
    ],
)
def test_damaged_metadata_are_told(damage: bytes) -> None:
    with pytest.raises(VolumeMetadataBroken):
        decode(damage, "x")


@pytest.mark.parametrize("end", ["\n", "\r", "\r\n", "\v", "\f", "\x1c", "\x85", "\u2028"])
def test_a_description_says_nothing_but_what_is_described(end: str) -> None:
    volume = decode(OLD, "x")
    text = encode(msgspec.structs.replace(volume, description=f"mine{end}LEGALITY=ILLEGAL{end}EOF{end}"), 3)
    assert decode(text, "x").legality == "LEGAL" and decode(text, "x").description.startswith("mine ")
    assert text.decode().splitlines() == text.decode().split("\n")[:-1]
    long = encode(msgspec.structs.replace(volume, description="\u00e4" * 5000), 3)
    assert decode(long, "x").description == "\u00e4" * 512


@pytest.mark.parametrize("version", [0, 3, 4, 5])
@pytest.mark.parametrize(("form", "allocation"), [(RAW, SPARSE), (RAW, PREALLOCATED), (COW, SPARSE)])
def test_a_volume_is_what_was_asked_for(tmp_path: Path, version: int, form: int, allocation: int) -> None:
    farm = Farm(tmp_path, version=version)
    try:
        image, volume = new_id(), new_id()
        farm.done(create(farm, image, volume, form, allocation=allocation, description="mine"))
        info = volumes.info(farm.local, SD, image, volume)
        assert info["uuid"] == volume and info["capacity"] == str(SIZE) and info["status"] == "OK"
        assert (info["legality"], info["voltype"], info["description"], info["parent"]) == (
            "LEGAL",
            "LEAF",
            "mine",
            BLANK,
        )
        assert (info["disktype"], info["mtime"], info["pool"], info["children"]) == ("DATA", "0", "", [])
        assert all(value is not None for value in info.values())
        file = Path(path(farm.local, image, volume))
        assert (file.stat().st_mode & 0o777, file.with_suffix(".lease").exists()) == (0o660, version >= 3)
        assert (file.stat().st_blocks * 512 >= SIZE) is (allocation == PREALLOCATED)
        told = json.loads(subprocess.check_output(["qemu-img", "info", "--output=json", str(file)]))
        assert (told["virtual-size"], told["format"]) == (SIZE, "qcow2" if form == COW else "raw")
        assert is_clean(farm.local)
    finally:
        farm.close()


def test_a_snapshot_and_a_clone_stem_from_their_parents(farm: Farm, scene: Scene) -> None:
    image = load(farm.local, SD, scene.image)
    assert image.chain(scene.leaf) == [scene.base, scene.middle, scene.leaf]
    roles = [image.volumes[name].role.name for name in image.chain(scene.leaf)]
    assert roles == ["INTERNAL", "INTERNAL", "LEAF"] and image.leaf() == scene.leaf
    clone = load(farm.local, SD, scene.clone)
    assert clone.chain(clone.leaf()) == [scene.template_volume, scene.clone_volume]
    assert volumes.info(farm.local, SD, scene.template, scene.template_volume)["children"] == [scene.clone_volume]
    assert os.stat(path(farm.local, scene.clone, scene.template_volume)).st_nlink == 2
    assert len(list_volumes(farm.local, SD)) == 5 and len(volumes.names(farm.local, SD, BLANK)) == 5
    assert sorted(volumes.images(farm.local, SD)) == sorted([scene.template, scene.image, scene.clone])
    assert is_clean(farm.local)


def test_prepared_and_torn_down(farm: Farm, scene: Scene) -> None:
    run_dir = str(farm.base / "run")
    told = volumes.prepare(farm.local, SD, scene.clone, "", run_dir)
    assert told["path"] == path(farm.local, scene.clone, scene.clone_volume) and os.path.exists(told["path"])
    assert [place["volumeID"] for place in told["imgVolumesInfo"]] == [scene.template_volume, scene.clone_volume]
    assert told["info"] == told["imgVolumesInfo"][1] and told["info"]["leaseOffset"] == 0
    assert os.path.exists(f"{run_dir}/storage/{SD}/{scene.clone}/{scene.clone_volume}")
    volumes.teardown(farm.local, SD, scene.clone, run_dir)
    volumes.teardown(farm.local, SD, scene.clone, run_dir)
    assert not os.path.lexists(f"{run_dir}/storage/{SD}/{scene.clone}")
    volumes.set_legality(farm.local, SD, scene.clone, scene.clone_volume, "ILLEGAL")
    assert refusal(lambda: volumes.prepare(farm.local, SD, scene.clone, "", run_dir)) == "prepareIllegalVolumeError"


def refusal(call: Any) -> str:
    """Return the name of the code with which a call is refused."""
    with pytest.raises(DriverError) as caught:
        call()
    assert str(caught.value)
    return str(caught.value.wire)


REFUSED = {
    "no such domain": (lambda f, s: create(f, new_id(), new_id(), sd=new_id()), "StorageDomainDoesNotExist"),
    "an image with path parts": (lambda f, s: create(f, "../../x", new_id()), "InvalidParameterException"),
    "a volume with path parts": (lambda f, s: create(f, new_id(), "../x"), "InvalidParameterException"),
    "no size": (lambda f, s: create(f, new_id(), new_id(), size=0), "InvalidParameterException"),
    "beyond all sizes": (lambda f, s: create(f, new_id(), new_id(), size=1 << 70), "InvalidParameterException"),
    "no such format": (lambda f, s: create(f, new_id(), new_id(), 9), "IncorrectFormat"),
    "no such allocation": (lambda f, s: create(f, new_id(), new_id(), allocation=7), "IncorrectType"),
    "no such disk type": (lambda f, s: create(f, new_id(), new_id(), disk_type=17), "InvalidParameterException"),
    "a volume that is there": (lambda f, s: create(f, s.image, s.leaf), "VolumeAlreadyExists"),
    "raw with a parent": (lambda f, s: create(f, s.image, new_id(), parent=s.leaf), "IncorrectFormat"),
    "no such parent": (lambda f, s: create(f, s.image, new_id(), COW, parent=new_id()), "VolumeDoesNotExist"),
    "smaller than its parent": (
        lambda f, s: create(f, s.image, new_id(), COW, parent=s.leaf, size=512),
        "createVolumeSizeError",
    ),
    "a parent that has a child": (
        lambda f, s: create(f, s.image, new_id(), COW, parent=s.middle),
        "VolumeImageHasChildren",
    ),
    "a parent elsewhere that is no template": (
        lambda f, s: create(f, new_id(), new_id(), COW, parent=s.leaf, parent_image=s.image),
        "VolumeNonShareable",
    ),
    "deleting a parent": (
        lambda f, s: f.images.delete_volumes(POOL, SD, s.image, [s.middle], post_zero=False, force=False),
        "VolumeImageHasChildren",
    ),
    "deleting a volume that is not there": (
        lambda f, s: f.images.delete_volumes(POOL, SD, s.image, [new_id()], post_zero=False, force=False),
        "VolumeDoesNotExist",
    ),
    "deleting an image that is not there": (
        lambda f, s: f.images.delete(POOL, SD, new_id(), post_zero=False, force=False),
        "ImageDoesNotExistInSD",
    ),
    "deleting a template that is used": (
        lambda f, s: f.images.delete(POOL, SD, s.template, post_zero=False, force=True),
        "CannotDeleteSharedVolume",
    ),
    "making a volume smaller": (
        lambda f, s: f.images.extend(POOL, SD, s.image, s.leaf, 512),
        "VolumeResizeValueError",
    ),
    "extending a parent": (
        lambda f, s: f.images.extend(POOL, SD, s.image, s.middle, 8 * MIB),
        "NonLeafVolumeNotWritable",
    ),
    "extending a template": (
        lambda f, s: f.images.extend(POOL, SD, s.template, s.template_volume, 8 * MIB),
        "SharedVolumeNonWritable",
    ),
    "copying over what is there": (
        lambda f, s: copy(f, (SD, s.image, s.leaf), (SD, s.clone, s.clone_volume)),
        "VolumeAlreadyExists",
    ),
    "moving to where it is": (
        lambda f, s: f.images.move(POOL, SD, SD, s.image, 2, post_zero=False, force=False),
        "InvalidParameterException",
    ),
    "moving without its template": (
        lambda f, s: f.images.move(POOL, SD, OTHER, s.clone, 2, post_zero=False, force=False),
        "CouldNotValideTemplateOnTargetDomain",
    ),
    "merging upside down": (
        lambda f, s: f.images.merge(POOL, SD, s.image, s.leaf, s.base, post_zero=False),
        "InvalidParameterException",
    ),
    "a URL of this host's files": (
        lambda f, s: f.images.download(POOL, SD, s.image, s.leaf, {"method": "http", "url": "file:///etc/passwd"}),
        "InvalidParameterException",
    ),
}


def test_what_is_impossible_is_refused_and_changes_nothing(farm: Farm, scene: Scene) -> None:
    before = facts(farm.local)
    for name, (call, code) in REFUSED.items():
        assert refusal(lambda call=call: call(farm, scene)) == code, name
    assert facts(farm.local) == before and farm.tasks.all() == []


def write_meta(farm: Farm, image: str, volume: str, old: str, new: str) -> None:
    file = Path(path(farm.local, image, volume) + ".meta")
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


def test_a_chain_with_a_missing_or_a_looping_parent(farm: Farm, scene: Scene) -> None:
    write_meta(farm, scene.image, scene.base, f"PUUID={BLANK}", f"PUUID={scene.leaf}")
    with pytest.raises(ChainBroken, match="lead back"):
        load(farm.local, SD, scene.image).chain(scene.leaf)
    calls = [
        lambda: volumes.prepare(farm.local, SD, scene.image, scene.leaf, str(farm.base / "run")),
        lambda: copy(farm, (SD, scene.image, scene.leaf), (SD, new_id(), new_id())),
        lambda: create(farm, scene.image, new_id(), COW, parent=scene.leaf),
    ]
    assert {refusal(call) for call in calls} == {"ImageIsNotLegalChain"}
    assert volumes.info(farm.local, SD, scene.image, scene.leaf)["status"] == "INVALID"
    write_meta(farm, scene.image, scene.base, f"PUUID={scene.leaf}", f"PUUID={new_id()}")
    assert {refusal(call) for call in calls} == {"ImageIsNotLegalChain"}
    farm.done(farm.images.delete(POOL, SD, scene.image, post_zero=False, force=False))
    assert is_clean(farm.local)


def test_data_that_lead_out_of_the_image_are_never_followed(farm: Farm, scene: Scene, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"s" * MIB)
    file = path(farm.local, scene.image, scene.leaf)
    subprocess.run(["qemu-img", "rebase", "-u", "-b", str(secret), "-F", "raw", file], check=True, capture_output=True)
    target = (SD, new_id(), new_id())
    assert refusal(lambda: copy(farm, (SD, scene.image, scene.leaf), target)) == "ImageIsNotLegalChain"
    os.unlink(file)
    os.symlink(secret, file)
    assert refusal(lambda: copy(farm, (SD, scene.image, scene.leaf), target)) == "VolumeAccessError"


@pytest.mark.parametrize("data", [b"", b"QFI\xfb", b"x" * 200, b"QFI\xfb" + b"\xff" * 200])
def test_headers_that_are_none(data: bytes) -> None:
    with pytest.raises(VolumeDamaged):
        backing(data, "x")


def test_data_survive_every_way_of_copying(farm: Farm, scene: Scene) -> None:
    leaf, middle = digest(farm.local, scene.image, scene.leaf), digest(farm.local, scene.image, scene.middle)
    for form in (COW, RAW):
        image, volume = new_id(), new_id()
        farm.done(copy(farm, (SD, scene.image, scene.leaf), (OTHER, image, volume), role=8, form=form))
        assert digest(farm.local, image, volume, OTHER) == leaf
    farm.done(farm.images.move(POOL, SD, OTHER, scene.image, 2, post_zero=False, force=False))
    assert digest(farm.local, scene.image, scene.leaf, OTHER) == leaf
    assert digest(farm.local, scene.image, scene.middle, OTHER) == middle
    farm.done(farm.images.merge(POOL, OTHER, scene.image, scene.middle, scene.leaf, post_zero=False))
    assert digest(farm.local, scene.image, scene.leaf, OTHER) == leaf
    assert load(farm.local, OTHER, scene.image).chain(scene.leaf) == [scene.base, scene.leaf]
    farm.done(farm.images.merge(POOL, OTHER, scene.image, scene.base, scene.leaf, post_zero=False))
    merged = load(farm.local, OTHER, scene.image)
    assert (merged.chain(scene.leaf), merged.volumes[scene.leaf].format) == ([scene.leaf], Format.RAW)
    assert digest(farm.local, scene.image, scene.leaf, OTHER) == leaf
    assert is_clean(farm.local)


def test_a_disk_is_moved_while_its_guest_runs(farm: Farm, scene: Scene) -> None:
    """The structure, then the data of all but the leaf, which the guest itself mirrors."""
    farm.done(farm.images.clone_structure(POOL, SD, OTHER, scene.image))
    assert load(farm.local, OTHER, scene.image).chain(scene.leaf) == [scene.base, scene.middle, scene.leaf]
    farm.done(farm.images.sync_data(POOL, SD, OTHER, scene.image, "INTERNAL"))
    middle = digest(farm.local, scene.image, scene.middle)
    assert digest(farm.local, scene.image, scene.middle, OTHER) == middle
    assert digest(farm.local, scene.image, scene.leaf, OTHER) == middle
    farm.done(farm.images.sync_data(POOL, SD, OTHER, scene.image, "ALL"))
    assert digest(farm.local, scene.image, scene.leaf, OTHER) == digest(farm.local, scene.image, scene.leaf)
    assert is_clean(farm.local)


def test_extended_and_deleted(farm: Farm, scene: Scene) -> None:
    farm.done(farm.images.extend(POOL, SD, scene.image, scene.leaf, 8 * MIB + 1))
    assert volumes.info(farm.local, SD, scene.image, scene.leaf)["capacity"] == str(8 * MIB + 512)
    farm.done(farm.images.delete_volumes(POOL, SD, scene.image, [scene.leaf], post_zero=True, force=False))
    info = volumes.info(farm.local, SD, scene.image, scene.middle)
    assert (info["voltype"], info["children"]) == ("LEAF", [])
    farm.done(farm.images.delete(POOL, SD, scene.clone, post_zero=True, force=False))
    farm.done(farm.images.delete(POOL, SD, scene.template, post_zero=True, force=False))
    farm.done(
        farm.images.delete_volumes(POOL, SD, scene.image, [scene.base, scene.middle], post_zero=False, force=True)
    )
    assert volumes.images(farm.local, SD) == [] and is_clean(farm.local)
    assert os.listdir(f"{farm.local.get(SD).path}/images") == []


def test_metadata_follow_what_a_guest_has_merged(farm: Farm, scene: Scene) -> None:
    file = path(farm.local, scene.image, scene.leaf)
    subprocess.run(["qemu-img", "rebase", "-f", "qcow2", "-b", scene.base, "-F", "raw", file], check=True)
    assert (
        refusal(lambda: copy(farm, (SD, scene.image, scene.leaf), (SD, new_id(), new_id()))) == "ImageIsNotLegalChain"
    )
    assert volumes.reconcile(farm.local, SD, scene.image, scene.leaf) == [scene.base, scene.leaf]
    assert load(farm.local, SD, scene.image).chain(scene.leaf) == [scene.base, scene.leaf]
    farm.done(copy(farm, (SD, scene.image, scene.leaf), (SD, new_id(), new_id())))


def test_zeroes_are_left_out(farm: Farm, scene: Scene) -> None:
    image, volume = new_id(), new_id()
    farm.done(create(farm, image, volume))
    fill(farm, image, volume, 0, bytes(SIZE))
    target, target_volume = new_id(), new_id()
    farm.done(create(farm, target, target_volume))
    farm.done(farm.images.sparsify(POOL, SD, image, volume, SD, target, target_volume))
    assert os.stat(path(farm.local, target, target_volume)).st_blocks * 512 < MIB
    assert digest(farm.local, target, target_volume) == digest(farm.local, image, volume) and is_clean(farm.local)


def test_foreign_files_in_a_domain_are_passed_over(farm: Farm, scene: Scene) -> None:
    images = Path(farm.local.get(SD).path) / "images"
    (images / "lost+found").mkdir()
    (images / "lost+found" / "x.meta").write_text("x")
    (images / scene.image / "notes.txt").write_text("x")
    (images / scene.image / "notes.meta").write_text("x")
    assert len(volumes.names(farm.local, SD, BLANK)) == 5 and scene.image in volumes.images(farm.local, SD)
    assert load(farm.local, SD, scene.image).leaf() == scene.leaf
