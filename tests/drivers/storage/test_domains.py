"""Storage domains: made whole or not at all, found wherever they are, and never believed when they are damaged."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from drivers.errors import DriverError
from drivers.storage.contract import Class, Type
from drivers.storage.domains import metadata
from drivers.storage.errors import (
    CannotFormatAttached,
    DescriptionTooLong,
    DomainExists,
    DomainFull,
    FileStatsFailed,
    IllegalRemotePath,
    InvalidParameter,
    IsoListFailed,
    LayoutBroken,
    MetadataInvalid,
    MetadataMissing,
    MetadataTooLong,
    NoPermission,
    NoSuchDomain,
    NoSuchPool,
    NotMounted,
    SealBroken,
    StorageHangs,
    UnsupportedVersion,
    WrongClass,
    WrongType,
)
from tests.drivers.storage.hanging import hanging
from tests.drivers.storage.stand import Place
from tests.until import until

pytestmark = pytest.mark.slow

ONE = "5a1d5a0e-6d2f-4a0b-9a57-0e5ac2cc8d11"
TWO = "5a1d5a0e-6d2f-4a0b-9a57-0e5ac2cc8d22"
POOL = "00000002-0002-0002-0002-0000000000f1"


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    place = Place(tmp_path)
    place.connect()
    yield place
    place.close()


def tree(top: Path) -> dict[str, tuple[int, int]]:
    """Return mode and size of everything below."""
    found = {}
    for path in sorted(top.rglob("*")):
        told = path.stat()
        found[str(path.relative_to(top))] = (stat.S_IMODE(told.st_mode), told.st_size if path.is_file() else 0)
    return found


@pytest.mark.parametrize("version", [0, 3, 4, 5])
def test_the_layout_of_a_new_domain(place: Place, version: int) -> None:
    found = tree(place.create(ONE, version=version))
    size = found["dom_md/metadata"][1]
    expected = {
        "dom_md": (0o775, 0),
        "dom_md/ids": (0o660, 0),
        "dom_md/inbox": (0o660, 16 << 20),
        "dom_md/leases": (0o660, 0),
        "dom_md/metadata": (0o660, size),
        "dom_md/outbox": (0o660, 16 << 20),
        "images": (0o775, 0),
    }
    if version >= 4:
        expected["dom_md/xleases"] = (0o660, 0)
    assert found == expected
    place.driver.domains.validate(ONE)
    assert place.driver.domains.info(ONE)["version"] == str(version)


def test_an_iso_domain_has_its_directory(place: Place) -> None:
    assert (place.create(ONE, cls=2) / "images" / "11111111-1111-1111-1111-111111111111").is_dir()


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"uuid": "../../etc"}, InvalidParameter),
        ({"uuid": ONE + "\n"}, InvalidParameter),
        ({"uuid": ""}, InvalidParameter),
        ({"type_": 0}, WrongType),
        ({"type_": 3}, WrongType),
        ({"type_": 99}, WrongType),
        ({"cls": 0}, WrongClass),
        ({"cls": 4}, WrongClass),
        ({"version": 1}, UnsupportedVersion),
        ({"version": 2}, UnsupportedVersion),
        ({"version": 6}, UnsupportedVersion),
        ({"version": -1}, UnsupportedVersion),
        ({"name": "x" * 40_000}, MetadataTooLong),
        ({"remote": "/not/connected"}, NotMounted),
        ({"remote": "../.."}, IllegalRemotePath),
        ({"remote": ""}, IllegalRemotePath),
        ({"type_": 1, "remote": "server:/export"}, NotMounted),
    ],
)
def test_bad_input_makes_nothing(place: Place, change: dict[str, Any], error: type[DriverError]) -> None:
    given = {"type_": 4, "uuid": ONE, "name": "n", "remote": str(place.data), "cls": 1, "version": 3, **change}
    with pytest.raises(error):
        place.driver.maker.create(**given)
    assert os.listdir(place.data) == []


def test_a_domain_is_made_once(place: Place, tmp_path: Path) -> None:
    place.create(ONE)
    other = tmp_path / "other"
    other.mkdir()
    place.connect(other)
    for path in (place.data, other):
        with pytest.raises(DomainExists):
            place.create(ONE.upper(), path=path)
    assert os.listdir(other) == []
    place.create(TWO, path=other)
    assert {one.domain.uuid for one in place.driver.domains.all()} == {ONE, TWO}


def test_two_at_the_same_time(place: Place) -> None:
    """One of them makes it."""
    outcomes: list[object] = []

    def make(name: str) -> None:
        try:
            outcomes.append(place.create(ONE, name))
        except DomainExists as error:
            outcomes.append(error)

    threads = [threading.Thread(target=make, args=(f"n{number}",)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sum(isinstance(outcome, Path) for outcome in outcomes) == 1
    assert len(outcomes) == 4


def test_what_a_crash_left_is_no_domain_and_in_nobodys_way(place: Place) -> None:
    left = place.data / f".building-{ONE}"
    (left / "dom_md").mkdir(parents=True)
    (left / "dom_md" / "metadata").write_bytes(b"VERSION=3\n")
    assert place.driver.domains.all() == []
    place.create(ONE)
    assert sorted(os.listdir(place.data)) == sorted(["__DIRECT_IO_TEST__", ONE])


def test_lists(place: Place) -> None:
    place.create(ONE, version=0)
    place.create(TWO, cls=2)
    (place.data / POOL).mkdir()  # a directory that is no domain
    (place.data / "stuff").touch()
    domains = place.driver.domains
    attached(place, TWO)
    assert [one.domain.uuid for one in domains.all(cls=Class.DATA)] == [ONE]
    assert [one.domain.uuid for one in domains.all(pool=POOL)] == [TWO]
    assert domains.all(type_=Type.NFS) == []
    assert len(domains.all(remote=f"{place.data}/")) == 2


def attached(place: Place, uuid: str, pool: str = POOL) -> None:
    place.driver.domains.change(uuid, lambda fields: {**fields, "POOL_UUID": pool})


def test_descriptions(place: Place) -> None:
    top = place.create(ONE, name="  n\u00e4me\nwith &#65; ")
    assert place.driver.domains.info(ONE)["name"] == "n\u00e4me\nwith &#65;"
    assert b"\nDESCRIPTION=n&#228;me&#10;with &#38;#65;\n" in (top / "dom_md" / "metadata").read_bytes()
    for text, error in (("x" * 51, DescriptionTooLong), ("new", NoSuchPool)):
        with pytest.raises(error):
            place.driver.parts.members.describe_domain(ONE, text)


def test_stats(place: Place) -> None:
    place.create(ONE)
    stats = place.driver.domains.stats(ONE)
    assert int(stats["disktotal"]) >= int(stats["diskfree"]) > 0
    assert stats["alerts"] == []


def damage_seal(top: Path) -> None:
    path = top / "dom_md" / "metadata"
    path.write_bytes(path.read_bytes().replace(b"LEASERETRIES=3", b"LEASERETRIES=4"))


def truncate(top: Path) -> None:
    path = top / "dom_md" / "metadata"
    path.write_bytes(path.read_bytes()[:40])


def garble(top: Path) -> None:
    (top / "dom_md" / "metadata").write_bytes(os.urandom(4000).replace(b"=", b"-"))


def future(top: Path) -> None:
    path = top / "dom_md" / "metadata"
    fields = metadata.decode(path.read_bytes(), "it")
    path.write_bytes(metadata.encode({**fields, "VERSION": "7"}))


def borrow(top: Path) -> None:
    path = top / "dom_md" / "metadata"
    fields = metadata.decode(path.read_bytes(), "it")
    path.write_bytes(metadata.encode({**fields, "SDUUID": TWO}))


def remove(top: Path) -> None:
    (top / "dom_md" / "metadata").unlink()


def lead_out(top: Path) -> None:
    shutil.move(top / "dom_md" / "metadata", top.parent.parent / "metadata")
    (top / "dom_md" / "metadata").symlink_to("../../../metadata")


def lose_parts(top: Path) -> None:
    (top / "dom_md" / "leases").unlink()


@pytest.mark.parametrize(
    ("damage", "error"),
    [
        (damage_seal, SealBroken),
        (truncate, DriverError),
        (garble, MetadataInvalid),
        (future, UnsupportedVersion),
        (borrow, MetadataInvalid),
        (remove, MetadataMissing),
        (lead_out, DriverError),
        (lose_parts, LayoutBroken),
        (shutil.rmtree, NoSuchDomain),
    ],
)
def test_damage_is_told_and_repaired_domains_are_well(
    place: Place, tmp_path: Path, damage: Callable[[Path], None], error: type[DriverError]
) -> None:
    top = place.create(ONE)
    place.create(TWO)
    shutil.copytree(top, tmp_path / "copy", symlinks=True)
    damage(top)
    with pytest.raises(error):
        place.driver.domains.validate(ONE)
    if damage is not lose_parts:
        with pytest.raises(DriverError):
            place.driver.maker.format(ONE, detach=True)
        assert [one.domain.uuid for one in place.driver.domains.all()] == [TWO]
    before = tree(top) if top.exists() else {}
    if error is not NoSuchDomain and damage is not lose_parts:
        with pytest.raises(DriverError):
            place.driver.domains.change(ONE, lambda fields: {**fields, "DESCRIPTION": "over it"})
    assert (tree(top) if top.exists() else {}) == before, "what is damaged must be left as it is"
    shutil.rmtree(top, ignore_errors=True)
    shutil.copytree(tmp_path / "copy", top, symlinks=True)
    place.driver.domains.validate(ONE)


def test_a_domain_that_moved_is_found_again(place: Place, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    place.connect(other)
    place.create(ONE)
    assert place.driver.domains.get(ONE).path.endswith(f"data/{ONE}")
    shutil.move(place.data / ONE, other / ONE)
    assert place.driver.domains.get(ONE).path.endswith(f"other/{ONE}")


@pytest.mark.parametrize("bad", ["", "..", "x" * 36, f"{ONE}/..", ONE[:-1], f"{ONE} ", "\u0665" + ONE[1:]])
def test_what_is_no_id_is_looked_for_nowhere(place: Place, bad: str) -> None:
    asks: list[Callable[[str], object]] = [
        place.driver.domains.get,
        place.driver.domains.validate,
        lambda bad: place.driver.maker.format(bad, detach=True),
    ]
    for ask in asks:
        with pytest.raises(InvalidParameter):
            ask(bad)


def test_unknown_domains(place: Place) -> None:
    with pytest.raises(NoSuchDomain):
        place.driver.domains.get(ONE)


def test_format(place: Place) -> None:
    top = place.create(ONE)
    (top / "images" / "link").symlink_to(place.base)
    attached(place, ONE)
    with pytest.raises(CannotFormatAttached):
        place.driver.maker.format(ONE, detach=False)
    assert top.exists()
    place.driver.maker.format(ONE, detach=True)
    assert os.listdir(place.data) == ["__DIRECT_IO_TEST__"]
    with pytest.raises(NoSuchDomain):
        place.driver.maker.format(ONE, detach=True)
    place.create(ONE)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount")
@pytest.mark.parametrize(("option", "error"), [("size=8k", DomainFull), ("ro", NoPermission)])
def test_a_domain_that_cannot_be_made_leaves_nothing(place: Place, option: str, error: type[DriverError]) -> None:
    mounted = place.base / "small"
    mounted.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8k,nr_inodes=1000", "none", mounted], check=True)
    try:
        place.connect(mounted)
        subprocess.run(["mount", "-o", f"remount,{option}", mounted], check=True)
        if option.startswith("size"):
            (mounted / "filler").write_bytes(b"x" * 4096)
        with pytest.raises(error):
            place.create(ONE, path=mounted)
        assert [name for name in os.listdir(mounted) if ONE in name] == []
    finally:
        subprocess.run(["umount", "-l", mounted], check=True)


def test_files_of_iso_domains(place: Place) -> None:
    top = place.create(ONE, cls=2) / "images" / "11111111-1111-1111-1111-111111111111"
    place.create(TWO)
    (top / "sub").mkdir()
    for name, size in (("a.iso", 1), ("B.ISO", 2), ("sub/c.iso", 3), ("d.vfd", 4), ("bad\x01.iso", 5)):
        (top / name).write_bytes(b"x" * size)
    (top / "out.iso").symlink_to("/etc/passwd")
    (top / "up.iso").symlink_to("../../dom_md/metadata")
    isos = place.driver.isos
    found = isos.stats(ONE, "*.iso", case=False)
    assert {path: (told["size"], told["status"]) for path, told in found.items()} == {
        "a.iso": ("1", 0),
        "B.ISO": ("2", 0),
        "sub/c.iso": ("3", 0),
    }
    assert sorted(isos.stats(ONE, "*", case=True)) == ["B.ISO", "a.iso", "d.vfd", "sub/c.iso"]
    with pytest.raises(FileStatsFailed):
        isos.stats(TWO, "*", case=True)
    with pytest.raises(NoSuchPool):
        isos.list(POOL, "iso", IsoListFailed)
    attached(place, TWO)
    with pytest.raises(IsoListFailed):
        isos.list(POOL, "iso", IsoListFailed)
    attached(place, ONE, f"{POOL},{TWO}")
    assert isos.list(POOL, "iso", IsoListFailed) == ["B.ISO", "a.iso", "sub/c.iso"]
    assert isos.list(POOL.upper(), ".vfd", IsoListFailed) == ["d.vfd"]


# Monitors


def test_a_monitor_tells_how_a_domain_fares(place: Place, tmp_path: Path) -> None:
    top = place.create(ONE)
    place.ground.inside(lambda: place.driver.monitors.watch(ONE, alone=True, host_id=1))
    until(lambda: place.vitals(ONE)["valid"], 60, "it to be valid")
    told = place.vitals(ONE)
    assert (told["code"], told["version"], told["actual"]) == (0, 3, True)
    assert float(told["delay"]) >= 0
    damage_seal(top)
    until(lambda: place.vitals(ONE)["code"] == len("MetaDataSealIsBroken"), 60, "the damage to be told")
    shutil.move(top, tmp_path / "aside")
    until(lambda: place.vitals(ONE)["code"] == len("StorageDomainDoesNotExist"), 60, "its absence to be told")
    place.create(ONE)
    until(lambda: place.vitals(ONE)["valid"], 60, "it to be valid again")
    changes = [name for name, fields in place.ground.events if fields.get("domain") == ONE and name.endswith("valid")]
    assert changes[0] == "storage.domain.valid"
    assert changes[-1] == "storage.domain.valid"
    assert "storage.domain.invalid" in changes
    place.ground.inside(lambda: place.driver.monitors.unwatch(ONE))
    assert place.ground.inside(lambda: place.driver.vitals(len)) == {}


def test_a_domain_may_be_watched_before_it_is_there(place: Place) -> None:
    place.ground.inside(lambda: place.driver.monitors.watch(ONE, alone=True, host_id=1))
    until(lambda: place.vitals(ONE)["code"] == len("StorageDomainDoesNotExist"), 60, "its absence to be told")
    place.create(ONE)
    until(lambda: place.vitals(ONE)["valid"], 60, "it to be valid")


@pytest.mark.parametrize("how", ["reexec", "crash"])
def test_monitors_outlive_the_daemon(place: Place, how: str) -> None:
    place.create(ONE)
    place.ground.inside(lambda: place.driver.monitors.watch(ONE, pool=POOL))
    until(lambda: place.vitals(ONE)["valid"], 60, "it to be valid")
    getattr(place, how)()
    if how == "reexec":
        assert place.vitals(ONE)["valid"], "what was known is known"
    until(lambda: place.vitals(ONE)["valid"], 60, "it to be valid")
    with pytest.raises(DriverError):
        place.ground.inside(lambda: place.driver.monitors.unwatch(ONE))
    place.ground.inside(lambda: place.driver.monitors.unwatch(ONE, pool=POOL))


@pytest.mark.slow
def test_a_domain_that_hangs_is_told_as_such(tmp_path: Path) -> None:
    with hanging(tmp_path) as stuck:
        place = Place(tmp_path)
        place.connect(stuck.path)
        place.create(ONE, path=stuck.path)
        place.connect()
        place.create(TWO)
        for uuid in (ONE, TWO):
            place.ground.inside(partial(place.driver.monitors.watch, uuid, alone=True))
        until(lambda: place.vitals(ONE)["valid"] and place.vitals(TWO)["valid"], 60, "both to be valid")
        stuck.hang()
        place.change(process_pool_timeout=2)
        with pytest.raises(StorageHangs):
            place.driver.domains.info(ONE)
        until(lambda: place.vitals(ONE)["code"] == len(StorageHangs.wire), 60, "the silence to be told")
        until(lambda: place.driver.domains.info(TWO)["uuid"] == TWO, 60, "the other one to answer")
        assert place.vitals(TWO)["valid"]
        with pytest.raises(StorageHangs):
            place.driver.domains.get(POOL)  # it may be there: that it does not exist cannot be said
        stuck.heal()
        until(lambda: place.vitals(ONE)["valid"], 60, "it to be valid again")
        place.change(process_pool_timeout=60)
        until(lambda: place.driver.domains.info(ONE)["uuid"] == ONE, 60, "it to answer")
        place.close()
