"""After a re-exec the next one waits until each monitor has answered; one that is stuck is named, and holds up no other."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from drivers.errors import Failed, NotResponding
from drivers.vm import monitors
from tests.drivers.vm.conftest import OTHER, VM
from tests.drivers.vm.stand import Stand
from tests.until import until

pytestmark = pytest.mark.slow

THIRD = "33333333-3333-4333-8333-333333333333"


@pytest.fixture
def first(build: Callable[..., Stand]) -> Stand:
    stand = build()
    for vm_id in (VM, OTHER, THIRD):
        stand.run(vm_id)
    return stand


def test_all_are_asked_after_a_reexec(first: Stand, build: Callable[..., Stand]) -> None:
    second = build(first.libvirt, left=first.stop())
    until(lambda: sorted(second.libvirt.calls("ask_monitor")) == [VM, OTHER, THIRD])
    until(lambda: second.unsafe() is None)


def test_one_that_is_stuck_is_named(first: Stand, build: Callable[..., Stand], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(monitors, "PATIENCE", 0.2)
    left = first.stop()
    gate = first.libvirt.gates[OTHER] = threading.Event()
    second = build(first.libvirt, left=left)
    reason = f"monitors have not answered since the last re-exec: {OTHER}"
    until(lambda: second.unsafe() == reason, 60)
    until(lambda: second.stats(OTHER)["monitorResponse"] == "-1", 60)
    assert (second.status(OTHER), second.stats(VM)["monitorResponse"]) == ("Up", "0")
    gate.set()
    until(lambda: second.unsafe() is None, 60)


def test_one_whose_answer_is_late_is_asked_again(
    first: Stand, build: Callable[..., Stand], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(monitors, "AGAIN", 0.05)
    left = first.stop()
    first.libvirt.refuses[VM] = NotResponding(what="the virtual machine", reason="busy")
    second = build(first.libvirt, left=left)
    until(lambda: len([vm_id for vm_id in second.libvirt.calls("ask_monitor") if vm_id == VM]) > 2, 60)
    assert VM in (second.unsafe() or "")
    del first.libvirt.refuses[VM]
    until(lambda: second.unsafe() is None, 60)


def test_one_that_is_gone_meanwhile_is_not_waited_for(first: Stand, build: Callable[..., Stand]) -> None:
    left = first.stop()
    first.libvirt.refuses[VM] = Failed(action="asking the monitor", reason="the domain is not running")
    second = build(first.libvirt, left=left)
    until(lambda: second.libvirt.calls("ask_monitor"))
    until(lambda: second.unsafe() is None)


def test_a_successor_of_one_that_did_not_answer_is_not_waited_for(
    first: Stand, build: Callable[..., Stand], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(monitors, "AGAIN", 3600.0)
    left = first.stop()
    first.libvirt.refuses[VM] = NotResponding(what="the virtual machine", reason="busy")
    second = build(first.libvirt, left=left)
    until(lambda: VM in second.libvirt.calls("ask_monitor"), 60)
    second.calm()
    del first.libvirt.refuses[VM]
    second.destroy(VM)
    link: Any = second.libvirt
    second.inside(lambda: second.driver.works.monitors._ask_again(link, VM))
    second.run(VM)
    assert second.unsafe() is None
