"""A host that is rebooted, or loses its power: vdsmd is back by itself, and takes nothing of the boot before for true."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.conftest import Guest
from tests.lab.other import PATIENCE, call, install_there, reboot, remove_there, ssh
from tests.until import until

pytestmark = [pytest.mark.lab(hosts=2), pytest.mark.slow, pytest.mark.timeout(900)]

VM = "22222222-3333-4444-8555-666666666666"


@pytest.fixture
def install() -> Iterator[Callable[[str], None]]:
    """Give a function that installs vdsmd on the other host, with that run directory, and has it start at every boot."""
    yield install_there
    remove_there()


def start_machine(guest: Guest) -> int:
    """Have it run a guest there; return its pid."""
    kernel = {"kernel": guest.kernel, "initrd": guest.initramfs, "kernelArgs": "console=ttyS0 quiet"}
    until(lambda: call("ping"), PATIENCE, "it to answer")
    call("create", {"vmId": VM, "vmName": "rebooted", "memSize": 96, "smp": 1, **kernel})
    return int(until(running, PATIENCE, "the guest to run")["pid"])


def stats() -> dict[str, Any]:
    found: dict[str, Any] = call("getVmStats", VM)["statsList"][0]
    return found


def running() -> dict[str, Any]:
    found = stats()
    assert found["status"] == "Up" and int(found["pid"]) > 0, found
    return found


def events() -> list[dict[str, Any]]:
    return [json.loads(line) for line in ssh("cat /var/lib/vdsm/events/*.jsonl").splitlines()]


def assert_numbers_went_on(before: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The journal is the same, longer, and no number is used twice. Return what is new."""
    after = events()
    assert after[: len(before)] == before
    numbers = [event["number"] for event in after]
    assert numbers == sorted(set(numbers))
    return after[len(before) :]


def test_a_power_failure_makes_what_was_known_of_processes_void(install: Callable[[str], None], guest: Guest) -> None:
    """The run directory is on a disk here, so that the checkpoints of the boot before are there."""
    install("/var/lib/vdsm/run")
    start_machine(guest)
    before = events()
    reboot("sync; echo b >/proc/sysrq-trigger")
    new = assert_numbers_went_on(before)
    assert [event["name"] for event in new if event["name"].startswith("daemon.")] == ["daemon.started"]
    down = until(
        lambda: (found := stats())["status"] == "Down" and found, PATIENCE, "it to know that the guest is gone"
    )
    assert down["exitCode"] == 1 and int(down.get("pid", 0)) == 0
    call("destroy", VM)
    # Nothing of the one before is in the way of the next.
    start_machine(guest)


def test_an_orderly_reboot_ends_guests_and_is_told(install: Callable[[str], None], guest: Guest) -> None:
    install("/run/vdsm")
    start_machine(guest)
    before = events()
    reboot("systemctl reboot")
    new = assert_numbers_went_on(before)
    told = [event["name"] for event in new if event["name"].startswith("daemon.")]
    assert told == ["daemon.stopped", "daemon.started"]
    assert call("list")["vmList"] == []
    start_machine(guest)
