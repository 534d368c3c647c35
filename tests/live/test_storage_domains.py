"""Storage through the public interface: real directories, mounts and helpers, and a daemon that is re-executed and killed."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.drivers.storage.hanging import hanging
from tests.running import PATIENCE, Running, Stage, runs
from tests.until import until

pytestmark = pytest.mark.slow

ONE = "5a1d5a0e-6d2f-4a0b-9a57-0e5ac2cc8d11"
TWO = "5a1d5a0e-6d2f-4a0b-9a57-0e5ac2cc8d22"
BLANK = "00000000-0000-0000-0000-000000000000"
LOCALFS, POSIXFS = 4, 6


@pytest.fixture
def data(stage: Stage) -> Path:
    path = stage.base / "data_1"
    path.mkdir()
    return path


def connect(daemon: Running, path: Path, type_: int = LOCALFS, **item: Any) -> int:
    """Return the status of the connection."""
    told = daemon.must("connectStorageServer", type_, BLANK, [{"id": ONE, "connection": str(path), **item}])
    assert told["statuslist"][0]["id"] == ONE
    return int(told["statuslist"][0]["status"])


def create(
    daemon: Running, path: Path, uuid: str = ONE, *, type_: int = LOCALFS, cls: int = 1, version: int = 3
) -> None:
    assert connect(daemon, path) == 0 or type_ != LOCALFS
    daemon.must("createStorageDomain", type_, uuid, "name", str(path), cls, version)


def helpers(daemon: Running) -> dict[str, int]:
    children = daemon.must("vdsmd.status")["info"]["children"]
    return {child["name"]: child["pid"] for child in children if child["name"].startswith("storage/")}


def valid(daemon: Running, uuid: str = ONE) -> bool:
    return bool(daemon.must("repoStats").get(uuid, {}).get("valid"))


@pytest.mark.slow
def test_the_life_of_a_domain(daemon: Callable[..., Running], data: Path) -> None:
    running = daemon(config={"irs": {"sd_health_check_delay": 0.2}})
    create(running, data)
    info = running.must("getStorageDomainInfo", ONE)["info"]
    assert (info["type"], info["class"], info["version"], info["remotePath"]) == ("LOCALFS", "Data", "3", str(data))
    running.must("startMonitoringDomain", ONE, 1)
    until(lambda: valid(running), PATIENCE, "it to be valid")
    before = helpers(running)
    for _ in range(2):
        running.reexec()
        assert helpers(running).items() >= {name: pid for name, pid in before.items() if ONE in name}.items()
        assert valid(running)
    assert running.must("getStorageDomainInfo", ONE)["info"] == info
    running.kill()
    again = daemon(again=running, config={"irs": {"sd_health_check_delay": 0.2}})
    assert again.must("getStorageDomainsList")["domlist"] == [ONE]
    until(lambda: valid(again), PATIENCE, "it to be valid after a crash")
    until(lambda: not any(map(runs, before.values())), PATIENCE, "old helpers to end")
    again.must("stopMonitoringDomain", ONE)
    again.must("formatStorageDomain", ONE, "false")
    assert again.must("disconnectStorageServer", LOCALFS, BLANK, [{"id": "x", "connection": str(data)}])[
        "statuslist"
    ] == [{"id": "x", "status": 0}]
    assert os.listdir(data) == ["__DIRECT_IO_TEST__"]


@pytest.mark.parametrize(
    ("verb", "arguments", "code"),
    [
        ("getStorageDomainInfo", ("../../etc",), 1000),
        ("getStorageDomainInfo", (TWO,), 358),
        ("getStorageDomainStats", (TWO,), 358),
        ("validateStorageDomain", ("x",), 1000),
        ("createStorageDomain", (LOCALFS, ONE, "n", "DATA", 1, 3), 365),
        ("createStorageDomain", (LOCALFS, TWO, "n", "/not/connected", 1, 3), 360),
        ("createStorageDomain", (LOCALFS, TWO, "n", "DATA", 9, 3), 386),
        ("createStorageDomain", (3, TWO, "n", "DATA", 1, 3), 372),
        ("createStorageDomain", (LOCALFS, TWO, "n", "DATA", 1, 2), 394),
        ("createStorageDomain", (LOCALFS, TWO, "n", "DATA/../x", 1, 3), 390),
        ("createStorageDomain", (LOCALFS, "..", "n", "DATA", 1, 3), 1000),
        ("setStorageDomainDescription", (ONE, "x" * 51), 387),
        ("setStorageDomainDescription", (ONE, "in no pool"), 309),
        ("getFileStats", (ONE,), 330),
        ("getIsoList", (TWO,), 309),
        ("getIsoList", ("x",), 1000),
        ("startMonitoringDomain", (ONE, 251), 1000),
        ("startMonitoringDomain", ("x", 1), 1000),
        ("getStorageDomainsList", (BLANK, 7), 1000),
        ("getStorageDomainsList", (BLANK, "x"), 1000),
        ("connectStorageServer", (3, BLANK, []), 468),
        ("connectStorageServer", (99, BLANK, []), 1000),
        ("connectStorageServer", (LOCALFS, "..", []), 1000),
    ],
)
def test_bad_input_has_its_code(ready: tuple[Running, Path], verb: str, arguments: tuple[Any, ...], code: int) -> None:
    running, data = ready
    given = [part.replace("DATA", str(data)) if isinstance(part, str) else part for part in arguments]
    before = sorted(data.rglob("*"))
    assert running.call(verb, *given)["status"]["code"] == code
    assert sorted(data.rglob("*")) == before


@pytest.fixture(scope="module")
def ready() -> Iterator[tuple[Running, Path]]:
    """Give one daemon for all bad input, with the domain ONE."""
    stage = Stage()
    try:
        data = stage.base / "data"
        data.mkdir()
        running = stage.start()
        create(running, data)
        yield running, data
    finally:
        stage.clear(tell=False)


def test_two_daemons_read_each_others_domains(daemon: Callable[..., Running], data: Path) -> None:
    """Two hosts on one shared directory."""
    first, second = daemon(), daemon()
    create(first, data)
    assert connect(second, data) == 0
    assert second.must("getStorageDomainsList")["domlist"] == [ONE]
    create(second, data, TWO, cls=2)
    (data / TWO / "images" / "11111111-1111-1111-1111-111111111111" / "x.iso").write_bytes(b"123")
    assert first.must("getFileStats", TWO)["fileStats"]["x.iso"]["size"] == "3"
    second.must("formatStorageDomain", ONE)
    assert first.call("getStorageDomainInfo", ONE)["status"]["code"] == 358


def test_a_helper_that_was_killed_is_not_missed(daemon: Callable[..., Running], data: Path) -> None:
    running = daemon()
    create(running, data)
    for _ in range(2):
        for pid in helpers(running).values():
            os.kill(pid, signal.SIGKILL)
        running.must("getStorageDomainStats", ONE)
        running.must("getStorageDomainsList")


@pytest.mark.slow
def test_storage_that_hangs_holds_up_neither_others_nor_a_reexec(stage: Stage, data: Path) -> None:
    with hanging(stage.base) as stuck:
        running = stage.start(config={"irs": {"sd_health_check_delay": 0.5, "process_pool_timeout": 6}})
        create(running, stuck.path)
        create(running, data, TWO)
        for uuid in (ONE, TWO):
            running.must("startMonitoringDomain", uuid, 1)
        until(lambda: valid(running, ONE) and valid(running, TWO), PATIENCE, "both to be valid")
        stuck.hang()
        assert running.call("getStorageDomainStats", ONE)["status"]["code"] == 379
        running.must("getStorageDomainStats", TWO)
        until(lambda: not valid(running, ONE), PATIENCE, "the silence to be told")
        assert valid(running, TWO)
        running.reexec()
        assert not valid(running, ONE)
        assert running.call("getStorageDomainInfo", ONE)["status"]["code"] == 379
        running.reexec()
        running.must("getStorageDomainStats", TWO)
        stuck.heal()
        until(lambda: valid(running, ONE), PATIENCE, "it to be valid again")
        until(lambda: running.call("getStorageDomainStats", ONE)["status"]["code"] == 0, PATIENCE, "it to answer")
        running.reexec()
        running.must("formatStorageDomain", ONE)


@pytest.fixture
def device(tmp_path: Path) -> Iterator[str]:
    """Give a loop device with a file system."""
    if os.geteuid() or not os.path.exists("/dev/loop-control"):
        pytest.skip("needs loop devices, and root")
    image = tmp_path / "image"
    with image.open("wb") as file:
        file.truncate(128 << 20)
    subprocess.run(["mkfs.ext4", "-q", image], check=True)
    made = subprocess.run(["losetup", "--find", "--show", image], check=True, capture_output=True, text=True)
    yield made.stdout.strip()
    subprocess.run(["losetup", "--detach", made.stdout.strip()], check=True)


@pytest.mark.slow
def test_a_file_system_is_mounted(stage: Stage, device: str) -> None:
    """In a mount namespace of the daemon's own, which ends with it."""
    running = stage.start(launcher=["unshare", "--mount", "--propagation", "private"])
    shown = Path(f"/proc/{running.pid}/root{running.base}/repo/mnt") / device.replace("/", "_")
    assert connect(running, Path(device), POSIXFS) == 470
    assert connect(running, Path(device), POSIXFS, vfs_type="vfat") == 470
    assert connect(running, Path(f"{device}x"), POSIXFS, vfs_type="ext4") != 0
    for _ in range(2):
        assert connect(running, Path(device), POSIXFS, vfs_type="ext4", mnt_options="noatime") == 0
    running.must("createStorageDomain", POSIXFS, ONE, "n", device, 1, 5)
    assert (shown / ONE / "dom_md" / "metadata").exists()
    running.must("startMonitoringDomain", ONE, 1)
    until(lambda: valid(running), PATIENCE, "it to be valid")
    running.reexec()
    assert running.must("getStorageDomainInfo", ONE)["info"]["type"] == "POSIXFS"
    item = {"id": "x", "connection": device, "vfs_type": "ext4"}
    with (shown / "busy").open("wb"):
        assert running.must("disconnectStorageServer", POSIXFS, BLANK, [item])["statuslist"][0]["status"] == 452
        running.must("getStorageDomainInfo", ONE)
    assert running.must("disconnectStorageServer", POSIXFS, BLANK, [item])["statuslist"][0]["status"] == 0
    assert not (shown / ONE).exists()
    until(lambda: not valid(running), PATIENCE, "its absence to be told")
    assert running.call("getStorageDomainInfo", ONE)["status"]["code"] == 358
    assert connect(running, Path(device), POSIXFS, vfs_type="ext4") == 0
    until(lambda: valid(running), PATIENCE, "it to be valid again")
    running.must("stopMonitoringDomain", ONE)
    running.must("formatStorageDomain", ONE)
    running.must("disconnectStorageServer", POSIXFS, BLANK, [item])
