"""What is heard is a hint, what is seen decides, and a machine is Down only when libvirt says that its domain is gone."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Callable
from typing import Any

import pytest

from drivers.errors import DriverError, Failed, NoSuchVm
from drivers.vm import watch
from drivers.vm.contract import (
    ADMIN_SHUTDOWN,
    HOST_SHUTDOWN,
    LOST_QEMU,
    MIGRATED,
    MISSING,
    SAVED,
    USER_SHUTDOWN,
    Ending,
)
from drivers.vm.endings import Notes, ending_of
from drivers.vm.hypervisor import events as libvirt_events
from drivers.vm.hypervisor.link import Seen
from drivers.vm.machine import Machine, Shutdown
from state.children import Exit
from tests.drivers.vm.conftest import OTHER, VM
from tests.drivers.vm.fake import FakeLibvirt
from tests.drivers.vm.stand import Stand
from tests.until import until

pytestmark = pytest.mark.slow

PLAN = Shutdown(press_at=0, patience=60)
REBOOT = Shutdown(press_at=0, patience=60, reboot=True)


@pytest.mark.parametrize(
    ("heard", "asked", "by_host", "exit_code", "ending"),
    [
        (USER_SHUTDOWN, None, False, 0, USER_SHUTDOWN),
        (USER_SHUTDOWN, PLAN, False, 0, ADMIN_SHUTDOWN),
        (USER_SHUTDOWN, REBOOT, False, 0, USER_SHUTDOWN),
        (USER_SHUTDOWN, None, True, 0, HOST_SHUTDOWN),
        (HOST_SHUTDOWN, None, False, -9, HOST_SHUTDOWN),
        (HOST_SHUTDOWN, PLAN, False, 0, ADMIN_SHUTDOWN),
        (LOST_QEMU, None, False, -9, LOST_QEMU),
        (LOST_QEMU, PLAN, False, -9, LOST_QEMU),
        (LOST_QEMU, None, False, None, LOST_QEMU),
        (LOST_QEMU, None, False, 0, HOST_SHUTDOWN),
        (LOST_QEMU, PLAN, False, 0, ADMIN_SHUTDOWN),
        (MIGRATED, None, False, 0, MIGRATED),
        (SAVED, None, False, 0, SAVED),
        (None, None, False, 0, MISSING),
        (None, None, False, -9, LOST_QEMU),
        (None, PLAN, False, 0, ADMIN_SHUTDOWN),
    ],
)
def test_why_it_ended(
    heard: Ending | None, asked: Shutdown | None, by_host: bool, exit_code: int | None, ending: Ending
) -> None:
    machine = Machine(vm_id=VM, conf={}, shutdown=asked)
    assert ending_of(machine, Notes(started=True, ending=heard, by_host=by_host, exit_code=exit_code)) is ending


def ended(stand: Stand, vm_id: str = VM) -> tuple[int, int]:
    stats = stand.await_status(vm_id, "Down")
    return stats["exitCode"], stats["exitReason"]


def test_the_guest_shuts_down(stand: Stand) -> None:
    stand.run(VM)
    stand.libvirt.end(VM)
    assert ended(stand) == (0, 7)


def test_qemu_dies(stand: Stand) -> None:
    stand.run(VM)
    stand.libvirt.crash(VM)
    assert ended(stand) == (1, 2)


def test_a_look_that_is_quicker_than_the_event_waits_for_the_reason(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "EVENT_GRACE", 600.0)
    stand.run(VM)
    stand.libvirt.events_held = []
    stand.libvirt.end(VM)
    machine = stand.inside(lambda: stand.driver._machines.get(VM))
    looks = len(stand.libvirt.calls("observe"))
    stand.inside(lambda: stand.driver._watch.look(machine))
    until(lambda: len(stand.libvirt.calls("observe")) > looks)
    stand.calm()
    stand.libvirt.deliver()
    assert ended(stand) == (0, 7)


def test_a_domain_that_vanishes_without_a_word_is_missing(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "EVENT_GRACE", 0.05)
    stand.run(VM)
    stand.libvirt.domains.clear()
    stand.libvirt.tell(VM, "changed", None)
    assert ended(stand) == (1, 9)


def test_news_of_a_predecessor_do_not_touch_its_successor(stand: Stand) -> None:
    stand.run(VM)
    stand.libvirt.events_held = []
    stand.destroy(VM)
    held, stand.libvirt.events_held = stand.libvirt.events_held, None
    assert [what for _, what, _ in held] == ["stopped"]
    stand.run(VM)
    # The old one's end arrives, and libvirt is not quick to answer either.
    for event in held:
        stand.libvirt.tell(*event)
    stand.calm()
    assert stand.status(VM) == "Up"


def test_news_of_a_predecessor_do_not_touch_a_successor_that_is_being_started(stand: Stand) -> None:
    stand.run(VM)
    stand.libvirt.events_held = []
    stand.destroy(VM)
    gate = stand.libvirt.gates[VM] = threading.Event()
    stand.create(VM)
    stand.await_status(VM, "Powering up")
    stand.libvirt.deliver()
    stand.inside(lambda: None)
    assert stand.status(VM) == "Powering up"
    gate.set()
    stand.await_status(VM, "Up")
    stand.calm()
    # Nor is its own end explained by the old one's.
    stand.libvirt.end(VM)
    assert ended(stand) == (0, 7)


def test_a_look_of_a_predecessor_does_not_touch_its_successor(stand: Stand) -> None:
    stand.run(VM)
    old = stand.inside(lambda: stand.driver._machines.get(VM))
    stand.destroy(VM)
    stand.run(VM)
    stand.inside(lambda: stand.driver._watch._looked(old, None, None))
    stand.calm()
    assert stand.status(VM) == "Up"


@pytest.mark.parametrize(
    ("seen", "status", "code"),
    [(Seen(True), "Paused", "NOERR"), (Seen(True, "ENOSPC"), "Paused", "ENOSPC"), (Seen(True, "EIO"), "Paused", "EIO")],
)
def test_paused_by_itself_and_back(stand: Stand, seen: Seen, status: str, code: str) -> None:
    stand.run(VM)
    stand.libvirt.change(VM, seen)
    assert stand.await_status(VM, status)["pauseCode"] == code
    stand.libvirt.change(VM, Seen(False))
    assert "pauseCode" not in stand.await_status(VM, "Up")


def test_what_an_event_said_of_an_error_is_more_exact(stand: Stand) -> None:
    stand.run(VM)
    stand.libvirt.tell(VM, "io-error", "EOTHER")
    stand.libvirt.change(VM, Seen(True, "EIO"))
    assert stand.await_status(VM, "Paused")["pauseCode"] == "EOTHER"


def test_clock_and_watchdog(stand: Stand) -> None:
    stand.run(VM)
    stand.libvirt.tell(VM, "clock", 3600)
    stand.libvirt.tell(VM, "watchdog", "reset")
    stand.calm()
    stats = stand.stats(VM)
    assert stats["timeOffset"] == "3600"
    event = stats["watchdogEvent"]
    assert event.keys() == {"time", "action"}
    assert (type(event["time"]), event["action"]) == (float, "reset")


def test_what_is_heard_while_a_machine_is_started_stays(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    known = stand.libvirt.known

    def slowly(vm_id: str, conf: dict[str, Any]) -> tuple[dict[str, Any], int]:
        stand.libvirt.tell(vm_id, "clock", 3600)
        stand.libvirt.tell(vm_id, "watchdog", "pause")
        return known(vm_id, conf)

    monkeypatch.setattr(stand.libvirt, "known", slowly)
    stand.run(VM)
    shown = stand.driver.list_full([VM])[0]
    assert (shown["timeOffset"], shown["known"]) == ("3600", True)
    assert stand.stats(VM)["watchdogEvent"]["action"] == "pause"


def test_what_is_heard_of_a_predecessor_is_not_of_the_one_that_is_started(stand: Stand) -> None:
    gate = stand.libvirt.gates[VM] = threading.Event()
    stand.create(VM)
    stand.await_status(VM, "Powering up")
    stand.libvirt.tell(VM, "clock", 3600)
    gate.set()
    stand.await_status(VM, "Up")
    stand.calm()
    assert stand.stats(VM)["timeOffset"] == "0"


def test_the_contract_knows_every_action_of_a_watchdog() -> None:
    words = [libvirt_events._watchdog(action)[1] for action in range(8)]
    assert words == ["ignore", "pause", "reset", "destroy", "shutdown", "log", "ignore", "ignore"]


def test_a_machine_that_cannot_be_seen_is_not_down(stand: Stand) -> None:
    stand.run(VM)
    stand.libvirt.down = "it went away"
    stand.libvirt.tell(VM, "changed", None)
    stand.calm()
    assert stand.status(VM) == "Up"
    stand.inside(lambda: stand.driver._connection.lost("it went away"))
    assert (stand.status(VM), stand.stats(VM)["monitorResponse"]) == ("Up", "-1")
    assert stand.driver.link_status() == "not connected: it went away"
    stand.libvirt.down = ""
    until(lambda: stand.stats(VM)["monitorResponse"] == "0", 60)
    assert stand.status(VM) == "Up"


def test_who_only_waited_for_its_turn_says_nothing_of_the_monitor(build: Callable[..., Stand]) -> None:
    """A look that comes behind long work on the machine is given up, and that is not the monitor's fault."""
    stand = build(vm_command_timeout=0.05)
    stand.run(VM)
    go_on = threading.Event()
    outcome = stand.deed(VM, lambda: go_on.wait(60))
    stand.inside(lambda: stand.driver._watch.look(stand.driver._machines.get(VM)))
    answered: list[Exception | None] = []
    stand.workers.submit(lambda: None, lambda _, error: answered.append(error), key=VM, timeout=0.1)
    until(lambda: answered, 60)  # that came after the look, and was given up after it
    assert stand.stats(VM)["monitorResponse"] == "0"
    go_on.set()
    until(lambda: outcome, 60)
    stand.calm()


def test_a_sample_that_lacks_a_machine_has_it_looked_for(
    build: Callable[..., Stand], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "EVENT_GRACE", 0.05)
    stand = build(vm_sample_interval=0.1)
    stand.run(VM)
    stand.libvirt.domains.clear()
    assert ended(stand) == (1, 9)


def test_domains_of_ours_that_are_not_on_record_are_taken_in_and_others_left_alone(
    build: Callable[..., Stand],
) -> None:
    libvirt = FakeLibvirt()
    libvirt.domains = {VM: Seen(False), OTHER: Seen(True)}
    libvirt.ours = {VM}
    stand = build(libvirt)
    stand.calm()
    assert stand.driver.list_short([]) == [{"vmId": VM, "status": "Up"}]
    assert not {"destroy", "suspend", "resume"} & {call for call, _ in libvirt.asked}


def test_a_recovery_believes_libvirt_and_only_libvirt(build: Callable[..., Stand]) -> None:
    first = build()
    first.run(VM)
    first.run(OTHER)
    first.stop()
    libvirt = FakeLibvirt()
    libvirt.down = "not yet"
    second = build(libvirt)
    until(lambda: libvirt.opened, 60)
    second.calm()
    assert second.driver.list_short([VM, OTHER]) == [{"vmId": VM, "status": "Up"}, {"vmId": OTHER, "status": "Up"}]
    assert second.stats(VM)["monitorResponse"] == "-1"
    libvirt.domains = {VM: Seen(True)}
    libvirt.down = ""
    assert ended(second, OTHER) == (1, 9)
    assert second.status(VM) == "Paused"
    assert libvirt.domains == {VM: Seen(True)}


def test_verbs_wait_with_a_recovery_until_libvirt_has_told(build: Callable[..., Stand]) -> None:
    first = build()
    assert first.driver.recovering == ""
    first.run(VM)
    first.stop()
    second = build(first.libvirt)
    until(lambda: not second.driver.recovering)
    assert second.status(VM) == "Up"


def test_a_start_that_a_crash_interrupted_is_down(build: Callable[..., Stand]) -> None:
    first = build()
    gate = first.libvirt.gates[VM] = threading.Event()
    first.libvirt.refuses[VM] = Failed(action="starting", reason="killed")
    first.create(VM)
    first.await_status(VM, "Powering up")
    kept = first.host.checkpoints.below("vm").read(VM)
    assert kept is not None
    gate.set()
    first.stop()
    first.host.checkpoints.below("vm").write(VM, kept)
    second = build()
    assert ended(second) == (1, 3)


def test_one_that_waited_when_the_daemon_crashed_is_started(build: Callable[..., Stand]) -> None:
    first = build(settle=True)
    first.create(VM)
    first.stop()
    second = build()
    second.await_status(VM, "Up")


def test_what_libvirt_lost_is_given_back_when_it_lived_in_our_memory(build: Callable[..., Stand]) -> None:
    from drivers.vm.hypervisor.kinds import Hypervisor

    row = Hypervisor(prefix="fake:///", volatile=True, consoles=False, channels=False)
    first = build(FakeLibvirt(row))
    first.run(VM)
    first.run(OTHER)
    first.does(VM, lambda: first.driver.deeds.pause(VM))
    left = first.stop()
    second = build(FakeLibvirt(row), left=left)
    until(lambda: second.libvirt.domains == {VM: Seen(True), OTHER: Seen(False)})
    second.calm()
    assert (second.status(VM), second.status(OTHER)) == ("Paused", "Up")
    third = build(FakeLibvirt(row))
    assert ended(third) == (1, 9)  # after a crash there is nothing to give back


def test_what_happens_while_libvirt_is_being_listed_is_not_missed(build: Callable[..., Stand]) -> None:
    first = build()
    first.run(VM)
    left = first.stop()

    class Late(FakeLibvirt):
        """A guest ends between the listing and the moment in which the daemon knows that it is connected."""

        def observe_all(self) -> dict[str, Seen]:
            listed = super().observe_all()
            self.end(VM)
            return listed

    late = Late()
    late.domains = {VM: Seen(False)}
    second = build(late, left=left)
    assert ended(second) == (0, 7)


def test_one_that_exits_in_order_was_not_lost(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    """libvirt did not read QEMU's last words: how it exited is waited for, and tells."""
    monkeypatch.setattr(watch, "EVENT_GRACE", 600.0)
    stand.run(VM)
    machine = stand.driver._machines.get(VM)
    with subprocess.Popen(["sh", "-c", "read line; exit 0"], stdin=subprocess.PIPE) as qemu:
        stand.inside(lambda: stand.driver._watch.adopt(machine, qemu.pid))
        stand.libvirt.end(VM, LOST_QEMU)
        stand.calm()
        assert stand.status(VM) == "Up"
        assert qemu.stdin is not None
        qemu.stdin.close()
        assert ended(stand) == (0, 6)


def test_an_end_that_is_noticed_without_libvirt_is_looked_at_when_it_comes(
    build: Callable[..., Stand], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "EVENT_GRACE", 0.05)
    libvirt = FakeLibvirt()
    stand = build(libvirt)
    stand.run(VM)
    libvirt.down = "it went away"
    stand.inside(lambda: stand.driver._connection.lost("it went away"))
    machine = stand.driver._machines.get(VM)
    stand.inside(lambda: stand.driver._watch._exited(machine, Exit(name="qemu", pid=1, code=-9)))

    def stale() -> dict[str, Seen]:
        """The listing of a libvirt that has not noticed yet."""
        listed = FakeLibvirt.observe_all(libvirt)
        libvirt.domains.clear()
        return listed

    libvirt.observe_all = stale  # type: ignore[method-assign]
    libvirt.down = ""
    assert ended(stand) == (1, 2)


def test_a_connection_that_cannot_list_is_closed(build: Callable[..., Stand], monkeypatch: pytest.MonkeyPatch) -> None:
    libvirt = FakeLibvirt()
    libvirt.domains = {VM: Seen(False)}
    answers: list[bool | DriverError] = [Failed(action="listing", reason="it is upset"), NoSuchVm()]

    def is_ours(_vm_id: str) -> bool:
        answer = answers.pop(0)
        if isinstance(answer, DriverError):
            raise answer
        return answer

    monkeypatch.setattr(libvirt, "is_ours", is_ours)
    stand = build(libvirt)
    until(lambda: stand.driver.link_status().startswith("connected"), 60)
    # The second time the stranger has ended since it was listed: it is none of ours, and no reason to fail.
    assert (libvirt.opened, libvirt.closed, stand.driver.list_short([])) == (2, 1, [])


def test_a_domain_that_cannot_be_taken_in_holds_up_nothing(build: Callable[..., Stand]) -> None:
    libvirt = FakeLibvirt()
    libvirt.domains = {VM: Seen(False)}
    libvirt.ours = {VM}
    stand = build(libvirt, settle=True)
    stand.calm()
    stand.inside(lambda: stand.driver._watch.take_in(libvirt, VM, Seen(False)))  # type: ignore[arg-type]
    assert stand.driver.list_short([]) == [{"vmId": VM, "status": "Up"}]


def test_nothing_is_kept_of_machines_that_are_gone(stand: Stand) -> None:
    stand.run(VM)
    stand.run(OTHER)
    stand.libvirt.end(VM)
    stand.await_status(VM, "Down")
    stand.destroy(VM)
    stand.destroy(OTHER)
    stand.calm()
    assert stand.driver._watch._notes == {}
    assert stand.driver.works.button._timers == {}
