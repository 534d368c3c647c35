"""Statistics come from memory, survive a re-exec, and a stuck monitor costs the other machines nothing."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from drivers.vm import sampler
from tests.drivers.vm.conftest import OTHER, VM
from tests.drivers.vm.stand import Stand
from tests.until import until

pytestmark = pytest.mark.slow


def test_a_machine_is_sampled_soon_after_its_start(stand: Stand) -> None:
    stand.run(VM)
    until(lambda: stand.stats(VM)["cpuUsage"] == str(10**9), 60)


def test_samples_survive_a_reexec_and_can_be_asked_for_before_libvirt_is_there(build: Callable[..., Stand]) -> None:
    first = build(vm_sample_interval=0.1)
    first.run(VM)
    until(lambda: first.stats(VM)["cpuUsage"] != "0", 60)
    gate = threading.Event()
    left = first.stop()
    first.libvirt.down = "not yet"
    second = build(first.libvirt, left=left)
    stats = second.stats(VM)
    assert (stats["status"], stats["cpuUsage"]) == ("Up", str(10**9))
    assert second.inside(second.driver.snapshot).samples != ""
    gate.set()


def test_samples_of_two_execs_without_a_question_between_are_kept(build: Callable[..., Stand]) -> None:
    first = build(vm_sample_interval=0.1)
    first.run(VM)
    until(lambda: first.stats(VM)["cpuUsage"] != "0", 60)
    left = first.stop()
    first.libvirt.down = "not yet"
    second = build(first.libvirt, left=left)
    left = second.stop()
    third = build(first.libvirt, left=left)
    assert third.stats(VM)["cpuUsage"] == str(10**9)


def test_what_is_destroyed_has_no_samples(build: Callable[..., Stand]) -> None:
    stand = build(vm_sample_interval=0.1)
    stand.run(VM)
    stand.run(OTHER)
    until(lambda: stand.stats(VM)["cpuUsage"] != "0", 60)
    stand.destroy(VM)
    until(lambda: VM not in stand.inside(stand.driver.snapshot).samples, 60)


def test_a_silent_monitor_is_told_and_so_is_its_return(
    build: Callable[..., Stand], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sampler, "PATIENCE", 0.3)
    stand = build(vm_sample_interval=0.1)
    stand.run(VM)
    stand.run(OTHER)
    stand.libvirt.silent = {VM}
    until(lambda: stand.stats(VM)["monitorResponse"] == "-1", 60)
    assert stand.stats(OTHER)["monitorResponse"] == "0"
    stand.libvirt.silent = set()
    until(lambda: stand.stats(VM)["monitorResponse"] == "0", 60)


@pytest.mark.slow
def test_a_sample_that_is_stuck_makes_a_reexec_wait_and_later_ones_go_around_it(build: Callable[..., Stand]) -> None:
    stand = build(vm_sample_interval=0.1)
    stand.run(VM)
    stand.libvirt.gates["statistics"] = threading.Event()
    until(lambda: len([1 for call, _ in stand.libvirt.asked if call == "statistics"]) >= 2, 60)
    until(lambda: (stand.unsafe() or "").startswith("monitors do not answer"), 60)
    stand.libvirt.gates["statistics"].set()
    until(lambda: stand.unsafe() is None, 60)


def test_nothing_is_sampled_while_a_reexec_is_wanted(build: Callable[..., Stand]) -> None:
    stand = build(vm_sample_interval=0.1)
    stand.run(VM)
    stand.inside(stand.driver.settle)
    stand.calm()
    asked = len(stand.libvirt.asked)
    stand.inside(lambda: stand.driver._sampler._tick())
    stand.calm()
    assert len(stand.libvirt.asked) == asked
    stand.inside(stand.driver.resume)
    until(lambda: len(stand.libvirt.asked) > asked, 60)
