"""The SPM's lease by sanlock: two hosts, each a daemon and a sanlock of its own, and one shared directory."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.live.test_pools import (
    IMAGE,
    ONE,
    POOL,
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

    def __init__(self, stage: Stage, name: str) -> None:
        self.sanlock = Sanlock(stage.base / name, name)
        self._stage = stage
        self.daemon = stage.start(config=QUICK, env=self.sanlock.env)

    def again(self) -> Running:
        self.daemon = self._stage.start(config=QUICK, env=self.sanlock.env, again=self.daemon)
        return self.daemon


@pytest.fixture
def host(stage: Stage) -> Iterator[Callable[[str], Host]]:
    hosts: list[Host] = []

    def start(name: str) -> Host:
        hosts.append(Host(stage, name))
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


def two_hosts(host: Callable[[str], Host], data: Path) -> tuple[Host, Host]:
    """Return two hosts that are connected to a pool, the first as its SPM."""
    first, second = host("one"), host("two")
    make_pool(first.daemon, data)
    make_domains(second.daemon, data)
    second.daemon.must("connectStoragePool", POOL, 2, "", ONE, 1)
    start_spm(first.daemon)
    return first, second


def test_one_spm_at_a_time(host: Callable[[str], Host], data: Path) -> None:
    first, second = two_hosts(host, data)
    lease = owner(data)
    assert lease[0] == "1" and lease[3] != "0"
    status = ended(second.daemon, second.daemon.must("spmStart", POOL, 1, 0, 0, "false")["uuid"])
    assert (status["code"], status["taskResult"]) == (651, "cleanSuccess")
    for one in (first, second):
        until(lambda one=one: one.daemon.must("repoStats")[ONE]["acquired"], PATIENCE, "the host's id to be seen")  # type: ignore[misc]
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
    host: Callable[[str], Host], data: Path
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


def test_what_works_ends_before_the_lease_is_given_back(host: Callable[[str], Host], data: Path) -> None:
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


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.timeout(400)
def test_another_host_takes_over_from_one_that_is_dead(host: Callable[[str], Host], data: Path) -> None:
    first, second = two_hosts(host, data)
    keeper = keepers(first.daemon)
    first.sanlock.end()
    first.daemon.kill()
    until(lambda: not any(map(alive, keeper)), PATIENCE, "the keeper to end")

    def takes_over() -> bool:
        task = second.daemon.must("spmStart", POOL, 1, 0, 0, "false")["uuid"]
        return bool(ended(second.daemon, task)["code"] == 0)

    # sanlock waits by itself for as long as the dead host might live, or refuses, and is asked again.
    until(takes_over, TAKEOVER, "the lease of the dead host to expire")
    assert spm(second.daemon) == ("SPM", 2, 1)
    assert owner(data)[0] == "2"
