"""Storage pools and their SPM through the public interface: real directories, real helpers, a daemon that is re-executed and
killed."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.drivers.storage.hanging import hanging
from tests.running import PATIENCE, Running, Stage, runs
from tests.until import until

POOL = "7c0e9d0a-0f35-4a39-8f3e-6f1f6a6f0001"
ONE = "7c0e9d0a-0f35-4a39-8f3e-6f1f6a6f0011"
TWO = "7c0e9d0a-0f35-4a39-8f3e-6f1f6a6f0022"
ISO = "7c0e9d0a-0f35-4a39-8f3e-6f1f6a6f0033"
OTHER = "7c0e9d0a-0f35-4a39-8f3e-6f1f6a6f0099"
IMAGE = "7c0e9d0a-0f35-4a39-8f3e-6f1f6a6f1001"
VOLUME = "7c0e9d0a-0f35-4a39-8f3e-6f1f6a6f2001"
VM = "7c0e9d0a-0f35-4a39-8f3e-6f1f6a6f3001"
BLANK = "00000000-0000-0000-0000-000000000000"
LOCALFS = 4
QUICK = {"irs": {"sd_health_check_delay": 0.5}}


@pytest.fixture
def data(stage: Stage) -> Path:
    path = stage.base / "data"
    path.mkdir()
    return path


def make_domains(running: Running, data: Path, *domains: tuple[str, int], version: int = 3) -> None:
    """Have the directory connected, and domains (id, class) on it."""
    told = running.must("connectStorageServer", LOCALFS, BLANK, [{"id": ONE, "connection": str(data)}])
    assert told["statuslist"][0]["status"] == 0
    for uuid, cls in domains:
        number = version if cls == 1 else 0
        running.must("createStorageDomain", LOCALFS, uuid, "name", str(data), cls, number)


def make_pool(running: Running, data: Path, *others: tuple[str, int], version: int = 3) -> None:
    """Have a pool with the master ONE, connected as host 1."""
    make_domains(running, data, (ONE, 1), *others, version=version)
    running.must("createStoragePool", 4, POOL, "pool", ONE, [ONE], 1)
    running.must("connectStoragePool", POOL, 1, "", ONE, 1)


def ended(running: Running, task: str) -> dict[str, Any]:
    def status() -> dict[str, Any]:
        told: dict[str, Any] = running.must("getTaskStatus", task)["taskStatus"]
        return told

    until(lambda: status()["taskState"] == "finished", PATIENCE, "the task to end")
    return status()


def done(running: Running, verb: str, *arguments: Any) -> None:
    """Call a verb that begins a task, which must succeed, and clear it."""
    task = running.must(verb, *arguments)["uuid"]
    status = ended(running, task)
    assert status["taskResult"] == "success", status
    running.must("clearTask", task)


def start_spm(running: Running) -> None:
    done(running, "spmStart", POOL, -1, -1, 0, "false", 250, -1)


def spm(running: Running) -> tuple[str, int, int]:
    told = running.must("getSpmStatus", POOL)["spm_st"]
    return told["spmStatus"], told["spmId"], told["spmLver"]


def pool_domains(running: Running) -> dict[str, str]:
    text = running.must("getStoragePoolInfo", POOL)["info"]["domains"]
    return dict(part.split(":") for part in text.split(","))


@pytest.mark.slow
def test_the_life_of_a_pool(daemon: Callable[..., Running], data: Path) -> None:
    running = daemon(config=QUICK, env={"SANLOCK_RUN_DIR": str(data.parent)})
    make_pool(running, data, (TWO, 1), (ISO, 2))
    leases = running.must("getVdsCapabilities")["info"]["storageLeases"]
    assert leases["way"] == "local" and "sanlock.sock" in leases["reason"] and leases["notPromised"]
    assert running.must("getConnectedStoragePoolsList")["poollist"] == [POOL]
    assert spm(running) == ("Free", -1, -1)
    start_spm(running)
    assert spm(running) == ("SPM", 1, 0)
    for uuid in (TWO, ISO):
        running.must("attachStorageDomain", uuid, POOL)
        running.must("activateStorageDomain", uuid, POOL)
    assert pool_domains(running) == {ONE: "Active", TWO: "Active", ISO: "Active"}
    links = running.base / "repo" / POOL
    assert sorted(os.listdir(links)) == sorted([ONE, TWO, ISO, "mastersd"])
    assert (links / "mastersd").resolve() == (links / ONE).resolve()
    info = running.must("getStoragePoolInfo", POOL)
    assert (info["info"]["name"], info["info"]["spm_id"], info["info"]["master_uuid"]) == ("pool", 1, ONE)
    assert info["info"]["isoprefix"].startswith(str(links / ISO))
    assert int(info["dominfo"][TWO]["diskfree"]) > 0
    running.must("setStorageDomainDescription", TWO, "\u00fcber \u20ac")
    assert running.must("getStorageDomainInfo", TWO)["info"]["name"] == "\u00fcber \u20ac"
    for none in ((), (BLANK, 0, 0, ""), ("", "", "")):
        assert sorted(running.must("getStorageDomainsList", *none)["domlist"]) == sorted([ONE, TWO, ISO])
    assert running.must("getStorageDomainsList", POOL, "2", "", str(data))["domlist"] == [ISO]
    running.must("updateVM", POOL, [{"vm": VM, "ovf": "<ovf>\u00e4</ovf>", "imglist": ""}])
    assert running.must("getVmsList", POOL)["vmlist"] == [VM]
    running.reexec()
    assert spm(running) == ("SPM", 1, 0)
    running.must("deactivateStorageDomain", ONE, POOL, TWO, 2)
    assert (links / "mastersd").resolve() == (links / TWO).resolve()
    assert running.must("getVmsInfo", POOL, BLANK)["vmlist"] == {VM: "<ovf>\u00e4</ovf>"}
    running.must("removeVM", POOL, VM)
    running.must("detachStorageDomain", ONE, POOL, BLANK, 0)
    assert running.call("detachStorageDomain", TWO, POOL, BLANK, 0)["status"]["code"] == 383
    assert running.call("disconnectStoragePool", POOL, 1, "")["status"]["code"] == 656
    assert running.call("formatStorageDomain", TWO)["status"]["code"] == 392
    running.must("spmStop", POOL)
    assert spm(running) == ("Free", -1, 0)
    start_spm(running)
    assert spm(running) == ("SPM", 1, 1)
    running.must("destroyStoragePool", POOL, 1, "")
    assert running.must("getConnectedStoragePoolsList")["poollist"] == []
    assert not links.exists()
    for uuid in (ONE, TWO, ISO):
        running.must("formatStorageDomain", uuid)
    item = [{"id": ONE, "connection": str(data)}]
    running.must("disconnectStorageServer", LOCALFS, BLANK, item)
    assert os.listdir(data) == ["__DIRECT_IO_TEST__"]
    warnings = running.output.read_text(encoding="utf-8").count(leases["notPromised"])
    assert warnings == 2, "once in each of its two runs"


@pytest.mark.slow
def test_the_spm_outlives_a_reexec_and_a_pool_outlives_a_crash(daemon: Callable[..., Running], data: Path) -> None:
    running = daemon(config=QUICK)
    make_pool(running, data)
    start_spm(running)
    keeper = keepers(running)
    for _ in range(3):
        running.reexec()
        assert keepers(running) == keeper
        assert spm(running) == ("SPM", 1, 0)
    done(running, "createVolume", ONE, POOL, IMAGE, "1048576", 5, 2, 2, VOLUME, "")
    running.kill()
    again = daemon(again=running, config=QUICK)
    until(lambda: not any(map(runs, keeper)), PATIENCE, "the keeper to end")
    assert again.must("getConnectedStoragePoolsList")["poollist"] == [POOL]
    assert spm(again) == ("Free", 1, 0)
    assert again.call("deleteImage", ONE, POOL, IMAGE)["status"]["code"] == 654
    start_spm(again)
    assert spm(again) == ("SPM", 1, 1)
    done(again, "deleteImage", ONE, POOL, IMAGE)


def keepers(running: Running) -> list[int]:
    children = running.must("vdsmd.status")["info"]["children"]
    return [child["pid"] for child in children if child["name"].startswith("storage/keeper/")]


@pytest.mark.slow
def test_one_spm_at_a_time_on_one_machine(daemon: Callable[..., Running], data: Path) -> None:
    """Without sanlock: a lock of the kernel on the directory."""
    first, second = daemon(config=QUICK), daemon(config=QUICK)
    make_pool(first, data)
    make_domains(second, data)
    second.must("connectStoragePool", POOL, 2, "", ONE, 1)
    start_spm(first)
    status = ended(second, second.must("spmStart", POOL, -1, -1, 0, "false")["uuid"])
    assert (status["code"], status["taskResult"]) == (651, "cleanSuccess")
    assert spm(second) == ("Free", 1, 0)
    first.kill()
    start_spm(second)
    assert spm(second) == ("SPM", 2, 1)


@pytest.mark.slow
def test_losing_the_keeper_is_losing_the_role(daemon: Callable[..., Running], data: Path) -> None:
    running = daemon(config=QUICK)
    make_pool(running, data)
    start_spm(running)
    for number in (signal.SIGKILL, signal.SIGTERM):
        for pid in keepers(running):
            os.kill(pid, number)
        until(lambda: spm(running)[0] == "Free", PATIENCE, "the role to be gone")
        assert running.call("attachStorageDomain", ONE, POOL)["status"]["code"] == 654
        start_spm(running)
        assert spm(running)[0] == "SPM"


@pytest.mark.slow
def test_a_pool_is_upgraded(daemon: Callable[..., Running], data: Path) -> None:
    running = daemon(config=QUICK)
    make_pool(running, data, (TWO, 1), version=0)
    start_spm(running)
    running.must("attachStorageDomain", TWO, POOL)
    running.must("createStorageDomain", LOCALFS, OTHER, "ahead", str(data), 1, 4)
    assert running.call("attachStorageDomain", OTHER, POOL)["status"]["code"] == 398
    running.must("upgradeStoragePool", POOL, 3)
    assert running.must("getStorageDomainInfo", TWO)["info"]["version"] == "0"  # not in use yet
    running.must("activateStorageDomain", TWO, POOL)
    assert running.must("getStorageDomainInfo", TWO)["info"]["version"] == "3"
    running.must("upgradeStoragePool", POOL, 5)
    assert running.must("getStorageDomainInfo", TWO)["info"]["version"] == "5"
    assert running.must("getStoragePoolInfo", POOL)["info"]["version"] == "5"
    assert running.call("upgradeStoragePool", POOL, 4)["status"]["code"] == 395
    assert running.call("upgradeStoragePool", POOL, 9)["status"]["code"] == 394
    assert running.call("extendStorageDomain", TWO, POOL, ["/dev/sdb"])["status"]["code"] == 468
    done(running, "createVolume", TWO, POOL, IMAGE, "1048576", 4, 2, 2, VOLUME, "")
    assert running.must("getImageDomainsList", POOL, IMAGE)["domainslist"] == [TWO]


@pytest.mark.slow
def test_another_domain_becomes_the_master_when_the_first_one_is_lost(
    daemon: Callable[..., Running], data: Path
) -> None:
    running = daemon(config=QUICK)
    make_pool(running, data, (TWO, 1))
    start_spm(running)
    running.must("attachStorageDomain", TWO, POOL)
    running.must("activateStorageDomain", TWO, POOL)
    running.must("spmStop", POOL)
    running.must("disconnectStoragePool", POOL, 1, "")
    (data / ONE).rename(data / "lost")
    assert running.call("connectStoragePool", POOL, 1, "", ONE, 1)["status"]["code"] == 304
    states = {ONE: "attached", TWO: "active"}
    running.must("reconstructMaster", POOL, "pool", TWO, states, 2, "", 5, 60, 10, 3, 1)
    running.must("connectStoragePool", POOL, 1, "", TWO, 2)
    start_spm(running)
    assert pool_domains(running) == {ONE: "Attached", TWO: "Active"}
    (data / "lost").rename(data / ONE)
    # It still says that it is the master.
    running.must("activateStorageDomain", ONE, POOL)
    assert running.must("getStorageDomainInfo", ONE)["info"]["role"] == "Regular"
    running.must("deactivateStorageDomain", ONE, POOL, BLANK, 0)
    (data / ONE).rename(data / "lost")
    assert running.call("detachStorageDomain", ONE, POOL, BLANK, 0)["status"]["code"] == 358
    running.must("forcedDetachStorageDomain", ONE, POOL)
    assert pool_domains(running) == {TWO: "Active"}


@pytest.mark.slow
def test_a_master_that_hangs_holds_up_neither_others_nor_a_reexec(stage: Stage) -> None:
    with hanging(stage.base) as stuck:
        running = stage.start(config={"irs": {"sd_health_check_delay": 0.5, "process_pool_timeout": 4}})
        make_pool(running, stuck.path)
        start_spm(running)
        stuck.hang()
        assert running.call("getStoragePoolInfo", POOL)["status"]["code"] == 379
        assert spm(running) == ("SPM", 1, 0)
        running.reexec()
        assert spm(running) == ("SPM", 1, 0)
        assert running.must("getConnectedStoragePoolsList")["poollist"] == [POOL]
        stuck.heal()
        until(lambda: running.call("getStoragePoolInfo", POOL)["status"]["code"] == 0, PATIENCE, "it to answer")
        running.must("spmStop", POOL)


@pytest.mark.parametrize(
    ("verb", "arguments", "code"),
    [
        ("connectStoragePool", ("x", 1, "", ONE, 1), 1000),
        ("connectStoragePool", (POOL, 0, "", ONE, 1), 1000),
        ("connectStoragePool", (POOL, 251, "", ONE, 1), 1000),
        ("connectStoragePool", (POOL, 2, "", ONE, 1), 700),
        ("connectStoragePool", (OTHER, 1, "", ONE, 1), 323),
        ("connectStoragePool", (POOL, 1, "", OTHER, 1), 304),
        ("connectStoragePool", (POOL, 1, "", TWO, 1), 324),
        ("connectStoragePool", (POOL, 1, "", ONE, 7), 324),
        ("connectStoragePool", (POOL, 1, "", ONE, 1, {ONE: "melted"}), 1000),
        ("connectStoragePool", (POOL, 1, "", ONE, 1, {"../x": "active"}), 1000),
        ("disconnectStoragePool", (OTHER, 1, ""), 309),
        ("disconnectStoragePool", (POOL, 900, ""), 1000),
        ("createStoragePool", (4, POOL, "n", TWO, [TWO], 1), 325),
        ("createStoragePool", (4, OTHER, "n", TWO, [ONE], 1), 1000),
        ("createStoragePool", (4, OTHER, "n", TWO, [TWO, ONE], 1), 380),
        ("createStoragePool", (4, OTHER, "n" * 51, TWO, [TWO], 1), 327),
        ("createStoragePool", (4, OTHER, "n", ISO, [ISO], 1), 317),
        ("createStoragePool", (4, OTHER, "n", OTHER, [OTHER], 1), 358),
        ("createStoragePool", (4, "..", "n", TWO, [TWO], 1), 1000),
        ("createStoragePool", (4, OTHER, "n", TWO, ["../.."], 1), 1000),
        ("reconstructMaster", (POOL, "n", ONE, {ONE: "active"}, 2), 325),
        ("reconstructMaster", (OTHER, "n", ONE, {ONE: "active"}, 2), 380),
        ("reconstructMaster", (OTHER, "n", ONE, {TWO: "active"}, 2), 1000),
        ("refreshStoragePool", (OTHER, ONE, 1), 309),
        ("getStoragePoolInfo", (OTHER,), 309),
        ("getStoragePoolInfo", ("../..",), 1000),
        ("getSpmStatus", (OTHER,), 309),
        ("spmStart", (OTHER, -1, -1, 0, "false"), 309),
        ("spmStart", (POOL, -1, -1, 0, "false", 250, 9), 394),
        ("spmStop", (OTHER,), 309),
        ("fenceSpmStorage", (OTHER, 1, 1), 309),
        ("attachStorageDomain", (TWO, POOL), 654),
        ("attachStorageDomain", (TWO, OTHER), 309),
        ("destroyStoragePool", (POOL, 1, ""), 654),
        ("upgradeStoragePool", (POOL, 4), 654),
        ("getVmsList", (POOL,), 654),
        ("setStoragePoolDescription", (POOL, "x"), 654),
        ("setStorageDomainDescription", (ONE, "x"), 654),
        ("setStorageDomainDescription", (TWO, "x"), 309),
        ("getImageDomainsList", (POOL, "../.."), 1000),
    ],
)
def test_bad_input_has_its_code(ready: tuple[Running, Path], verb: str, arguments: tuple[Any, ...], code: int) -> None:
    running, data = ready
    before = {path: path.stat().st_mtime_ns for path in data.rglob("*") if path.name != "__DIRECT_IO_TEST__"}
    assert running.call(verb, *arguments)["status"]["code"] == code
    after = {path: path.stat().st_mtime_ns for path in data.rglob("*") if path.name != "__DIRECT_IO_TEST__"}
    assert after == before
    assert running.must("getConnectedStoragePoolsList")["poollist"] == [POOL]


@pytest.fixture(scope="module")
def ready() -> Iterator[tuple[Running, Path]]:
    """Give one daemon for all bad input, connected to a pool."""
    stage = Stage()
    try:
        data = stage.base / "data"
        data.mkdir()
        running = stage.start()
        make_pool(running, data, (TWO, 1), (ISO, 2))
        yield running, data
    finally:
        stage.clear(tell=False)


@pytest.mark.slow
def test_a_client_that_keeps_the_list_of_domains(daemon: Callable[..., Running], data: Path) -> None:
    """Its list counts, and none is written; it tells it again and again, also to the SPM."""
    running = daemon(config=QUICK)
    make_domains(running, data, (ONE, 1), (TWO, 1))
    running.must("createStoragePool", 4, POOL, "pool", ONE, [ONE], "1")
    running.must("connectStoragePool", POOL, "1", "", ONE, "1", {ONE: "active"}, {})
    start_spm(running)
    running.must("attachStorageDomain", TWO, POOL)
    assert pool_domains(running) == {ONE: "Active", TWO: "Attached"}
    running.must("activateStorageDomain", TWO, POOL)
    metadata = (data / ONE / "dom_md" / "metadata").read_text(encoding="ascii")
    assert f"POOL_DOMAINS={ONE}:Active\n" in metadata
    for states in ({ONE: "active", TWO: "attached"}, {ONE: "ACTIVE", TWO: "locked"}, {ONE: "active", TWO: "active"}):
        running.must("connectStoragePool", POOL, 1, "", ONE, 1, states)
        assert pool_domains(running) == {uuid: state.capitalize() for uuid, state in states.items()}
    wrong = running.call("connectStoragePool", POOL, 1, "", TWO, 2, {ONE: "active", TWO: "active"})
    assert wrong["status"]["code"] == 324
    assert spm(running)[:2] == ("SPM", 1)
    running.must("deactivateStorageDomain", ONE, POOL, TWO, "2")
    running.must("connectStoragePool", POOL, 1, "", TWO, 2, {ONE: "attached", TWO: "active"})
    running.must("refreshStoragePool", POOL, TWO, 2)
    running.must("detachStorageDomain", ONE, POOL, BLANK, 0)
    running.must("spmStop", POOL)
    running.must("connectStoragePool", POOL, 1, "", TWO, 2, {TWO: "active"})
    assert running.call("refreshStoragePool", POOL, ONE, 2)["status"]["code"] == 324
    assert running.must("getConnectedStoragePoolsList")["poollist"] == []
