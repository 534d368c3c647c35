"""The driver and the agents in its guests: connections, what they are asked, and what outlives an exec."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from drivers.errors import NoSuchVm, NotResponding, NoWayToShutDown
from drivers.vm.agents.channel import LONGEST
from drivers.vm.hypervisor.link import Seen
from tests.drivers.vm.agents.inside import NAME, Inside, Libvirt, Place, line
from tests.drivers.vm.agents.test_messages import BROKEN
from tests.drivers.vm.conftest import OTHER, VM
from tests.until import until

pytestmark = pytest.mark.slow

Start = Callable[..., Place]

SILENT = {"username": "Unknown", "session": "Unknown", "guestIPs": "", "memUsage": "0", "guestCPUCount": -1}
BEAT = line("heartbeat", **{"free-ram": 32, "memory-stat": {"mem_free": "1"}})


def tell(place: Place, kind: str, **fields: Any) -> None:
    place.inside(lambda: place.driver.agents.tell(VM, kind, **fields))


def alive(place: Place, inside: Inside) -> None:
    """Have the agent be known to be there."""
    inside.say(BEAT)
    place.says(VM, memUsage="50")


# The connection


def test_a_guest_that_has_said_nothing(place: Place) -> None:
    place.says(VM, **SILENT)
    assert "guestName" not in place.stats(VM)


def test_what_a_guest_says_is_seen(place: Place, inside: Inside) -> None:
    inside.say(BEAT + line("host-name", name="x"))
    place.says(VM, guestName="x", memUsage="50", memoryStats={"mem_free": "1"})


@pytest.mark.parametrize("broken", BROKEN)
def test_a_guest_that_talks_nonsense_is_heard_afterwards(place: Place, inside: Inside, broken: str) -> None:
    inside.say(BROKEN[broken] + b"\n" + line("host-name", name="x"))
    place.says(VM, guestName="x")


def test_nonsense_does_not_fill_the_log(place: Place, inside: Inside, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "guest"):
        inside.say(b"nonsense\n" * 500 + line("host-name", name="x"))
        place.says(VM, guestName="x")
    assert len(caplog.records) == 9


@pytest.mark.slow
def test_an_endless_line_is_thrown_away(place: Place, inside: Inside) -> None:
    inside.say(b"x" * (LONGEST + LONGEST // 2) + b"\n" + line("host-name", name="x"))
    place.says(VM, guestName="x")


@pytest.mark.slow
def test_it_connects_again_and_again(place: Place, inside: Inside) -> None:
    for name in ("one", "two", "three"):
        alive(place, inside)
        inside.say(line("host-name", name=name) + b'{"half')
        place.says(VM, guestName=name)
        inside.hang_up()
        inside.accept()
        assert inside.hears("refresh") == {"__name__": "refresh", "apiVersion": 3}
        with pytest.raises(NotResponding):
            tell(place, "lock-screen")
        place.says(VM, guestName=name)


def test_a_socket_that_comes_late_is_found(start: Start, base: Path) -> None:
    place = start()
    place.run(VM)
    inside = Inside(str(base / "run"), VM)
    try:
        inside.accept()
        inside.hears("refresh")
        assert place.host.fds.names() == [f"vm/{VM}/agent"]
    finally:
        inside.close()


def test_one_that_is_destroyed_is_let_go_and_forgotten(place: Place, inside: Inside, libvirt: Libvirt) -> None:
    inside.say(line("host-name", name="x"))
    place.says(VM, guestName="x")
    place.destroy(VM)
    place.run(VM)
    assert "guestName" not in place.stats(VM)
    until(lambda: inside.silent)
    inside.hang_up()
    inside.accept()
    inside.hears("refresh")


def test_one_that_ended_is_let_go(place: Place, inside: Inside, libvirt: Libvirt) -> None:
    libvirt.end(VM)
    inside.hang_up()
    place.await_status(VM, "Down")
    until(lambda: place.host.fds.names() == [])
    until(lambda: place.driver.agents._guests == {})


def test_what_is_not_ours_is_asked_of_root(start: Start, base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, Any]] = []

    class Root:
        def call(self, action: str, *, timeout: float | None = None, **arguments: Any) -> Any:
            asked.append({"action": action, **arguments})
            monkeypatch.setattr(socket.socket, "connect", connect)

    connect = socket.socket.connect

    def refuse(self: socket.socket, address: Any) -> None:
        if NAME in str(address):
            raise PermissionError(13, "Permission denied")
        connect(self, address)

    place = start(root=Root())
    inside = Inside(str(base / "run"), VM)
    try:
        monkeypatch.setattr(socket.socket, "connect", refuse)
        place.run(VM)
        inside.accept()
        assert asked == [{"action": "channel.admit", "vm_id": VM, "channel": NAME}]
    finally:
        inside.close()


# What agents are told


@pytest.mark.parametrize(("given", "agreed"), [(1, 1), (3, 3), (7, 3)])
def test_versions_are_agreed_upon_once(place: Place, inside: Inside, given: int, agreed: int) -> None:
    beat = line("heartbeat", apiVersion=given)
    inside.say(beat + beat + line("host-name", name="x"))
    place.says(VM, guestName="x")
    inside.hears("api-version")
    assert [m for m in inside.heard() if m["__name__"] == "api-version"] == [
        {"__name__": "api-version", "apiVersion": agreed}
    ]


def test_an_agent_that_starts_anew_is_told_the_version_again(place: Place, inside: Inside) -> None:
    beat = line("heartbeat", apiVersion=2)
    inside.say(beat + line("session-startup") + line("os-version", version="1") + beat + beat)
    until(lambda: [m["__name__"] for m in inside.heard()] == ["refresh", "api-version", "api-version"])


def test_older_agents_are_told_of_no_version(place: Place, inside: Inside) -> None:
    alive(place, inside)
    tell(place, "lock-screen")
    inside.hears("lock-screen")
    assert [m["__name__"] for m in inside.heard()] == ["refresh", "lock-screen"]


def test_only_an_agent_that_is_there_is_told(place: Place, inside: Inside) -> None:
    with pytest.raises(NotResponding):
        tell(place, "lock-screen")
    with pytest.raises(NoSuchVm):
        place.inside(lambda: place.driver.agents.tell(OTHER, "lock-screen"))
    alive(place, inside)
    tell(place, "login", username="a@b", password="c")
    assert inside.hears("login") == {"__name__": "login", "username": "a@b", "password": "c"}
    inside.say(line("uninstalled"))
    place.says(VM, memUsage="0")
    with pytest.raises(NotResponding):
        tell(place, "lock-screen")


def handshake(place: Place, inside: Inside, version: int) -> None:
    """Have the agent say which version of the protocol it speaks."""
    inside.say(line("heartbeat", apiVersion=version))
    until(lambda: place.inside(lambda: place.driver.agents._guests[VM].kept.report.api) == min(version, 3), 60)


def told_kinds(inside: Inside) -> list[str]:
    return [message["__name__"] for message in inside.heard()]


@pytest.mark.parametrize("version", [0, 1])
def test_an_agent_that_knows_of_processors_is_told_how_many_there_are(
    place: Place, inside: Inside, version: int
) -> None:
    alive(place, inside)
    handshake(place, inside, version)
    place.does(VM, lambda: place.driver.changes.resources.set_cpus(VM, 2))
    tell(place, "lock-screen")
    inside.hears("lock-screen")
    assert [m for m in inside.heard() if m["__name__"] == "set-number-of-cpus"] == [
        {"__name__": "set-number-of-cpus", "count": 2}
    ] * version


def test_a_change_of_processors_needs_no_agent(place: Place, inside: Inside) -> None:
    place.does(VM, lambda: place.driver.changes.resources.set_cpus(VM, 2))
    place.calm()
    assert told_kinds(inside) == ["refresh"]


def announce(place: Place) -> None:
    place.inside(lambda: place.driver.agents.announce(place.driver._machines.get(VM), "after_hibernation"))


def test_what_has_happened_to_a_guest_is_told_once_it_understands(place: Place, inside: Inside) -> None:
    announce(place)
    alive(place, inside)
    assert told_kinds(inside) == ["refresh"]
    handshake(place, inside, 3)
    assert inside.hears("lifecycle-event") == {"__name__": "lifecycle-event", "type": "after_hibernation"}
    handshake(place, inside, 3)
    tell(place, "lock-screen")
    inside.hears("lock-screen")
    assert told_kinds(inside) == ["refresh", "api-version", "lifecycle-event", "lock-screen"]
    announce(place)  # now it is known that it does
    until(lambda: told_kinds(inside)[-1] == "lifecycle-event")


def test_an_agent_that_is_too_old_is_not_told(place: Place, inside: Inside) -> None:
    announce(place)
    handshake(place, inside, 2)
    tell(place, "lock-screen")
    inside.hears("lock-screen")
    assert told_kinds(inside) == ["refresh", "api-version", "lock-screen"]


def test_old_news_are_not_told(place: Place, inside: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    from drivers.vm.agents import agents

    monkeypatch.setattr(agents, "NEWS_PATIENCE", -1.0)
    announce(place)
    handshake(place, inside, 3)
    tell(place, "lock-screen")
    inside.hears("lock-screen")
    assert "lifecycle-event" not in told_kinds(inside)


def test_news_survive_an_exec(start: Start, place: Place, inside: Inside) -> None:
    announce(place)
    alive(place, inside)
    start(**place.hand_over())
    inside.say(line("heartbeat", apiVersion=3))
    inside.hears("lifecycle-event")


def test_a_guest_that_was_restored_is_told(start: Start, libvirt: Libvirt, inside: Inside, base: Path) -> None:
    memory = base / "memory"
    memory.write_bytes(b"LibvirtQemudSave")
    libvirt.answers["saved"] = f"<domain><uuid>{VM}</uuid><devices/></domain>"
    place = start()
    libvirt.answers["restore"] = lambda *_, **__: libvirt.domains.update({VM: Seen(False)})
    place.create(VM, hiberVolHandle=str(memory))
    place.await_status(VM, "Up")
    inside.accept()
    inside.say(line("heartbeat", apiVersion=3))
    assert inside.hears("lifecycle-event")["type"] == "after_hibernation"


def test_a_guest_that_came_from_another_host_is_told(start: Start, libvirt: Libvirt, inside: Inside) -> None:
    libvirt.row = msgspec.structs.replace(libvirt.row, migrates=True, children_are_ours=False)
    libvirt.xmls[VM] = "<domain/>"
    place = start()
    place.does(VM, lambda: place.driver.expect({"vmId": VM, "memSize": 64}))
    libvirt.domains[VM] = Seen(True, coming=True)
    libvirt.tell(VM, "started", None)
    place.calm()
    assert place.status(VM) == "Migration Destination"
    # Nothing runs in it yet, and libvirt would have whoever asks wait.
    place.inside(place.driver.agents.attend)
    place.calm()
    assert libvirt.agent.asked == []
    libvirt.change(VM, Seen(False))
    place.await_status(VM, "Up")
    inside.accept()
    inside.say(line("heartbeat", apiVersion=3))
    assert inside.hears("lifecycle-event")["type"] == "after_migration"
    until(lambda: libvirt.agent.asked)


# An exec, and a crash


def test_an_exec_in_the_middle_of_a_line_loses_nothing(start: Start, place: Place, inside: Inside) -> None:
    alive(place, inside)
    whole = line("host-name", name="x" * 100)
    inside.say(line("fqdn", fqdn="a.example") + whole[:50])
    place.says(VM, guestFQDN="a.example")
    until(lambda: place.inside(lambda: place.driver.agents._guests[VM].snapshot().begun) == whole[:50])
    left = place.hand_over()
    inside.say(whole[50:] + line("os-version", version="1"))
    after = start(**left)
    after.says(VM, guestFQDN="a.example", guestName="x" * 100, guestOs="1", memUsage="50")
    tell(after, "lock-screen")
    inside.hears("lock-screen")
    assert [m["__name__"] for m in inside.heard()] == ["refresh", "lock-screen"]


def test_facts_are_there_before_the_driver_starts(start: Start, place: Place, inside: Inside) -> None:
    inside.say(line("host-name", name="x"))
    place.says(VM, guestName="x")
    left = place.hand_over()
    after = start(begin=False, **left)
    assert after.stats(VM)["guestName"] == "x"
    # And again, without anybody having asked.
    last = start(**after.hand_over())
    assert last.stats(VM)["guestName"] == "x"


def test_after_an_exec_an_agent_is_told_things_at_once(start: Start, place: Place, inside: Inside) -> None:
    alive(place, inside)
    after = start(begin=False, **place.hand_over())
    tell(after, "lock-screen")
    inside.hears("lock-screen")
    after.inside(after.driver.start)
    tell(after, "log-off")
    inside.hears("log-off")


def test_facts_that_are_damaged_are_told_anew(start: Start, place: Place, inside: Inside) -> None:
    inside.say(line("host-name", name="x"))
    place.says(VM, guestName="x")
    left = place.hand_over()
    left["left"].agents = '{"x": ['
    after = start(**left)
    after.says(VM, **SILENT)
    inside.say(line("host-name", name="y"))
    after.says(VM, guestName="y")


def test_after_a_crash_the_agent_tells_all_again(start: Start, place: Place, inside: Inside) -> None:
    inside.say(line("host-name", name="x") + b'{"half')
    place.says(VM, guestName="x")
    place.stop()
    until(lambda: inside.silent)
    inside.hang_up()
    after = start()
    inside.accept()
    inside.hears("refresh")
    inside.say(line("host-name", name="y"))
    after.says(VM, guestName="y")


def test_what_a_dead_guest_left_is_closed_and_not_believed_of_another(
    start: Start, place: Place, inside: Inside
) -> None:
    inside.say(line("host-name", name="x"))
    place.says(VM, guestName="x")
    left = place.hand_over()
    place.libvirt.domains.clear()
    left["left"].machines.clear()
    after = start(**left)
    after.run(VM)
    assert "guestName" not in after.stats(VM)


# QEMU's guest agent


def answers(libvirt: Libvirt) -> None:
    refused = NotResponding(what="x", reason="y")
    libvirt.agent.answers = {"guest-ping": {}, "guest-get-host-name": {"host-name": "q"}, "guest-shutdown": refused}
    libvirt.agent.error = NoSuchCommand()


class NoSuchCommand(NoWayToShutDown):
    message = "the agent knows no such command"


def test_qemus_agent_is_asked_when_it_comes(place: Place, libvirt: Libvirt) -> None:
    place.calm()
    assert set(libvirt.agent.asked) == {"guest-ping"} and place.unsafe() is None
    answers(libvirt)
    libvirt.tell(VM, "agent", None)
    place.says(VM, guestName="q", guestFQDN="q")


def test_facts_of_qemus_agent_survive_and_it_is_not_asked_at_once(
    start: Start, place: Place, inside: Inside, libvirt: Libvirt
) -> None:
    answers(libvirt)
    libvirt.tell(VM, "agent", None)
    place.says(VM, guestName="q")
    place.calm()
    left = place.hand_over()
    libvirt.agent.asked.clear()
    after = start(**left)
    after.says(VM, guestName="q")
    after.calm()
    assert libvirt.agent.asked == []


def test_none_is_asked_while_an_exec_is_wanted(start: Start, libvirt: Libvirt, inside: Inside, place: Place) -> None:
    place.calm()
    place.inside(place.driver.settle)
    asked = len(libvirt.agent.asked)
    libvirt.tell(VM, "agent", None)
    place.calm()
    assert len(libvirt.agent.asked) == asked
    place.inside(place.driver.resume)
    until(lambda: len(libvirt.agent.asked) > asked)


def test_one_that_is_being_asked_is_waited_for(place: Place, libvirt: Libvirt, monkeypatch: pytest.MonkeyPatch) -> None:
    import threading

    gate = threading.Event()
    place.calm()
    monkeypatch.setattr(libvirt.agent, "ask", lambda *_: gate.wait(60) and "{}")
    libvirt.tell(VM, "agent", None)
    until(lambda: place.unsafe() == f"guest agents are being asked: {VM}")
    gate.set()
    until(lambda: place.unsafe() is None)


def test_one_that_is_asked_when_an_exec_is_wanted_is_asked_no_more(
    place: Place, libvirt: Libvirt, monkeypatch: pytest.MonkeyPatch
) -> None:
    import threading

    gate, asked = threading.Event(), list[str]()

    def ask(_vm_id: str, command: str, _patience: int) -> str:
        asked.append(command)
        assert gate.wait(60)
        return '{"return": {"host-name": "new"}}'

    place.calm()
    monkeypatch.setattr(libvirt.agent, "ask", ask)
    libvirt.tell(VM, "agent", None)
    until(lambda: asked)
    place.inside(place.driver.settle)
    gate.set()
    until(lambda: place.unsafe() is None)
    assert len(asked) == 1
    place.inside(place.driver.resume)


# Shutting down


def shut_down(place: Place, *, delay: float | None = 0, patience: float = 3600, **how: Any) -> None:
    how = {"reboot": False, "force": False, "message": "", **how}
    place.does(VM, lambda: place.driver.deeds.shutdown(VM, delay=delay, patience=patience, **how))


def test_the_ovirt_agent_goes_first(place: Place, inside: Inside, libvirt: Libvirt) -> None:
    alive(place, inside)
    shut_down(place, delay=7, message="good night")
    assert inside.hears("shutdown") == {
        "__name__": "shutdown",
        "timeout": 7,
        "message": "good night",
        "reboot": "false",
    }
    place.calm()
    assert place.status(VM) == "Powering down" and not libvirt.calls("press")
    libvirt.end(VM)
    assert place.await_status(VM, "Down")["exitReason"] == 6


def test_users_are_warned_as_long_as_configured(place: Place, inside: Inside) -> None:
    alive(place, inside)
    shut_down(place, delay=None, reboot=True)
    heard = inside.hears("shutdown")
    assert (heard["timeout"], heard["reboot"]) == (30, "true")
    assert place.status(VM) == "RebootInProgress"


def test_then_the_button_then_force(place: Place, inside: Inside, libvirt: Libvirt) -> None:
    alive(place, inside)
    shut_down(place, patience=0.05, force=True)
    inside.hears("shutdown")
    assert place.await_status(VM, "Down")["exitReason"] == 6
    assert [name for name, _ in libvirt.asked if name in ("press", "destroy")] == ["press", "destroy"]


def test_qemus_agent_stands_in(place: Place, libvirt: Libvirt) -> None:
    answers(libvirt)
    libvirt.tell(VM, "agent", None)
    place.says(VM, guestName="q")
    shut_down(place)
    assert libvirt.agent.asked[-2:] == ["guest-ping", "guest-shutdown powerdown"]
    assert not libvirt.calls("press")


def test_an_agent_that_fails_is_followed_by_the_button_at_once(place: Place, libvirt: Libvirt) -> None:
    answers(libvirt)
    libvirt.tell(VM, "agent", None)
    place.says(VM, guestName="q")
    libvirt.agent.answers["guest-shutdown"] = NoSuchCommand()
    shut_down(place)
    until(lambda: libvirt.calls("press") == [VM])
    assert place.status(VM) == "Powering down"


def test_an_agent_that_does_not_respond_yet_is_asked_again(place: Place, libvirt: Libvirt) -> None:
    answers(libvirt)
    libvirt.tell(VM, "agent", None)
    place.says(VM, guestName="q")
    place.calm()
    libvirt.agent.answers["guest-ping"] = NotResponding(what="x", reason="not connected")
    shut_down(place)
    until(lambda: libvirt.agent.asked.count("guest-ping") > 3)
    assert not libvirt.calls("press")
    libvirt.agent.answers["guest-ping"] = {}
    until(lambda: libvirt.agent.asked[-1] == "guest-shutdown powerdown")
    assert not libvirt.calls("press")


@pytest.mark.parametrize("libvirt_pauses", [True, False])
def test_without_a_button_an_agent_will_do(
    start: Start, inside: Inside, libvirt: Libvirt, libvirt_pauses: bool
) -> None:
    place = start()
    place.create(VM, acpiEnable="false")
    place.await_status(VM, "Up")
    inside.accept()
    with pytest.raises(NoWayToShutDown):
        shut_down(place)
    alive(place, inside)
    if libvirt_pauses:
        place.does(VM, lambda: place.driver.deeds.pause(VM))
        with pytest.raises(NoWayToShutDown):  # nobody in it can do anything
            shut_down(place)
    else:
        shut_down(place, patience=0.05)
        inside.hears("shutdown")
        place.await_status(VM, "Up")
        assert not libvirt.calls("press") and not libvirt.calls("destroy")


def test_a_shutdown_by_agent_goes_on_after_an_exec(
    start: Start, place: Place, inside: Inside, libvirt: Libvirt
) -> None:
    alive(place, inside)
    shut_down(place, patience=0.5)
    inside.hears("shutdown")
    after = start(**place.hand_over())
    until(lambda: libvirt.calls("press") == [VM], 60)
    after.await_status(VM, "Up")
