"""What is asked of machines happens, or is refused with a meaning; a re-exec finds a safe moment between."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from drivers.errors import (
    Busy,
    DestroyFailed,
    DriverError,
    Failed,
    HypervisorDown,
    IllegalMove,
    Invalid,
    MissingParameter,
    NoSuchVm,
    NotResponding,
    NoWayToShutDown,
    TicketFailed,
    VmExists,
)
from drivers.vm.contract import AGENT_CHANNELS, Identity, channel, no_room
from drivers.vm.hypervisor.kinds import Hypervisor
from drivers.vm.hypervisor.link import Seen
from drivers.vm.launcher import ATTEMPTS
from tests.drivers.vm.conftest import OTHER, VM
from tests.drivers.vm.fake import FakeLibvirt
from tests.drivers.vm.stand import Stand
from tests.until import until


def test_create_answers_at_once_and_launches(stand: Stand) -> None:
    shown = stand.create(VM, vmName="one")
    assert (shown["status"], shown["vmName"], shown["memSize"]) == ("WaitForLaunch", "one", 64)
    stand.await_status(VM, "Up")
    assert stand.driver.list_full([VM])[0]["known"] is True


@pytest.mark.parametrize(
    ("params", "error"),
    [
        ({"memSize": 64}, MissingParameter),
        ({"vmId": VM}, MissingParameter),
        ({"vmId": "nonsense", "memSize": 64}, Invalid),
    ],
)
def test_bad_parameters_change_nothing(stand: Stand, params: dict[str, object], error: type[DriverError]) -> None:
    with pytest.raises(error):
        stand.driver.deeds.create(params)
    assert (stand.driver.list_short([]), stand.checkpoints) == ([], [])


def test_an_id_that_is_taken(stand: Stand) -> None:
    stand.run(VM)
    with pytest.raises(VmExists):
        stand.create(VM.upper())
    assert stand.status(VM) == "Up"


def test_a_machine_that_does_not_start_is_down_and_says_why(stand: Stand) -> None:
    stand.libvirt.refuses[VM] = Failed(action="starting", reason="no such disk")
    stand.create(VM)
    stats = stand.await_status(VM, "Down")
    assert (stats["exitCode"], stats["exitReason"]) == (1, 3)
    assert stats["exitMessage"] == "starting failed: no such disk"
    stand.destroy(VM)
    assert stand.driver.list_short([]) == []


@pytest.mark.parametrize(("times", "status"), [(ATTEMPTS - 1, "Up"), (ATTEMPTS, "Down")])
def test_a_start_that_lost_the_race_for_a_port_is_repeated(
    stand: Stand, monkeypatch: pytest.MonkeyPatch, times: int, status: str
) -> None:
    create, left = stand.libvirt.create, [Busy(what="a port", reason="taken")] * times

    def contended(xml: str, *, paused: bool = False) -> Seen:
        if left:
            raise left.pop()
        return create(xml, paused=paused)

    monkeypatch.setattr(stand.libvirt, "create", contended)
    stand.create(VM)
    stand.await_status(VM, status)
    assert not left


def test_what_nobody_foresaw_is_down_too(stand: Stand) -> None:
    stand.libvirt.definition = None  # type: ignore[method-assign, assignment]
    stand.create(VM)
    assert stand.await_status(VM, "Down")["exitReason"] == 3


def test_few_are_started_at_once_and_all_in_the_end(stand: Stand) -> None:
    vm_ids = [f"{n:08d}-1111-4111-8111-111111111111" for n in range(9)]
    for vm_id in vm_ids:
        stand.libvirt.gates[vm_id] = threading.Event()
        stand.create(vm_id)
    until(lambda: len(stand.libvirt.calls("create")) == 4)
    stand.inside(lambda: None)
    assert sorted(stand.driver.statuses()) == ["Powering up"] * 4 + ["WaitForLaunch"] * 5
    for gate in stand.libvirt.gates.values():
        gate.set()
    until(lambda: stand.driver.statuses() == ["Up"] * 9, 60)


def test_nothing_is_started_while_a_reexec_is_wanted(build: Callable[..., Stand]) -> None:
    first = build()
    first.inside(first.driver.settle)
    first.create(VM)
    first.calm()
    assert (first.status(VM), first.unsafe(), first.libvirt.calls("create")) == ("WaitForLaunch", None, [])
    first.inside(first.driver.resume)
    first.await_status(VM, "Up")
    first.inside(first.driver.settle)
    first.create(OTHER)
    first.calm()
    second = build(first.libvirt, left=first.stop())
    second.await_status(OTHER, "Up")


def test_a_reexec_waits_for_starts(stand: Stand) -> None:
    gate = stand.libvirt.gates[VM] = threading.Event()
    stand.create(VM)
    until(lambda: stand.unsafe() == f"virtual machines are being started: {VM}")
    gate.set()
    until(lambda: stand.unsafe() is None)


def test_what_waits_for_libvirt_is_started_when_it_comes(build: Callable[..., Stand]) -> None:
    libvirt = FakeLibvirt()
    libvirt.down = "not there"
    stand = build(libvirt)
    stand.create(VM)
    until(lambda: stand.driver.link_status() == "not connected: libvirt cannot be reached: not there")
    assert stand.status(VM) == "WaitForLaunch"
    libvirt.down = ""
    stand.await_status(VM, "Up")


def test_libvirt_is_tried_in_one_chain(build: Callable[..., Stand]) -> None:
    libvirt = FakeLibvirt()
    libvirt.down = "not there"
    stand = build(libvirt)
    until(lambda: stand.driver.link_status().startswith("not connected: libvirt"), 60)
    waiting = stand.inside(lambda: stand.driver._connection._timer)
    stand.inside(stand.driver.start)  # a re-exec was refused
    assert waiting.cancelled


def test_without_libvirt_a_running_machine_is_not_touched(stand: Stand) -> None:
    stand.run(VM)
    stand.libvirt.down = "it went away"
    stand.inside(lambda: stand.driver._connection.lost("it went away"))
    for deed in (stand.driver.deeds.pause, stand.driver.deeds.cont, stand.driver.deeds.destroy):
        with pytest.raises(HypervisorDown):
            deed(VM)
    assert stand.status(VM) == "Up"


def test_destroy(stand: Stand) -> None:
    stand.run(VM)
    stand.destroy(VM)
    assert (stand.libvirt.domains, stand.driver.list_short([]), stand.checkpoints) == ({}, [], [])
    with pytest.raises(NoSuchVm):
        stand.destroy(VM)


def test_destroy_of_one_that_waits(build: Callable[..., Stand]) -> None:
    stand = build(settle=True)
    stand.create(VM)
    stand.destroy(VM)
    stand.inside(stand.driver.resume)
    stand.calm()
    assert (stand.driver.list_short([]), stand.libvirt.calls("create")) == ([], [])


def test_destroy_of_one_that_is_being_started(stand: Stand) -> None:
    gate = stand.libvirt.gates[VM] = threading.Event()
    stand.create(VM)
    until(lambda: stand.libvirt.calls("create"))
    outcome = stand.deed(VM, lambda: stand.driver.deeds.destroy(VM))
    gate.set()
    until(lambda: outcome == [None])
    stand.calm()
    assert (stand.driver.list_short([]), stand.libvirt.domains, stand.unsafe()) == ([], {}, None)
    stand.run(VM)


def test_destroy_that_fails_forgets_nothing(stand: Stand) -> None:
    stand.run(VM)
    stand.libvirt.refuses[VM] = Failed(action="destroying", reason="it will not die")
    with pytest.raises(DestroyFailed, match="it will not die"):
        stand.destroy(VM)
    assert (stand.status(VM), stand.checkpoints) == ("Up", [VM])


def test_pause_and_cont_show_at_once(stand: Stand) -> None:
    stand.run(VM)
    stand.libvirt.events_held = []
    stand.does(VM, lambda: stand.driver.deeds.pause(VM))
    assert (stand.status(VM), stand.libvirt.domains[VM]) == ("Paused", Seen(True))
    stand.does(VM, lambda: stand.driver.deeds.cont(VM))
    assert (stand.status(VM), stand.libvirt.domains[VM]) == ("Up", Seen(False))
    stand.does(VM, lambda: stand.driver.deeds.cont(VM))
    stand.libvirt.deliver()
    stand.calm()
    assert stand.status(VM) == "Up"


def test_what_one_that_is_down_refuses(stand: Stand) -> None:
    stand.run(VM)
    stand.libvirt.end(VM)
    stand.await_status(VM, "Down")
    with pytest.raises(Failed, match="Down"):
        stand.driver.deeds.cont(VM)
    deeds: list[Callable[[], object]] = [
        lambda: stand.driver.deeds.pause(VM),
        lambda: stand.driver.deeds.set_ticket(VM, "x", 1, "keep"),
        lambda: stand.driver.deeds.shutdown(VM, delay=0, patience=1, reboot=False, force=True),
    ]
    for deed in deeds:
        with pytest.raises(NoSuchVm):
            deed()


def test_one_that_waits_cannot_be_paused_or_shut_down(build: Callable[..., Stand]) -> None:
    stand = build(settle=True)
    stand.create(VM)
    with pytest.raises(IllegalMove):
        stand.driver.deeds.pause(VM)
    with pytest.raises(IllegalMove):
        stand.driver.deeds.shutdown(VM, delay=0, patience=1, reboot=False, force=False)


def test_a_stuck_monitor_holds_up_its_own_machine_only(stand: Stand) -> None:
    stand.run(VM)
    stand.run(OTHER)
    gate = stand.libvirt.gates[VM] = threading.Event()
    stuck = stand.deed(VM, lambda: stand.driver.deeds.pause(VM), timeout=0.2)
    stand.does(OTHER, lambda: stand.driver.deeds.pause(OTHER))
    until(lambda: stuck)
    assert isinstance(stuck[0], NotResponding)
    assert (stand.status(OTHER), stand.status(VM)) == ("Paused", "Up")
    gate.set()
    stand.await_status(VM, "Paused")


def test_tickets(stand: Stand) -> None:
    stand.run(VM)
    stand.driver.deeds.set_ticket(VM, "secret", 30, "keep")
    assert stand.libvirt.asked[-1] == ("ticket secret 30 keep", VM)
    stand.libvirt.refuses[VM] = Failed(action="setting a ticket", reason="no display")
    with pytest.raises(TicketFailed, match="no display"):
        stand.driver.deeds.set_ticket(VM, "secret", 30, "keep")


def test_a_ticket_for_one_that_is_not_there_yet(build: Callable[..., Stand]) -> None:
    stand = build(settle=True)
    stand.libvirt.refuses[VM] = NoSuchVm()
    stand.create(VM)
    until(lambda: stand.driver.link_status().startswith("connected"), 60)
    with pytest.raises(TicketFailed, match="not been started yet"):
        stand.driver.deeds.set_ticket(VM, "secret", 30, "keep")


# What a start is given


def test_guests_are_told_of_their_host(build: Callable[..., Stand]) -> None:
    stand = build(qemu_drive_cache="writeback", default_bridge="br7")
    host = Identity(host_uuid="a", os_name="b", os_version="c")
    stand.driver.identify = lambda: host
    stand.create(VM, macAddr="00:1a:4a:16:01:51")
    stand.await_status(VM, "Up")
    given = stand.libvirt.definitions[VM]
    assert (given["identity"], given["drive_cache"]) == (host, "writeback")
    assert [nic["network"] for nic in given["devices"] if nic["type"] == "interface"] == ["br7"]


@pytest.mark.parametrize(("asked", "paused"), [("TRUE", True), (True, True), ("1", False), ("yes", False)])
def test_only_true_says_yes(stand: Stand, asked: object, paused: bool) -> None:
    stand.create(VM, launchPaused=asked, acpiEnable=asked)
    stand.await_status(VM, "Paused" if paused else "Up")
    if not paused:
        with pytest.raises(NoWayToShutDown):
            shut_down(stand)


CHANNELS = Hypervisor(prefix="fake:///", consoles=False)


@pytest.mark.parametrize(("length", "fits"), [(38, True), (39, False)])
def test_sockets_of_channels_must_fit(length: int, fits: bool) -> None:
    folder = "/".ljust(length, "x") + "/channels"
    with socket.socket(socket.AF_UNIX) as probe, pytest.raises(OSError, match="No such file" if fits else "too long"):
        probe.connect(channel(folder, VM, max(AGENT_CHANNELS, key=len)))
    assert (no_room(folder) == "") is fits


def test_channels_that_do_not_fit_are_told_at_the_start_and_of_each_machine(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    base = tmp_path / ("long" * 20)
    base.mkdir()
    stand = Stand(base, FakeLibvirt(CHANNELS))
    try:
        until(lambda: stand.driver.link_status().startswith("connected"), 60)
        stand.calm()
        assert "run_dir" in caplog.text
        stand.create(VM)
        found = stand.await_status(VM, "Down")
        assert found["exitReason"] == 3
        assert "[paths] run_dir" in found["exitMessage"]
        assert stand.libvirt.calls("create") == []
    finally:
        stand.stop()


def test_whether_it_has_started_is_looked_at_when_the_connection_broke_meanwhile(stand: Stand) -> None:
    stand.libvirt.refuses[VM] = HypervisorDown(reason="it broke")
    stand.create(VM)
    found = stand.await_status(VM, "Down")
    assert found["exitReason"] == 3
    assert "interrupted" in found["exitMessage"]
    assert stand.libvirt.opened == 2


# The power button


def shut_down(
    stand: Stand, *, delay: float = 0, patience: float = 3600, reboot: bool = False, force: bool = False
) -> None:
    stand.does(
        VM,
        lambda: stand.driver.deeds.shutdown(VM, delay=delay, patience=patience, reboot=reboot, force=force),
    )


def test_a_guest_that_heeds_the_button(stand: Stand) -> None:
    stand.run(VM)
    shut_down(stand)
    assert (stand.status(VM), stand.libvirt.calls("press")) == ("Powering down", [VM])
    stand.libvirt.tell(VM, "changed", None)
    stand.calm()
    assert stand.status(VM) == "Powering down"
    stand.libvirt.end(VM)
    assert stand.await_status(VM, "Down")["exitReason"] == 6


def test_a_guest_that_does_not_is_left_running(stand: Stand) -> None:
    stand.run(VM)
    shut_down(stand, patience=0.05)
    stand.await_status(VM, "Up")
    assert stand.libvirt.calls("destroy") == []
    # What happens to it later has nothing to do with that any more.
    stand.libvirt.end(VM)
    assert stand.await_status(VM, "Down")["exitReason"] == 7


def test_a_guest_that_does_not_is_forced_if_that_was_asked_for(stand: Stand) -> None:
    stand.run(VM)
    shut_down(stand, patience=0.05, force=True)
    stats = stand.await_status(VM, "Down")
    assert (stats["exitCode"], stats["exitReason"], stand.libvirt.calls("press")) == (0, 6, [VM])


def test_a_button_pressed_later(stand: Stand) -> None:
    stand.run(VM)
    before = time.monotonic()
    shut_down(stand, delay=0.2)
    assert stand.status(VM) == "Powering down"
    until(lambda: stand.libvirt.calls("press") == [VM])
    assert time.monotonic() >= before + 0.2


def test_a_shutdown_goes_on_over_a_reexec(build: Callable[..., Stand]) -> None:
    first = build()
    first.run(VM)
    shut_down(first, delay=3600, patience=3600, force=True)
    left = first.stop()
    plan = left.machines[0].shutdown
    assert plan is not None
    left.machines[0].shutdown = type(plan)(press_at=0, patience=0, force=True)
    second = build(first.libvirt, left=left)
    assert second.await_status(VM, "Down")["exitReason"] == 6


def test_reboot(stand: Stand) -> None:
    stand.run(VM)
    shut_down(stand, reboot=True)
    assert (stand.status(VM), stand.libvirt.calls("reboot")) == ("RebootInProgress", [VM])
    stand.libvirt.tell(VM, "rebooted", None)
    stand.await_status(VM, "Up")
    shut_down(stand, reboot=True, patience=0.05, force=True)
    stand.await_status(VM, "Up")
    assert stand.libvirt.calls("reset") == [VM]


def test_no_button_and_no_force_is_no_way(stand: Stand) -> None:
    stand.create(VM, acpiEnable="false")
    stand.await_status(VM, "Up")
    with pytest.raises(NoWayToShutDown):
        shut_down(stand)
    assert stand.status(VM) == "Up"
    shut_down(stand, force=True)
    assert stand.await_status(VM, "Down")["exitReason"] == 6
    assert stand.libvirt.calls("press") == []


def test_a_paused_guest_does_not_hear_the_button(stand: Stand) -> None:
    stand.run(VM)
    stand.does(VM, lambda: stand.driver.deeds.pause(VM))
    with pytest.raises(Failed, match="not running"):
        shut_down(stand)
    stand.await_status(VM, "Paused")
    shut_down(stand, force=True)
    stats = stand.await_status(VM, "Down")
    assert (stats["exitCode"], stats["exitReason"]) == (0, 6)


def test_a_paused_guest_is_forced_when_its_time_comes(stand: Stand) -> None:
    stand.run(VM)
    stand.does(VM, lambda: stand.driver.deeds.pause(VM))
    shut_down(stand, delay=0.05, force=True)
    assert stand.await_status(VM, "Down")["exitReason"] == 6
    assert stand.libvirt.calls("press") == [VM]


def test_a_button_is_pressed_once_when_libvirt_comes_back(stand: Stand) -> None:
    stand.run(VM)
    shut_down(stand, delay=3600)
    stand.libvirt.down = "it went away"
    stand.inside(lambda: stand.driver._connection.lost("it went away"))
    machine = stand.driver._machines.get(VM)
    plan = machine.shutdown
    assert plan is not None
    stand.inside(lambda: stand.driver.works.button._due(machine, plan))
    waiting = stand.driver.works.button._timers[VM]
    stand.inside(lambda: stand.driver.works.button.arm(machine))  # a re-exec was refused
    assert (waiting.cancelled, list(stand.driver.works.button._timers)) == (True, [VM])


def test_a_button_that_cannot_be_pressed_is_told(stand: Stand) -> None:
    stand.run(VM)
    stand.libvirt.refuses[VM] = Failed(action="pressing the power button", reason="broken")
    with pytest.raises(Failed, match="broken"):
        shut_down(stand)
    assert stand.status(VM) == "Up"
