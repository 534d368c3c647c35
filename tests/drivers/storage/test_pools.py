"""Pieces of pools: what metadata say of them, links, configurations, and the end of what works under a lease."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from drivers.storage.errors import InvalidParameter, MetadataInvalid
from drivers.storage.keeper.leases import Leases
from drivers.storage.keeper.work import end_work
from drivers.storage.pools import fields as pool_fields
from drivers.storage.pools.errors import PoolNameTooLong
from drivers.storage.pools.links import Links
from drivers.storage.pools.trees import copy_tree
from tests.drivers.storage.stand import Direct
from tests.until import until

ONE = "7c0e9d0a-0f35-4a39-8f3e-6f1f6a6f0011"
TWO = "7c0e9d0a-0f35-4a39-8f3e-6f1f6a6f0022"
POOL = "7c0e9d0a-0f35-4a39-8f3e-6f1f6a6f0001"


def test_the_list_of_domains_is_read_as_it_was_written() -> None:
    states = {ONE: "Active", TWO: "Attached"}
    assert pool_fields.members({"POOL_DOMAINS": pool_fields.members_text(states)}, "it") == states
    assert pool_fields.members({}, "it") == {}
    assert pool_fields.members({"POOL_DOMAINS": f" {ONE.upper()}:active , "}, "it") == {ONE: "Active"}


@pytest.mark.parametrize("text", ["x", f"{ONE}", f"{ONE}:", f"{ONE}:Act ive", f"../{ONE}:Active", f"{ONE}:Active,x:y"])
def test_a_list_of_domains_that_cannot_be_read_is_not_a_short_one(text: str) -> None:
    with pytest.raises(MetadataInvalid):
        pool_fields.members({"POOL_DOMAINS": text}, "it")


@pytest.mark.parametrize("states", [{"x": "active"}, {ONE: "gone"}, {ONE: 1}, {ONE: None}])
def test_states_that_mean_nothing_are_refused(states: dict[str, object]) -> None:
    with pytest.raises(InvalidParameter):
        pool_fields.asked(states, "domainsMap")


def test_a_name_that_is_too_long_is_refused() -> None:
    assert pool_fields.name("n" * 50) == "n" * 50
    with pytest.raises(PoolNameTooLong):
        pool_fields.name("n" * 51)


def test_a_domain_is_made_master_and_freed_again_without_a_trace() -> None:
    before = {"SDUUID": ONE, "ROLE": "Regular", "POOL_UUID": "", "STRANGE": "kept"}
    master = pool_fields.mastered(
        pool_fields.attached(before, POOL), 3, pool_name="n", states={ONE: "Active"}, timing={}
    )
    assert (master["ROLE"], master["MASTER_VERSION"], master["POOL_UUID"]) == ("Master", "3", POOL)
    assert pool_fields.spm(master, ONE) == (-1, -1)
    assert pool_fields.unmastered(pool_fields.detached(master, POOL)) == before


def test_links_are_exactly_those_wanted_and_nothing_else_is_touched(tmp_path: Path) -> None:
    links = Links(lambda: str(tmp_path))
    links.make(POOL, {ONE: "/a", TWO: "/b"}, ONE)
    (tmp_path / POOL / "file").write_text("of somebody else")
    links.make(POOL, {ONE: "/c", TWO: ""}, TWO)
    there = {name: os.readlink(tmp_path / POOL / name) for name in (ONE, TWO, "mastersd")}
    assert there == {ONE: "/c", TWO: "/b", "mastersd": "/a"}
    links.remove(POOL, directory=True)
    assert os.listdir(tmp_path / POOL) == ["file"]
    (tmp_path / POOL / "file").unlink()
    links.remove(POOL, directory=True)
    links.remove(POOL, directory=True)
    assert not (tmp_path / POOL).exists()


def test_a_tree_is_copied_without_its_links(tmp_path: Path) -> None:
    from drivers.storage.helpers.files import Files

    source, target = tmp_path / "source", tmp_path / "target"
    (source / "master" / "vms" / "a").mkdir(parents=True)
    (source / "master" / "vms" / "a" / "a.ovf").write_bytes(b"x" * 100000)
    (source / "master" / "vms" / "link").symlink_to("/etc/passwd")
    target.mkdir()
    for _ in range(2):
        copy_tree(Files(Direct(source)), Files(Direct(target)), "master")
    assert (target / "master" / "vms" / "a" / "a.ovf").read_bytes() == b"x" * 100000
    assert not (target / "master" / "vms" / "link").is_symlink()


def test_a_lock_of_the_kernel_is_had_once(tmp_path: Path) -> None:
    path = tmp_path / "leases"
    path.touch()
    one, other = (Leases(lambda reason: None) for _ in range(2))
    one.acquire(ONE, str(path), 1 << 20, sanlock=False)
    one.acquire(ONE, str(path), 1 << 20, sanlock=False)
    with pytest.raises(BlockingIOError):
        other.acquire(ONE, str(path), 1 << 20, sanlock=False)
    assert (one.held(), other.held()) == ([ONE], [])
    one.release(ONE)
    one.release(ONE)
    other.acquire(ONE, str(path), 1 << 20, sanlock=False)
    other.drop()
    one.acquire(ONE, str(path), 1 << 20, sanlock=False)
    one.drop()
    path.unlink()
    path.symlink_to("/etc/hostname")
    with pytest.raises(OSError):
        one.acquire(ONE, str(path), 1 << 20, sanlock=False)


def test_only_what_holds_the_lock_of_a_command_is_ended(tmp_path: Path) -> None:
    place = tmp_path / "tasks" / "one"
    place.mkdir(parents=True)
    command = f"exec 5>{place}/1.lock; flock 5; echo $$ > {place}/1.pids; exec cat"
    # The pid of the second stands in a file as well, but it has nothing to do with it.
    works, stranger = (subprocess.Popen(["sh", "-c", text], stdin=subprocess.PIPE) for text in (command, "exec cat"))
    try:
        until(lambda: (place / "1.pids").exists() and (place / "1.pids").read_text(), 60, "it to work")
        with (place / "1.pids").open("a") as file:
            file.write(f"{stranger.pid}\n")
        end_work(str(tmp_path / "tasks"))
        assert works.wait(60) == -9
        assert stranger.poll() is None
        end_work(str(tmp_path / "nothing"))
    finally:
        for process in (works, stranger):
            process.kill()
            process.communicate()
