"""Machines that leave, and come: what holds whatever libvirt, the other daemon and the moment do."""

from __future__ import annotations

import fcntl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import libvirt as libvirt_module
import msgspec
import pytest

from drivers.errors import DriverError, Failed, Invalid, VmExists
from drivers.vm.contract import SAVED, Status
from drivers.vm.errors import MigrationFailed, NothingToCancel, OnItsWay, PeerRefused, PeerUnreachable
from drivers.vm.hypervisor.jobs import Underway
from drivers.vm.hypervisor.link import Seen
from drivers.vm.machine import Journey, Stage, VmRecord, Way
from drivers.vm.travel.migration import journey_of
from tests.drivers.vm.fake import ROW, FakeLibvirt
from tests.drivers.vm.stand import Stand
from tests.until import until

pytestmark = pytest.mark.slow

VM = "11111111-1111-4111-8111-111111111111"
OTHER = "22222222-2222-4222-8222-222222222222"
THIRD = "33333333-3333-4333-8333-333333333333"
WHOLE, HALF = b"LibvirtQemudSave", b"LibvirtQemudPart"


def xml(vm_id: str) -> str:
    return f"<domain><uuid>{vm_id}</uuid><devices/></domain>"


class Peer:
    """The daemon of another host."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, Any]] = []
        self.gate = threading.Event()
        self.gate.set()
        self.error: DriverError | None = None
        self.status = ""
        """What it says of any machine, '' when there is none."""

    def call(self, verb: str, *args: Any, timeout: float) -> dict[str, Any]:
        self.asked.append((verb, args[-1]["vmId"] if verb == "migrationCreate" else args[-1]))
        if verb == "list":
            return {"vmList": [{"vmId": args[-1][0], "status": self.status}] if self.status else []}
        assert self.gate.wait(60)
        if self.error is not None:
            raise self.error
        return {"params": {}}


@pytest.fixture
def libvirt() -> FakeLibvirt:
    fake = FakeLibvirt()
    fake.answers["migratable"] = xml(VM)
    return fake


@pytest.fixture
def stand(tmp_path: Path, libvirt: FakeLibvirt) -> Iterator[Stand]:
    stand = Stand(tmp_path, libvirt)
    stand.run(VM)
    yield stand
    stand.stop()


def told(stand: Stand, vm_id: str = VM) -> dict[str, Any]:
    return stand.inside(lambda: stand.driver.migration(vm_id))


def refuse(reason: str) -> Any:
    def answer(*_: object) -> None:
        raise Failed(action="saving", reason=reason)

    return answer


def test_a_machine_that_was_saved_is_down(stand: Stand, libvirt: FakeLibvirt) -> None:
    libvirt.answers["save"] = lambda path: libvirt.end(VM, SAVED)
    stand.does(VM, lambda: stand.driver.moving.hibernate(VM, "/memory"))
    assert stand.await_status(VM, "Down")["exitReason"] == 5
    until(lambda: told(stand)["progress"] == 100)
    assert told(stand) == {"code": "", "message": "SaveState done", "progress": 100}
    with pytest.raises(NothingToCancel):
        stand.does(VM, lambda: stand.driver.moving.cancel(VM))


def test_one_that_cannot_be_saved_runs_on(stand: Stand, libvirt: FakeLibvirt) -> None:
    libvirt.answers["save"] = refuse("no room")
    stand.does(VM, lambda: stand.driver.moving.hibernate(VM, "/memory"))
    until(lambda: told(stand)["code"] == "migrateErr")
    stand.await_status(VM, "Up")
    assert "no room" in told(stand)["message"]
    stand.calm()
    assert stand.unsafe() is None


def test_a_re_exec_waits_for_what_libvirt_saves_inside_of_us(stand: Stand, libvirt: FakeLibvirt) -> None:
    gate = threading.Event()
    libvirt.gates["gate"] = gate  # set at the end, whatever happens

    def save(_path: str) -> None:
        assert gate.wait(60)
        libvirt.end(VM, SAVED)

    libvirt.answers["save"] = save
    stand.does(VM, lambda: stand.driver.moving.hibernate(VM, "/memory"))
    until(lambda: VM in (stand.unsafe() or ""))
    stand.await_status(VM, "Saving State")
    with pytest.raises(OnItsWay):
        stand.does(VM, lambda: stand.driver.moving.hibernate(VM, "/memory"))
    stand.does(VM, lambda: stand.driver.moving.cancel(VM))
    assert "abort" in [name for name, _ in libvirt.asked]
    gate.set()
    until(lambda: stand.unsafe() is None)
    journey = stand.inside(lambda: stand.driver._machines.get(VM)).journey
    assert stand.status(VM) == "Down" and journey is not None and journey.is_over


def test_nothing_begins_while_a_re_exec_is_wanted(stand: Stand, libvirt: FakeLibvirt) -> None:
    stand.inside(stand.driver.settle)
    stand.does(VM, lambda: stand.driver.moving.hibernate(VM, "/memory"))
    stand.calm()
    assert stand.status(VM) == "Saving State" and stand.unsafe() is None
    stand.does(VM, lambda: stand.driver.moving.cancel(VM))
    stand.await_status(VM, "Up")
    assert told(stand)["code"] == "migCancelErr" and not libvirt.calls("save")
    stand.inside(stand.driver.resume)


def test_bad_input_changes_nothing(stand: Stand) -> None:
    for wrong in ({"dst": "a/b"}, {"dst": "a", "method": "offline"}, {"dst": "a", "downtime": "much"}, {"dst": ":1"}):
        with pytest.raises(Invalid):
            stand.does(VM, lambda w=wrong: stand.driver.moving.migrate({"vmId": VM, **w}))  # type: ignore[misc]
    with pytest.raises(MigrationFailed):
        stand.does(VM, lambda: stand.driver.moving.migrate({"vmId": VM, "dst": "host"}))
    assert stand.status(VM) == "Up"


@pytest.mark.parametrize(("left", "reason"), [(WHOLE, 5), (HALF, 9), (None, 9)])
def test_a_crash_is_told_by_what_the_file_holds(tmp_path: Path, left: bytes | None, reason: int) -> None:
    memory = tmp_path / "memory"
    if left:
        memory.write_bytes(left)
    stand = Stand(
        tmp_path, left=_left_on_its_way(tmp_path, Journey(way=Way.SAVE, stage=Stage.MOVING, memory=str(memory)))
    )
    try:
        assert stand.await_status(VM, "Down")["exitReason"] == reason
    finally:
        stand.stop()


@pytest.mark.parametrize("stage", [Stage.BEGINNING, Stage.MOVING])
def test_after_a_crash_a_machine_that_is_here_stays(tmp_path: Path, libvirt: FakeLibvirt, stage: Stage) -> None:
    libvirt.domains[VM] = Seen(False)
    libvirt.answers["underway"] = None
    stand = Stand(tmp_path, libvirt, left=_left_on_its_way(tmp_path, Journey(way=Way.SAVE, stage=stage, memory="/m")))
    try:
        stand.await_status(VM, "Up")
        assert told(stand)["code"] == "migrateErr"
    finally:
        stand.stop()


def _left_on_its_way(base: Path, journey: Journey) -> VmRecord:
    """Return what a run leaves of a machine that is being saved."""
    first = Stand(base)
    first.run(VM)
    record = first.stop()
    machine = msgspec.structs.replace(record.machines[0], status=Status.SAVING, journey=journey)
    return VmRecord(machines=[machine])


# Migration


@pytest.fixture
def peer() -> Peer:
    return Peer()


@pytest.fixture
def source(tmp_path: Path, libvirt: FakeLibvirt, peer: Peer) -> Iterator[Stand]:
    """One that can migrate; the carrier finds no libvirt at its uri."""
    libvirt.row = msgspec.structs.replace(ROW, children_are_ours=False, migrates=True)
    libvirt.answers["underway"] = None
    stand = Stand(tmp_path, libvirt, max_outgoing_migrations=1)
    stand.driver.peer = lambda _: peer
    for vm_id in (VM, OTHER):
        stand.run(vm_id)
    yield stand
    peer.gate.set()
    stand.stop()


def test_one_after_the_other(source: Stand, peer: Peer) -> None:
    peer.gate.clear()
    for vm_id in (VM, OTHER):
        source.does(vm_id, lambda v=vm_id: source.driver.moving.migrate({"vmId": v, "dst": "host"}))  # type: ignore[misc]
    until(lambda: peer.asked == [("migrationCreate", VM)])
    assert source.status(OTHER) == "Migration Source" and source.stats(OTHER)["migrationProgress"] == 0
    assert VM in (source.unsafe() or "")
    peer.gate.set()
    # The carrier fails: both stay, one after the other, and the other side lets go of them.
    peer.status = "Migration Destination"
    for vm_id in (VM, OTHER):
        until(lambda v=vm_id: told(source, v)["code"] == "migrateErr", 60)  # type: ignore[misc]
        source.await_status(vm_id, "Up")
        until(lambda v=vm_id: ("destroy", v) in peer.asked, 60)  # type: ignore[misc]


@pytest.mark.parametrize("status", ["Up", "Paused", "Down", ""])
def test_what_is_not_ours_there_is_not_touched(source: Stand, peer: Peer, status: str) -> None:
    peer.error, peer.status = PeerRefused(peer="host", reason="exists", code=4), status
    source.does(VM, lambda: source.driver.moving.migrate({"vmId": VM, "dst": "host"}))
    until(lambda: told(source)["code"] == "migrateErr", 60)
    until(lambda: peer.asked[-1][0] == "list", 60)
    source.calm()
    assert "destroy" not in [verb for verb, _ in peer.asked] and source.status(VM) == "Up"


def test_nobody_is_asked_to_let_go_who_was_never_reached(source: Stand, peer: Peer) -> None:
    peer.error = PeerUnreachable(action="calling", reason="nobody is there")
    source.does(VM, lambda: source.driver.moving.migrate({"vmId": VM, "dst": "host"}))
    until(lambda: told(source)["code"] == "migrateErr", 60)
    source.calm()
    assert [verb for verb, _ in peer.asked] == ["migrationCreate"]


def departs(stand: Stand, link: FakeLibvirt, **params: Any) -> Any:
    """Return what libvirt would be asked to do for a migration."""
    machine = stand.inside(lambda: stand.driver._machines.get(VM))
    given = {"vmId": VM, "dst": "host:54322", **params}
    stand.driver._machines.update(machine, journey=journey_of(given))
    migration = stand.driver.moving.departures._kinds[Way.OUT]
    fake: Any = link
    try:
        return migration.prepare(machine, fake)
    finally:
        stand.driver._machines.update(machine, journey=None)


P2P_LIVE = libvirt_module.VIR_MIGRATE_PEER2PEER | libvirt_module.VIR_MIGRATE_LIVE
ABORT = libvirt_module.VIR_MIGRATE_ABORT_ON_ERROR
ORDERS: dict[str, tuple[dict[str, Any], int, dict[str, Any]]] = {
    "nothing said": ({}, ABORT, {"bandwidth": 52, "migrate_uri": "tcp://host"}),
    "not to abort": ({"abortOnError": "false"}, 0, {"bandwidth": 52, "migrate_uri": "tcp://host"}),
    "compressed": (
        {"compressed": "true"},
        ABORT | libvirt_module.VIR_MIGRATE_COMPRESSED,
        {"bandwidth": 52, "migrate_uri": "tcp://host"},
    ),
    "converging": (
        {"autoConverge": True, "compressed": "False"},
        ABORT | libvirt_module.VIR_MIGRATE_AUTO_CONVERGE,
        {"bandwidth": 52, "migrate_uri": "tcp://host"},
    ),
    "tunneled": ({"tunneled": "True"}, ABORT | libvirt_module.VIR_MIGRATE_TUNNELLED, {"bandwidth": 52}),
    "another address for the data": (
        {"dstqemu": "192.0.2.7"},
        ABORT,
        {"bandwidth": 52, "migrate_uri": "tcp://192.0.2.7"},
    ),
    "data by IPv6": ({"dstqemu": "2001:db8::7"}, ABORT, {"bandwidth": 52, "migrate_uri": "tcp://[2001:db8::7]"}),
    "slower": ({"maxBandwidth": "7"}, ABORT, {"bandwidth": 7, "migrate_uri": "tcp://host"}),
    "display": (
        {"consoleAddress": "192.0.2.8"},
        ABORT,
        {"bandwidth": 52, "migrate_uri": "tcp://host", "graphics_uri": "spice://192.0.2.8"},
    ),
    "what nobody knows": (
        {"dstparams": "", "timeout": 5, "x": []},
        ABORT,
        {"bandwidth": 52, "migrate_uri": "tcp://host"},
    ),
}


@pytest.mark.parametrize("name", ORDERS)
def test_what_a_caller_says_is_what_libvirt_is_asked(source: Stand, libvirt: FakeLibvirt, name: str) -> None:
    params, flags, expected = ORDERS[name]
    order = departs(source, libvirt, **params)
    assert (order.deed, order.target, order.vm_id) == ("migrate", "qemu+tcp://host/system", VM)
    assert (order.flags, order.params) == (P2P_LIVE | flags, expected)


@pytest.mark.parametrize(
    ("dst", "target"),
    [
        ("host", "qemu+tcp://host/system"),
        ("192.0.2.9:1", "qemu+tcp://192.0.2.9/system"),
        ("[2001:db8::9]:54321", "qemu+tcp://[2001:db8::9]/system"),
        ("2001:db8::9", "qemu+tcp://[2001:db8::9]/system"),
    ],
)
def test_the_other_libvirt_is_where_the_other_daemon_is(
    source: Stand, libvirt: FakeLibvirt, dst: str, target: str
) -> None:
    assert departs(source, libvirt, dst=dst).target == target


def test_under_tls_libvirts_speak_tls(tmp_path: Path, libvirt: FakeLibvirt, peer: Peer) -> None:
    libvirt.row = msgspec.structs.replace(ROW, children_are_ours=False, migrates=True)
    stand = Stand(tmp_path, libvirt, ssl=True, migration_max_bandwidth=0)
    try:
        stand.driver.peer = lambda _: peer
        stand.run(VM)
        order = departs(stand, libvirt)
        assert order.target == "qemu+tls://host/system" and "bandwidth" not in order.params
    finally:
        stand.stop()


# Limits, whoever it is that carries it


class Carried:
    """A migration that a process carries which is not ours to see; what libvirt says of it is `underway`."""

    def __init__(self, base: Path, libvirt: FakeLibvirt, journey: Journey, **settings: Any) -> None:
        libvirt.row = msgspec.structs.replace(ROW, children_are_ours=False, migrates=True)
        self.underway = Underway(way=Way.OUT, total=100, remaining=100)
        self.downtimes: list[int] = []
        self._libvirt = libvirt
        libvirt.answers["underway"] = None
        first = Stand(base, libvirt)
        first.run(VM)
        machine = first.stop().machines[0]
        libvirt.answers["underway"] = lambda: self.underway
        libvirt.answers["allow_downtime"] = self.downtimes.append
        libvirt.answers["abort"] = self._abort
        left = msgspec.structs.replace(machine, status=Status.MIGRATION_SOURCE, journey=journey)
        self.stand = Stand(base, libvirt, left=VmRecord(machines=[left]), **settings)

    def _abort(self) -> None:
        self._libvirt.answers["underway"] = None


@pytest.fixture
def carried(tmp_path: Path, libvirt: FakeLibvirt) -> Iterator[Callable[..., Carried]]:
    made: list[Carried] = []

    def make(journey: dict[str, Any], **settings: Any) -> Carried:
        whole = {"way": Way.OUT, "stage": Stage.MOVING, "begun": time.time(), **journey}
        made.append(Carried(tmp_path, libvirt, Journey(**whole), **settings))
        return made[-1]

    yield make
    for one in made:
        one.stand.stop()


NO_LIMIT = {"migration_max_time_per_gib_mem": 0.0, "migration_progress_timeout": 0.0}


def test_the_downtime_that_is_allowed_grows(carried: Callable[..., Carried]) -> None:
    one = carried({"downtime": 400}, migration_downtime_steps=4, migration_downtime_delay=0.4, **NO_LIMIT)
    until(lambda: one.downtimes[-1:] == [400], 60, "all of it to be allowed")
    # However slowly we look, it never goes back, and never above what was said.
    assert one.downtimes == sorted(set(one.downtimes)) and set(one.downtimes) <= {100, 200, 300, 400}
    assert one.stand.status(VM) == "Migration Source"


def test_without_a_word_the_configured_downtime_holds(carried: Callable[..., Carried]) -> None:
    one = carried({}, migration_downtime=77, migration_downtime_delay=0.0, **NO_LIMIT)
    until(lambda: one.downtimes == [77], 60)


def test_a_migration_that_is_stuck_is_aborted(carried: Callable[..., Carried], libvirt: FakeLibvirt) -> None:
    one = carried({}, **{**NO_LIMIT, "migration_progress_timeout": 0.5})
    one.underway = Underway(way=Way.OUT, total=100, remaining=40)
    until(lambda: one.stand.stats(VM).get("migrationProgress") == 60 or libvirt.calls("abort"), 60)
    one.stand.await_status(VM, "Up")
    assert "stuck" in told(one.stand)["message"] and told(one.stand)["code"] == "migrateErr"
    assert libvirt.calls("abort")


def test_one_that_takes_too_long_is_aborted(carried: Callable[..., Carried], libvirt: FakeLibvirt) -> None:
    limit = {**NO_LIMIT, "migration_max_time_per_gib_mem": 60.0}
    one = carried({"begun": time.time() - 100}, **limit)
    one.stand.await_status(VM, "Up")
    assert "takes longer than 60 seconds" in told(one.stand)["message"] and libvirt.calls("abort")


def test_one_that_is_within_its_limits_goes_on(carried: Callable[..., Carried], libvirt: FakeLibvirt) -> None:
    one = carried({"begun": time.time() - 100}, migration_max_time_per_gib_mem=1000.0, migration_progress_timeout=0.0)
    one.underway = Underway(way=Way.OUT, total=100, remaining=5)
    until(lambda: one.stand.stats(VM)["migrationProgress"] == 95, 60)
    assert not libvirt.calls("abort") and told(one.stand)["progress"] == 95


# Coming


def expect(stand: Stand, vm_id: str, **params: Any) -> Any:
    found: list[Any] = []
    given = {"vmId": vm_id, "memSize": 64, "_srcDomXML": xml(vm_id), "elapsedTimeOffset": 100.0, **params}
    stand.does(vm_id, lambda: found.append(stand.driver.expect(given)))
    return found[0]


def test_one_that_comes_is_expected_until_it_runs(source: Stand, libvirt: FakeLibvirt) -> None:
    conf, definition = expect(source, THIRD)
    assert conf["status"] == "Migration Destination" and THIRD in definition
    with pytest.raises(VmExists):
        expect(source, THIRD)
    source.inside(lambda: source.driver._watch.sampled(set()))
    source.calm()
    assert source.status(THIRD) == "Migration Destination"
    libvirt.domains[THIRD] = Seen(True, coming=True)
    libvirt.tell(THIRD, "started", None)
    source.calm()
    assert source.status(THIRD) == "Migration Destination"
    libvirt.change(THIRD, Seen(False))
    assert int(source.await_status(THIRD, "Up")["elapsedTime"]) >= 100
    until(lambda: told(source, THIRD)["progress"] == 100)


def test_one_that_was_seen_and_is_gone_has_failed(source: Stand, libvirt: FakeLibvirt) -> None:
    expect(source, THIRD)
    libvirt.domains[THIRD] = Seen(True, coming=True)
    libvirt.tell(THIRD, "started", None)
    source.calm()
    libvirt.crash(THIRD)
    assert source.await_status(THIRD, "Down")["exitReason"] == 8


def test_one_that_does_not_come_in_time_has_failed(tmp_path: Path, libvirt: FakeLibvirt) -> None:
    libvirt.row = msgspec.structs.replace(ROW, children_are_ours=False, migrates=True)
    stand = Stand(tmp_path, libvirt, migration_destination_timeout=0.2)
    try:
        expect(stand, THIRD)
        assert stand.await_status(THIRD, "Down")["exitReason"] == 8
    finally:
        stand.stop()


def test_what_is_wrong_with_one_that_comes_leaves_nothing(source: Stand) -> None:
    with pytest.raises(DriverError):
        expect(source, THIRD, _srcDomXML=xml(VM))
    assert not source.inside(lambda: source.driver.list_short([THIRD]))


def test_orders_that_nobody_carries_any_more_are_removed(tmp_path: Path, libvirt: FakeLibvirt) -> None:
    orders = tmp_path / "run" / "carried"
    orders.mkdir(parents=True)
    for name in (VM, f"{VM}.done", OTHER):
        (orders / name).touch()
    with (orders / OTHER).open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        stand = Stand(tmp_path, libvirt)
        try:
            until(lambda: [path.name for path in orders.iterdir()] == [OTHER], 60)
        finally:
            stand.stop()
