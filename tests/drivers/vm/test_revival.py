"""Guests that an I/O error has paused go on by themselves, and no others."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from drivers.errors import Failed
from drivers.vm import revival
from drivers.vm.hypervisor.link import Seen
from tests.drivers.vm.conftest import OTHER, VM
from tests.drivers.vm.stand import Stand
from tests.until import until

pytestmark = pytest.mark.slow

Build = Callable[..., Stand]


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """What takes seconds takes none."""
    monkeypatch.setattr(revival, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(revival, "LONGEST_PAUSE", 0.02)


def stopped(stand: Stand, vm_id: str, code: str = "EIO") -> None:
    stand.run(vm_id)
    stand.libvirt.change(vm_id, Seen(True, code))
    stand.await_status(vm_id, "Paused")


def resumed(stand: Stand) -> list[str]:
    return stand.libvirt.calls("resume")


@pytest.mark.parametrize("code", ["EIO", "EOTHER", "ENOSPC"])
def test_it_is_tried_until_it_holds(build: Build, code: str) -> None:
    stand = build(vm_sample_interval=0.1)
    stopped(stand, VM, code)
    until(lambda: stand.status(VM) == "Up" and resumed(stand), 60)
    count = len(resumed(stand))
    stand.libvirt.change(VM, Seen(True, code))
    until(lambda: len(resumed(stand)) > count and stand.status(VM) == "Up", 60)


def test_it_is_tried_again_when_it_fails(build: Build) -> None:
    stand = build(vm_sample_interval=0.1)
    stopped(stand, VM)
    stand.libvirt.refuses[VM] = Failed(action="continuing", reason="not yet")
    until(lambda: len(resumed(stand)) > 2, 60)
    stand.libvirt.refuses.clear()
    stand.await_status(VM, "Up")


def test_what_a_caller_paused_stays_paused(build: Build) -> None:
    stand = build(vm_sample_interval=0.1)
    stand.run(VM)
    stopped(stand, OTHER)
    stand.does(VM, lambda: stand.driver.deeds.pause(VM))
    until(lambda: OTHER in resumed(stand), 60)
    stand.driver.resume_paused()
    stand.calm()
    assert stand.status(VM) == "Paused" and VM not in resumed(stand)


def test_who_knows_that_storage_is_back_may_say_so(stand: Stand) -> None:
    stopped(stand, VM)
    stopped(stand, OTHER)
    stand.driver.resume_paused([OTHER])
    stand.await_status(OTHER, "Up")
    stand.calm()
    assert stand.status(VM) == "Paused"
    stand.driver.resume_paused()
    stand.await_status(VM, "Up")
    assert resumed(stand) == [OTHER, VM]


def test_without_libvirt_nothing_is_tried(stand: Stand) -> None:
    stopped(stand, VM)
    stand.inside(lambda: stand.driver._connection.lost("gone"))
    stand.driver.resume_paused()
    stand.calm()
    assert resumed(stand) == []
