"""A machine that does not answer and is to be destroyed: whoever waits for its monitor holds that up no longer than it must."""

from __future__ import annotations

import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from drivers.errors import DestroyFailed, Failed, NotResponding
from drivers.hooks import Hooks
from drivers.vm import hastening, sampler
from state.process import start_time, stat_fields
from tests.drivers.vm.conftest import OTHER, VM
from tests.drivers.vm.stand import Stand
from tests.until import until

pytestmark = pytest.mark.slow


@pytest.fixture
def stuck(build: Callable[..., Stand], monkeypatch: pytest.MonkeyPatch) -> Stand:
    """Give a driver with a machine whose monitor somebody waits for until it ends, and another one."""
    monkeypatch.setattr(sampler, "PATIENCE", 0.3)
    monkeypatch.setattr(hastening, "PATIENCE", 0.2)
    stand = build(vm_sample_interval=0.1)
    stand.run(VM)
    stand.run(OTHER)
    stand.deed(VM, lambda: until(lambda: VM not in stand.libvirt.domains, 60))
    return stand


def asked_to_destroy(stand: Stand, vm_id: str = VM, patience: float = 60) -> list[Exception | None]:
    outcome = stand.deed(vm_id, lambda: stand.driver.deeds.destroy(vm_id))
    stand.inside(lambda: stand.driver.hasten(vm_id, patience))
    return outcome


def test_one_that_is_known_not_to_answer_is_ended_at_once(stuck: Stand) -> None:
    stuck.libvirt.silent = {VM}
    until(lambda: stuck.stats(VM)["monitorResponse"] == "-1", 60)
    outcome = asked_to_destroy(stuck)
    until(lambda: outcome == [None], 60)
    assert set(stuck.libvirt.calls("kill")) == {VM}
    assert [machine["vmId"] for machine in stuck.inside(lambda: stuck.driver.list_short([]))] == [OTHER]


def test_one_that_stops_to_answer_meanwhile_is_ended_when_that_is_known(stuck: Stand) -> None:
    outcome = asked_to_destroy(stuck)
    stuck.libvirt.silent = {VM}
    until(lambda: outcome == [None], 60)
    assert set(stuck.libvirt.calls("kill")) == {VM}


def test_one_whose_process_is_stopped_is_ended_at_once_and_not_asked(stuck: Stand) -> None:
    with subprocess.Popen(["sleep", "600"]) as sleeper:
        try:
            started = start_time(sleeper.pid)
            for vm_id in (VM, OTHER):
                machine = stuck.inside(lambda v=vm_id: stuck.driver._machines.get(v))  # type: ignore[misc]
                stuck.inside(lambda m=machine: stuck.driver._machines.update(m, pid=sleeper.pid, pid_start=started))  # type: ignore[misc]
            sleeper.send_signal(signal.SIGSTOP)
            until(lambda: stat_fields(sleeper.pid)[0] == "T", 60)
            stuck.destroy(OTHER)
            outcome = asked_to_destroy(stuck)
            until(lambda: outcome == [None], 60)
        finally:
            sleeper.kill()
    assert set(stuck.libvirt.calls("kill")) == {VM, OTHER} and stuck.libvirt.calls("destroy") == []


def test_one_that_answers_waits_for_its_turn(stuck: Stand) -> None:
    outcome = asked_to_destroy(stuck)
    before = len(stuck.libvirt.calls("statistics"))
    until(lambda: len(stuck.libvirt.calls("statistics")) > before + 5, 60)
    assert (outcome, stuck.libvirt.calls("kill")) == ([], [])
    stuck.libvirt.crash(VM)
    until(lambda: outcome == [None], 60)


@pytest.mark.parametrize("point", ["before_vm_destroy", "before_device_destroy"])
def test_scripts_have_their_say_first(stuck: Stand, tmp_path: Path, point: str) -> None:
    script = tmp_path / "hooks" / point / "script"
    script.parent.mkdir(parents=True)
    script.write_text("#!/bin/sh\n")
    script.chmod(0o755)
    stuck.driver.hooks = Hooks(str(tmp_path / "hooks"))
    stuck.libvirt.silent = {VM}
    until(lambda: stuck.stats(VM)["monitorResponse"] == "-1", 60)
    outcome = asked_to_destroy(stuck)
    before = len(stuck.libvirt.calls("statistics"))
    until(lambda: len(stuck.libvirt.calls("statistics")) > before + 5, 60)
    assert (outcome, stuck.libvirt.calls("kill")) == ([], [])
    stuck.libvirt.crash(VM)
    until(lambda: outcome, 60)


def test_what_was_not_destroyed_is_not_ended_later(stuck: Stand) -> None:
    stuck.libvirt.refuses[OTHER] = Failed(action="destroying", reason="it will not die")
    outcome = asked_to_destroy(stuck, OTHER)
    until(lambda: isinstance(outcome and outcome[0], DestroyFailed), 60)
    stuck.inside(lambda: None)  # whoever wanted it destroyed has had a turn
    del stuck.libvirt.refuses[OTHER]
    stuck.libvirt.silent = {OTHER}
    until(lambda: stuck.stats(OTHER)["monitorResponse"] == "-1", 60)
    before = len(stuck.libvirt.calls("statistics"))
    until(lambda: len(stuck.libvirt.calls("statistics")) > before + 5, 60)
    assert (stuck.status(OTHER), stuck.libvirt.calls("kill")) == ("Up", [])
    stuck.libvirt.crash(VM)


def test_what_nobody_waits_for_any_more_is_not_ended(stuck: Stand) -> None:
    """Whoever waited for the turn has been told that it took too long: the machine stays, whatever its monitor does later."""
    outcome = stuck.deed(VM, lambda: stuck.driver.deeds.destroy(VM), timeout=0.1)
    stuck.inside(lambda: stuck.driver.hasten(VM, 0.1))
    until(lambda: isinstance(outcome and outcome[0], NotResponding), 60)
    asked_at = time.monotonic()
    until(lambda: time.monotonic() > asked_at + 0.1, 60)
    stuck.libvirt.silent = {VM}
    until(lambda: stuck.stats(VM)["monitorResponse"] == "-1", 60)
    before = len(stuck.libvirt.calls("statistics"))
    until(lambda: len(stuck.libvirt.calls("statistics")) > before + 5, 60)
    assert (stuck.status(VM), stuck.libvirt.calls("kill")) == ("Up", [])
    stuck.libvirt.crash(VM)


def test_a_successor_does_not_begin_before_that_is_over(stuck: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ending goes by the id: who comes late must not find the next machine that bears it."""
    late = threading.Event()
    kill = stuck.libvirt.destroy

    def destroy(vm_id: str, *, politely: bool = True) -> None:
        kill(vm_id, politely=politely)
        if threading.current_thread() is hastens[0]:
            late.wait(60)

    hastens: list[threading.Thread] = []
    end = stuck.driver.works.hastening._end

    def note(doomed: hastening.Doomed) -> None:
        hastens.append(threading.current_thread())
        end(doomed)

    monkeypatch.setattr(stuck.driver.works.hastening, "_end", note)
    monkeypatch.setattr(stuck.libvirt, "destroy", destroy)
    stuck.libvirt.silent = {VM}
    until(lambda: stuck.stats(VM)["monitorResponse"] == "-1", 60)
    outcome = asked_to_destroy(stuck)
    until(lambda: outcome == [None], 60)
    stuck.libvirt.silent = set()
    stuck.create(VM)
    stuck.inside(lambda: None)
    assert (stuck.status(VM), VM in stuck.libvirt.domains) == ("WaitForLaunch", False)
    late.set()
    stuck.await_status(VM, "Up")


def test_one_that_is_not_there_or_has_ended(stuck: Stand) -> None:
    stuck.libvirt.crash(VM)
    stuck.await_status(VM, "Down")
    stuck.inside(lambda: stuck.driver.hasten(VM, 60))
    stuck.inside(lambda: stuck.driver.hasten("nobody", 60))
    stuck.calm()
    assert stuck.libvirt.calls("kill") == []


def test_a_late_sample_says_nothing_of_monitors(build: Callable[..., Stand], monkeypatch: pytest.MonkeyPatch) -> None:
    """Samples that waited for the same monitor ask all others at the same moment: whom they find busy is none that is stuck."""
    monkeypatch.setattr(sampler, "PATIENCE", 0.0)
    monkeypatch.setattr(sampler, "STUCK", 0.05)
    stand = build(vm_sample_interval=0.1)
    stand.run(VM)
    until(lambda: stand.stats(VM)["monitorResponse"] == "0", 60)
    gate = stand.libvirt.gates["statistics"] = threading.Event()
    asked = len(stand.libvirt.calls("statistics"))
    until(lambda: len(stand.libvirt.calls("statistics")) >= asked + 3, 60)
    stand.inside(stand.driver._sampler.stop)
    began = stand.inside(lambda: list(stand.driver._sampler._waiting))
    until(lambda: time.monotonic() - max(began) > 2 * sampler.STUCK, 60)
    stand.libvirt.silent = {VM}
    gate.set()
    stand.calm()
    assert stand.stats(VM)["monitorResponse"] == "0"
