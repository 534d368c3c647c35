"""A guest on a storage pool: from an empty directory to a guest on a cloned, snapshotted, merged image, and back."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Guest
from tests.drivers.storage.hanging import hanging
from tests.live.test_pools import BLANK, IMAGE, ISO, LOCALFS, ONE, POOL, VM, VOLUME, done, make_pool, start_spm
from tests.running import Running, Stage
from tests.until import until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

PATIENCE = 120.0
QUICK = {"irs": {"sd_health_check_delay": 0.5}}
CLONE = "7c0e9d0a-0f35-4a39-8f3e-6f1f6a6f1002"
VOLUMES = [f"7c0e9d0a-0f35-4a39-8f3e-6f1f6a6f20{number}" for number in range(10, 14)]
SIZE = 8 << 20
RAW, COW, SPARSE, LEAF = 5, 4, 2, 8
ISO_IMAGE = "11111111-1111-1111-1111-111111111111"


@pytest.fixture
def data(stage: Stage) -> Path:
    path = stage.base / "data"
    path.mkdir()
    return path


def drive(image: str, volume: str, form: str) -> dict[str, Any]:
    ids = {"poolID": POOL, "domainID": ONE, "imageID": image, "volumeID": volume}
    return {"type": "disk", "device": "disk", "iface": "virtio", "format": form, **ids}


def create_volume(running: Running, image: str, volume: str, form: int, parent: str = BLANK) -> None:
    parent_image = image if parent != BLANK else BLANK
    arguments = (image, str(SIZE), form, SPARSE, 2, volume, "", parent_image, parent)
    done(running, "createVolume", ONE, POOL, *arguments)


def status(running: Running) -> str:
    return str(running.must("getVmStats", VM)["statsList"][0]["status"])


def opened(running: Running) -> set[str]:
    """Return the files that the guest's QEMU has open, by their real paths."""
    pid = running.must("getVmStats", VM)["statsList"][0]["pid"]
    found = set()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        try:
            found.add(os.readlink(link))
        except FileNotFoundError:
            continue  # it was closed a moment ago
    return found


def counts(running: Running) -> bool:
    log = running.console(VM)
    return log.exists() and bool(re.search(rb"tick \d+\r?\n", log.read_bytes()))


def prepared_image(running: Running) -> None:
    """Make a disk with something on it, clone it, put a snapshot onto the clone, and merge that."""
    create_volume(running, IMAGE, VOLUME, RAW)
    path = running.must("prepareImage", POOL, ONE, IMAGE, VOLUME)["path"]
    subprocess.run(["qemu-io", "-f", "raw", "-c", f"write -P 7 0 {SIZE}", path], check=True, stdout=subprocess.DEVNULL)
    running.must("teardownImage", POOL, ONE, IMAGE, VOLUME)
    done(running, "copyImage", ONE, POOL, BLANK, IMAGE, VOLUME, CLONE, VOLUMES[0], "", ONE, LEAF, COW, SPARSE)
    create_volume(running, CLONE, VOLUMES[1], COW, VOLUMES[0])
    done(running, "mergeSnapshots", ONE, POOL, BLANK, CLONE, VOLUMES[0], VOLUMES[1])
    assert running.must("getVolumesList", ONE, POOL, CLONE)["uuidlist"] == [VOLUMES[1]]


def test_from_an_empty_directory_to_a_guest_and_back(daemon: Callable[..., Running], data: Path, guest: Guest) -> None:
    running = daemon(uri="embed", config=QUICK)
    make_pool(running, data, (ISO, 2))
    start_spm(running)
    running.must("attachStorageDomain", ISO, POOL)
    running.must("activateStorageDomain", ISO, POOL)
    (data / ISO / "images" / ISO_IMAGE / "tools.iso").write_bytes(b"\0" * (1 << 20))
    assert running.must("getIsoList", POOL)["isolist"] == ["tools.iso"]
    prepared_image(running)
    images = data / ONE / "images"
    machine = {
        "vmId": VM,
        "vmName": "guest",
        "memSize": 96,
        "kernel": guest.kernel,
        "initrd": guest.initramfs,
        "kernelArgs": "console=ttyS0 quiet",
        "devices": [
            drive(CLONE, VOLUMES[1], "cow"),
            {"type": "disk", "device": "cdrom", "iface": "ide", "path": "tools.iso", "readonly": "true"},
        ],
    }
    running.must("setVolumeLegality", ONE, POOL, CLONE, VOLUMES[1], "ILLEGAL")
    running.must("create", machine)
    until(lambda: status(running) == "Down", PATIENCE, "an illegal volume to be refused")
    running.must("destroy", VM)
    running.must("setVolumeLegality", ONE, POOL, CLONE, VOLUMES[1], "LEGAL")
    running.must("create", machine)
    until(lambda: counts(running), PATIENCE, "the guest to count")
    files = {str(images / CLONE / VOLUMES[1]), str(data / ISO / "images" / ISO_IMAGE / "tools.iso")}
    assert opened(running) >= files
    link = running.run_dir / "storage" / ONE / CLONE
    assert link.is_symlink()
    running.reexec()
    assert opened(running) >= files

    # A snapshot while it runs.
    create_volume(running, CLONE, VOLUMES[2], COW, VOLUMES[1])
    before = {"poolID": POOL, "domainID": ONE, "imageID": CLONE, "volumeID": VOLUMES[2], "baseVolumeID": VOLUMES[1]}
    running.must("snapshot", VM, [before])
    assert opened(running) >= {*files, str(images / CLONE / VOLUMES[2])}
    running.must("changeCD", VM, "")
    running.must("changeCD", VM, "tools.iso")
    assert running.call("changeCD", VM, "../../dom_md/metadata")["status"]["code"] != 0

    # And all of it away again.
    running.must("destroy", VM)
    until(lambda: not link.is_symlink(), PATIENCE, "the link to the image to be gone")
    for image in (CLONE, IMAGE):
        done(running, "deleteImage", ONE, POOL, image)
    running.must("destroyStoragePool", POOL, 1, "")
    for uuid in (ONE, ISO):
        running.must("formatStorageDomain", uuid)
    item = [{"id": ONE, "connection": str(data)}]
    running.must("disconnectStorageServer", LOCALFS, BLANK, item)
    assert os.listdir(data) == ["__DIRECT_IO_TEST__"]


def test_a_guest_goes_on_when_its_domain_is_back(stage: Stage, guest: Guest) -> None:
    with hanging(stage.base) as storage:
        running = stage.start(uri="embed", config={**QUICK, "vars": {"vm_sample_interval": 1}})
        make_pool(running, storage.path)
        start_spm(running)
        create_volume(running, IMAGE, VOLUME, RAW)
        boot = {"kernel": guest.kernel, "initrd": guest.initramfs, "kernelArgs": "console=ttyS0 quiet"}
        devices = [drive(IMAGE, VOLUME, "raw")]
        running.must(
            "create", {"vmId": VM, "vmName": "guest", "memSize": 96, "launchPaused": True, "devices": devices, **boot}
        )
        until(lambda: status(running) == "Paused", PATIENCE, "the guest to be there")
        until(lambda: running.must("repoStats")[ONE]["valid"], PATIENCE, "the domain to be well")
        storage.fail()
        running.must("cont", VM)
        until(lambda: pause_code(running) in ("EIO", "EOTHER"), PATIENCE, "the guest to meet the error")
        until(lambda: not running.must("repoStats")[ONE]["valid"], PATIENCE, "the loss to be told")
        running.reexec()
        assert (status(running), pause_code(running) != "", counts(running)) == ("Paused", True, False)
        assert running.must("getSpmStatus", POOL)["spm_st"]["spmStatus"] == "SPM"
        storage.heal()
        until(lambda: running.must("repoStats")[ONE]["valid"], PATIENCE, "the domain to be well again")
        until(lambda: counts(running), PATIENCE, "the guest to go on")
        assert (status(running), pause_code(running)) == ("Up", "")
        running.must("destroy", VM)
        done(running, "deleteImage", ONE, POOL, IMAGE)
        running.must("spmStop", POOL)


def pause_code(running: Running) -> str:
    return str(running.must("getVmStats", VM)["statsList"][0].get("pauseCode", ""))
