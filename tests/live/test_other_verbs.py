"""Verbs that engines of old releases call, or seldom, through the public interface; and that none is left without a test."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.live.test_pools import (
    BLANK,
    IMAGE,
    ISO,
    LOCALFS,
    ONE,
    OTHER,
    POOL,
    QUICK,
    VM,
    VOLUME,
    data,
    done,
    make_domains,
    make_pool,
    start_spm,
)
from tests.running import Running
from vdsmd.api import contract

__all__ = ["data"]
TESTS = Path(__file__).resolve().parents[1]
ISO_IMAGE = "11111111-1111-1111-1111-111111111111"
MIB = 1 << 20


def test_every_verb_is_called_by_a_test() -> None:
    tests = "".join(path.read_text(encoding="utf-8") for path in TESTS.rglob("*.py"))
    assert not [name for name in contract.verbs() if f'"{name}"' not in tests]


@pytest.mark.slow
@pytest.mark.parametrize(("verb", "more"), [("reset", ()), ("sendkeys", (["a"],)), ("monitorCommand", ("info",))])
def test_what_no_release_has_implemented_says_so(
    daemon: Callable[..., Running], verb: str, more: tuple[object, ...]
) -> None:
    assert daemon().call(verb, VM, *more)["status"]["code"] == 44


@pytest.mark.slow
def test_references_to_connections(daemon: Callable[..., Running], data: Path) -> None:
    running = daemon()
    wanted = {
        "mine": {"type": "localfs", "params": {"path": str(data)}},
        "bad": {"type": "localfs", "params": {"path": f"{data}/not there"}},
    }
    results = running.must("storageServer_ConnectionRefs_acquire", wanted)["results"]
    assert results["mine"] == 0 != results["bad"]
    told = running.must("storageServer_ConnectionRefs_statuses")["connectionslist"]
    assert (told["mine"]["connected"], told["mine"]["lastError"]["code"]) == (True, 0)
    assert told["mine"]["connectionInfo"] == wanted["mine"]
    assert (told["bad"]["connected"], told["bad"]["lastError"]["code"]) == (False, results["bad"])
    running.reexec()
    assert running.must("storageServer_ConnectionRefs_statuses")["connectionslist"]["mine"]["connected"] is True
    again = running.must("storageServer_ConnectionRefs_acquire", {"mine": wanted["bad"]})["results"]
    assert again == {"mine": 478}
    gone = running.must("storageServer_ConnectionRefs_release", ["mine", "bad", "other"])["results"]
    assert (gone["mine"], gone["other"]) == (0, 479)
    assert running.must("storageServer_ConnectionRefs_statuses")["connectionslist"] == {}


@pytest.mark.slow
def test_a_connection_is_tried_and_not_kept(daemon: Callable[..., Running], data: Path) -> None:
    running = daemon()
    places = [{"id": ONE, "connection": str(data)}, {"id": OTHER, "connection": f"{data}/not there"}]
    told = running.must("validateStorageServerConnection", LOCALFS, BLANK, places)["statuslist"]
    assert [(each["id"], each["status"] == 0) for each in told] == [(ONE, True), (OTHER, False)]
    assert running.call("createStorageDomain", LOCALFS, ONE, "n", str(data), 1, 3)["status"]["code"] == 360


@pytest.mark.slow
def test_files_of_an_iso_domain(daemon: Callable[..., Running], data: Path) -> None:
    running = daemon(config=QUICK)
    make_pool(running, data, (ISO, 2))
    start_spm(running)
    running.must("attachStorageDomain", ISO, POOL)
    running.must("activateStorageDomain", ISO, POOL)
    for name in ("x.iso", "y.vfd"):
        (data / ISO / "images" / ISO_IMAGE / name).write_bytes(b"123")
    files = running.must("getFileList", ISO)["files"]
    assert {name: (each["size"], each["status"]) for name, each in files.items()} == {
        "x.iso": ("3", 0),
        "y.vfd": ("3", 0),
    }
    assert set(running.must("getFileList", ISO, "*.vfd")["files"]) == {"y.vfd"}
    assert running.must("getFloppyList", POOL)["isolist"] == ["y.vfd"]
    assert running.must("getIsoList", POOL)["isolist"] == ["x.iso"]
    assert running.call("getFileList", OTHER)["status"]["code"] == 358
    assert running.call("getFloppyList", OTHER)["status"]["code"] == 309


@pytest.mark.slow
def test_partitions_and_zeroes(daemon: Callable[..., Running], data: Path) -> None:
    running = daemon(config=QUICK)
    make_domains(running, data, (ONE, 1))
    running.must("createStoragePool", 4, POOL, "pool", ONE, [ONE], 1)
    running.must("connectStoragePool", POOL, 1, "", ONE, 1)
    start_spm(running)
    done(running, "createVolume", ONE, POOL, IMAGE, str(8 * MIB), 5, 2, 2, VOLUME, "", BLANK, BLANK)
    file = data / ONE / "images" / IMAGE / VOLUME
    table = b"".join(struct.pack("<B3xB3xII", 0, 0x83, start, 4096) for start in (2048, 6145))
    with file.open("r+b") as disk:
        disk.write(b"\0" * 446 + table + b"\0" * 32 + b"\x55\xaa" + b"\0" * (8 * MIB - 512))
    drive = {"poolID": POOL, "domainID": ONE, "imageID": IMAGE, "volumeID": VOLUME}
    assert sorted(running.must("getDiskAlignment", BLANK, drive)["alignment"].values()) == [False, True]
    assert running.call("getDiskAlignment", VM, drive)["status"]["code"] == 44
    full = file.stat().st_blocks
    image, volume = (VOLUME[:-1] + digit for digit in "89")
    done(running, "createVolume", ONE, POOL, image, str(8 * MIB), 5, 2, 2, volume, "", BLANK, BLANK)
    done(running, "sparsifyImage", POOL, ONE, IMAGE, VOLUME, ONE, image, volume)
    sparse = data / ONE / "images" / image / volume
    assert sparse.read_bytes() == file.read_bytes() and sparse.stat().st_blocks < full
    running.must("extendVolume", ONE, POOL, IMAGE, VOLUME, 16)  # files grow by themselves
    assert running.call("extendVolume", ONE, POOL, IMAGE, OTHER, 16)["status"]["code"] == 201
