"""The SPM's lease by sanlock: two hosts, each a daemon and a sanlock of its own, and one shared directory."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.drivers.storage.hanging import Hanging, hanging
from tests.live.test_create import created, machine, stats
from tests.live.test_pools import (
    BLANK,
    IMAGE,
    ONE,
    POOL,
    TWO,
    VOLUME,
    done,
    ended,
    keepers,
    make_domains,
    make_pool,
    spm,
    start_spm,
)
from tests.running import PATIENCE, Running, Stage
from tests.sanlocks import Sanlock, leader, needs_sanlock
from tests.until import until

pytestmark = [needs_sanlock, pytest.mark.slow]

QUICK = {"irs": {"sd_health_check_delay": 0.5, "sanlock_io_timeout": 1}}
TAKEOVER = 240.0
"""Seconds that a host may take to be dead: 72 with this time-out, on a machine that is not busy."""


class Host:
    """A host: its sanlock, and a daemon that may be started again."""

    def __init__(self, stage: Stage, name: str, uri: str) -> None:
        self.sanlock = Sanlock(stage.base / name, name)
        self._stage = stage
        self.daemon = stage.start(uri, config=QUICK, env=self.sanlock.env)

    def again(self) -> Running:
        self.daemon = self._stage.start(config=QUICK, env=self.sanlock.env, again=self.daemon)
        return self.daemon


@pytest.fixture
def host(stage: Stage) -> Iterator[Callable[..., Host]]:
    hosts: list[Host] = []

    def start(name: str, uri: str = "test:///default") -> Host:
        hosts.append(Host(stage, name, uri))
        return hosts[-1]

    yield start
    for one in hosts:
        one.sanlock.end()


@pytest.fixture
def data(stage: Stage) -> Path:
    path = stage.base / "data"
    path.mkdir()
    return path


def owner(data: Path) -> tuple[str, ...]:
    """Return who has the lease: host, generation, version, and since when ('0': nobody has it)."""
    told = leader(data / ONE / "dom_md" / "leases", ONE)
    return tuple(told[key] for key in ("owner_id", "owner_generation", "lver", "timestamp"))


def is_free(data: Path) -> bool:
    return owner(data)[3] == "0"


def two_hosts(host: Callable[..., Host], data: Path) -> tuple[Host, Host]:
    """Return two hosts that are connected to a pool, the first as its SPM."""
    first, second = host("one"), host("two")
    make_pool(first.daemon, data)
    make_domains(second.daemon, data)
    second.daemon.must("connectStoragePool", POOL, 2, "", ONE, 1)
    start_spm(first.daemon)
    return first, second


def fenced(daemon: Running, host_id: int) -> str:
    """Return what comes of fencing another host: the agent, which there is none of, is tried, or it is skipped."""
    who = ("10.0.0.1", "", "nosuch", "admin", "secret", "off", False, "")
    reply = daemon.call("fenceNode", *who, {"storageDomainHostIdMap": {ONE: host_id}})
    return "tried" if reply["status"]["code"] == 43 else str(reply["operationStatus"])


def test_one_spm_at_a_time(host: Callable[..., Host], data: Path) -> None:
    first, second = two_hosts(host, data)
    lease = owner(data)
    assert lease[0] == "1" and lease[3] != "0"
    status = ended(second.daemon, second.daemon.must("spmStart", POOL, 1, 0, 0, "false")["uuid"])
    assert (status["code"], status["taskResult"]) == (651, "cleanSuccess")
    for one in (first, second):
        until(lambda one=one: one.daemon.must("repoStats")[ONE]["acquired"], PATIENCE, "the host's id to be seen")  # type: ignore[misc]
    until(lambda: fenced(first.daemon, 2) == "skipped", PATIENCE, "the other host to be seen alive")
    assert fenced(first.daemon, 99) == "tried"
    for _ in range(3):
        first.daemon.reexec()
        assert owner(data) == lease  # the same, and not one that was given back and got again
        assert spm(first.daemon) == ("SPM", 1, 0)
    assert spm(second.daemon) == ("Free", 1, 0)
    first.daemon.must("spmStop", POOL)
    assert is_free(data)
    start_spm(second.daemon)
    assert owner(data)[0] == "2"
    second.daemon.kill()
    until(lambda: is_free(data), PATIENCE, "the lease to be given back")
    start_spm(first.daemon)
    assert owner(data)[0] == "1"
    again = second.again()
    assert spm(again) == ("Free", 1, 2)


def test_a_pool_whose_domains_a_client_knows_takes_the_spm_from_the_lease(
    host: Callable[..., Host], data: Path
) -> None:
    first = host("one").daemon
    make_domains(first, data, (ONE, 1))
    first.must("createStoragePool", 4, POOL, "pool", ONE, [ONE], 1)
    first.must("connectStoragePool", POOL, 7, "", ONE, 1, {ONE: "active"})
    before = (data / ONE / "dom_md" / "metadata").read_text(encoding="ascii")
    assert spm(first) == ("Free", -1, 0)
    task = first.must("spmStart", POOL, -1, -1, 0, "false")["uuid"]
    first.reexec()  # while it waits for its id
    assert ended(first, task)["taskResult"] == "success"
    assert spm(first) == ("SPM", 7, int(owner(data)[2]))
    assert (data / ONE / "dom_md" / "metadata").read_text(encoding="ascii") == before
    first.must("spmStop", POOL)
    assert spm(first) == ("Free", -1, 1)


def test_what_works_ends_before_the_lease_is_given_back(host: Callable[..., Host], data: Path) -> None:
    first = host("one")
    daemon = first.daemon
    make_pool(daemon, data)
    start_spm(daemon)
    done(daemon, "createVolume", ONE, POOL, IMAGE, "1048576", 5, 2, 2, VOLUME, "")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = {"method": "http", "url": f"http://127.0.0.1:{silent.getsockname()[1]}/"}
        for lose in (_as_sanlock_does, _as_a_crash_of_sanlock_does):
            task = daemon.must("downloadImage", address, POOL, ONE, IMAGE, VOLUME)["uuid"]
            until(lambda task=task: workers(daemon, task), PATIENCE, "a child to work")  # type: ignore[misc]
            pids = workers(daemon, task)
            lose(first)
            until(lambda: spm(daemon)[0] == "Free", PATIENCE, "the role to be gone")
            until(lambda pids=pids: not any(map(alive, pids)), PATIENCE, "its work to end")  # type: ignore[misc]
            assert daemon.alive()
            if lose is _as_sanlock_does:
                until(lambda: is_free(data), PATIENCE, "the lease to be given back")
                start_spm(daemon)
                daemon.must("stopTask", task)
                ended(daemon, task)


def _as_sanlock_does(first: Host) -> None:
    for pid in keepers(first.daemon):
        os.kill(pid, signal.SIGTERM)


def _as_a_crash_of_sanlock_does(first: Host) -> None:
    first.sanlock.end()


def workers(daemon: Running, task: str) -> list[int]:
    """Return the pids of what works for a task."""
    files = (daemon.run_dir / "tasks" / task).glob("*.pids")
    pids = [int(word) for file in files for word in file.read_text(encoding="ascii").split()]
    return [pid for pid in pids if alive(pid)]


def takes_over(daemon: Running) -> bool:
    """Try to be the SPM: sanlock waits by itself for as long as a dead host might live, or refuses, and is asked again."""
    task = daemon.must("spmStart", POOL, 1, 0, 0, "false")["uuid"]
    return bool(ended(daemon, task)["code"] == 0)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.timeout(600)
def test_another_host_takes_over(stage: Stage, host: Callable[..., Host], data: Path) -> None:
    """Both ways at the same time, as most of it is waiting until a host is dead for sure."""
    with hanging(stage.base) as stuck:
        ways = [from_one_that_is_dead(host, data), from_one_that_lost_its_storage(host, stuck)]
        for way in ways:
            next(way)
        for way in ways:
            assert not list(way)


def from_one_that_is_dead(host: Callable[..., Host], data: Path) -> Iterator[None]:
    """Have another host take over; yield before the wait for it."""
    first, second = two_hosts(host, data)
    keeper = keepers(first.daemon)
    first.sanlock.end()
    first.daemon.kill()
    until(lambda: not any(map(alive, keeper)), PATIENCE, "the keeper to end")
    yield
    until(lambda: takes_over(second.daemon), TAKEOVER, "the lease of the dead host to expire")
    assert spm(second.daemon) == ("SPM", 2, 1)
    assert owner(data)[0] == "2"


def from_one_that_lost_its_storage(host: Callable[..., Host], stuck: Hanging) -> Iterator[None]:
    """The storage hangs for this host alone, as when its path there is cut: what works for it has ended before another host may
    begin, its guest stays, and all is well again when the storage is."""
    first, second = host("three", "embed"), host("four")
    make_pool(first.daemon, stuck.path)
    make_domains(second.daemon, stuck.backing)
    second.daemon.must("connectStoragePool", POOL, 2, "", ONE, 1)
    start_spm(first.daemon)
    done(first.daemon, "createVolume", ONE, POOL, IMAGE, "1048576", 5, 2, 2, VOLUME, "")
    vm = created(first.daemon, machine(memSize=16))
    guest = stats(first.daemon, vm)["pid"]
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = {"method": "http", "url": f"http://127.0.0.1:{silent.getsockname()[1]}/"}
        task = first.daemon.must("downloadImage", address, POOL, ONE, IMAGE, VOLUME)["uuid"]
        until(lambda: workers(first.daemon, task), PATIENCE, "a child to work")
        pids = workers(first.daemon, task)
        stuck.hang()
        yield
        wanted = second.daemon.must("spmStart", POOL, 1, 0, 0, "false")["uuid"]
        until(lambda: not any(map(alive, pids)), TAKEOVER, "its work to end")
        assert owner(stuck.backing)[0] == "1"
        until(lambda: role(first.daemon) != "SPM", PATIENCE, "the role to be gone")
    assert first.daemon.call("deleteImage", ONE, POOL, IMAGE)["status"]["code"] == 654
    first.daemon.reexec()
    if ended(second.daemon, wanted)["code"]:
        until(lambda: takes_over(second.daemon), TAKEOVER, "the lease of the host to expire")
    assert (spm(second.daemon), owner(stuck.backing)[0]) == (("SPM", 2, 1), "2")
    assert stats(first.daemon, vm)["pid"] == guest and alive(int(guest))
    stuck.heal()
    until(lambda: first.daemon.must("repoStats")[ONE]["acquired"], PATIENCE, "the host to have its id again")
    assert spm(first.daemon) == ("Free", 2, 1)
    second.daemon.must("spmStop", POOL)
    start_spm(first.daemon)
    assert (spm(first.daemon), owner(stuck.backing)[0]) == (("SPM", 1, 2), "1")
    done(first.daemon, "deleteImage", ONE, POOL, IMAGE)
    first.daemon.must("destroy", vm)
    first.daemon.must("spmStop", POOL)


def role(daemon: Running) -> str:
    """Return this host's role, also while the storage does not answer: only the SPM need not ask it."""
    reply = daemon.call("getSpmStatus", POOL)
    return str(reply["spm_st"]["spmStatus"]) if reply["status"]["code"] == 0 else ""


def test_a_master_that_is_lost_costs_no_lease_of_the_new_one(host: Callable[..., Host], data: Path) -> None:
    daemon = host("one").daemon
    make_pool(daemon, data, (TWO, 1), version=0)
    start_spm(daemon)
    daemon.must("upgradeStoragePool", POOL, 3)
    assert owner(data)[0] == "1", "once there can be a lease, it is had"
    daemon.must("attachStorageDomain", TWO, POOL)
    daemon.must("activateStorageDomain", TWO, POOL)
    leases = data / ONE / "dom_md" / "leases"
    leases.rename(data / "leases")
    daemon.must("deactivateStorageDomain", ONE, POOL, TWO, 2)
    told = leader(data / TWO / "dom_md" / "leases", TWO)
    assert (told["owner_id"], told["timestamp"] != "0", spm(daemon)[:2]) == ("1", True, ("SPM", 1))
    (data / "leases").rename(leases)
    daemon.must("deactivateStorageDomain", TWO, POOL, BLANK, 0)
    daemon.must("spmStop", POOL)
    assert leader(data / TWO / "dom_md" / "leases", TWO)["timestamp"] == "0"


def test_a_keeper_that_does_not_answer_is_ended_and_its_lease_given_back(host: Callable[..., Host], data: Path) -> None:
    daemon = host("one").daemon
    make_pool(daemon, data)
    start_spm(daemon)
    for pid in keepers(daemon):
        os.kill(pid, signal.SIGSTOP)
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(daemon.call, "spmStop", POOL)
        until(lambda: spm(daemon)[0] == "Free", PATIENCE, "the role to be gone")
        daemon.reexec()  # which waits for the keeper no longer than it must
        assert asked.result()["status"]["code"] == 0
    until(lambda: is_free(data), PATIENCE, "the lease to be given back")
    start_spm(daemon)
    assert spm(daemon) == ("SPM", 1, 1)
