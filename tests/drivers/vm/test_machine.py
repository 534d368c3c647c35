"""The life cycle is what its table says, and nothing else; machines are on record before anyone is told of them."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from drivers.errors import Failed, IllegalMove, NoSuchVm, VmExists
from drivers.vm.contract import MISSING, TABLE, Move, Status
from drivers.vm.machine import Machine, Shutdown, VmRecord
from drivers.vm.machines import Machines
from state.process import start_time
from state.records import Entry, decode, encode, pack, unpack
from tests.drivers.vm.conftest import OTHER, VM
from tests.drivers.vm.stand import Stand

LIVED = {status for status, _ in TABLE}


def machine(vm_id: str = VM, **fields: Any) -> Machine:
    return Machine(vm_id=vm_id, conf={"vmId": vm_id, "memSize": 64}, **fields)


@pytest.mark.parametrize(("status", "move"), list(itertools.product(Status, Move)))
def test_every_move_is_in_the_table_or_refused(status: Status, move: Move) -> None:
    one = machine(status=status, status_since=1.0)
    before = msgspec.structs.asdict(one)
    if (status, move) not in TABLE:
        with pytest.raises(IllegalMove, match=f"is {status}: it cannot {move}"):
            one.move(move)
        assert msgspec.structs.asdict(one) == before
    else:
        changed = one.move(move)
        assert one.status is TABLE[status, move]
        assert changed is (one.status is not status)
        assert (one.status_since > 1.0) is changed


@pytest.mark.parametrize("status", sorted(LIVED))
def test_every_state_can_end(status: Status) -> None:
    assert TABLE[status, Move.END] is Status.DOWN


def test_nothing_leads_out_of_down() -> None:
    assert Status.DOWN not in LIVED


def test_every_state_of_the_table_can_be_reached() -> None:
    reached = {Status.WAIT_FOR_LAUNCH, Status.MIGRATION_DESTINATION}  # how machines begin
    while more := {after for (before, _), after in TABLE.items() if before in reached} - reached:
        reached |= more
    assert reached == LIVED | {Status.DOWN}


def test_a_record_round_trips() -> None:
    plan = Shutdown(press_at=1.5, patience=3, force=True)
    record = VmRecord(
        machines=[
            machine(ending=MISSING, status=Status.DOWN),
            machine(OTHER, shutdown=plan, watchdog={"time": 1.5, "action": "log"}),
        ],
        samples="{}",
        uri="qemu:///system",
    )
    assert decode(VmRecord, encode(record), "vm") == record


@pytest.fixture
def machines(stand: Stand) -> Machines:
    return Machines(stand.host)


def checkpoint(stand: Stand, vm_id: str) -> Machine:
    entry = unpack(Entry, stand.host.checkpoints.below("vm").read(vm_id) or b"", vm_id)
    return decode(VmRecord, entry, vm_id).machines[0]


def told(stand: Stand) -> list[tuple[str, dict[str, Any]]]:
    """Return what was told of machines. That libvirt was found may be told at any time between."""
    return [event for event in stand.events if event[0].startswith("vm.")]


def test_a_new_machine_is_written_down(stand: Stand, machines: Machines) -> None:
    machines.add(machine())
    assert checkpoint(stand, VM).status is Status.WAIT_FOR_LAUNCH
    with pytest.raises(VmExists):
        machines.add(machine())


def test_ids_are_known_in_any_case(machines: Machines) -> None:
    one = machine("aaaaaaaa-1111-4111-8111-111111111111")
    machines.add(one)
    assert machines.get("AAAAAAAA-1111-4111-8111-111111111111") is one
    with pytest.raises(NoSuchVm):
        machines.get(OTHER)


def test_a_move_is_written_down_and_told(stand: Stand, machines: Machines) -> None:
    one = machine()
    machines.add(one)
    machines.move(one, Move.LAUNCH)
    machines.move(one, Move.RUN, pid=42)
    assert (checkpoint(stand, VM).status, checkpoint(stand, VM).pid) == (Status.UP, 42)
    assert told(stand)[-1] == ("vm.status", {"vm": VM, "status": "Up"})


def test_an_impossible_move_changes_nothing_at_all(stand: Stand, machines: Machines) -> None:
    one = machine()
    machines.add(one)
    with pytest.raises(IllegalMove):
        machines.move(one, Move.REBOOT, pid=42)
    assert (one.pid, checkpoint(stand, VM).pid, [name for name, _ in told(stand)]) == (0, 0, ["vm.created"])


def test_what_is_removed_leaves_no_checkpoint(stand: Stand, machines: Machines) -> None:
    one = machine()
    machines.add(one)
    machines.remove(one)
    machines.update(one, pid=42)
    assert stand.checkpoints == []
    assert not machines.is_current(one)


def test_a_machine_that_cannot_be_written_down_is_refused(stand: Stand, machines: Machines) -> None:
    Path(stand.host.checkpoints.below("vm").path, f"{VM}.new").mkdir()
    with pytest.raises(Failed, match="writing down"):
        machines.add(machine())
    assert VM not in machines


def test_a_full_disk_does_not_hurt_a_running_machine(stand: Stand, machines: Machines) -> None:
    one = machine()
    machines.add(one)
    Path(stand.host.checkpoints.below("vm").path, f"{VM}.new").mkdir()
    machines.move(one, Move.LAUNCH)
    assert one.status is Status.POWERING_UP


def left_behind(stand: Stand, one: Machine, boot: str) -> None:
    record = VmRecord(machines=[one], uri="fake:///", boot=boot)
    stand.host.checkpoints.below("vm").write(one.vm_id, pack(encode(record)))


def test_recovery_takes_what_is_whole_and_sets_aside_what_is_not(stand: Stand, machines: Machines) -> None:
    machines.add(machine())
    stand.host.checkpoints.below("vm").write(OTHER, b"nonsense")
    again = Machines(stand.host)
    again.recover()
    assert [one.vm_id for one in again.all()] == [VM]
    kept = [name for name in stand.checkpoints if name.startswith(OTHER)]
    assert len(kept) == 1
    assert kept[0].endswith(".set-aside")


@pytest.mark.parametrize("same", [True, False])
def test_a_pid_counts_only_with_its_start_time(machines: Machines, stand: Stand, same: bool) -> None:
    started = (start_time(stand_pid()) or 0) + (0 if same else 1)
    machines.add(machine(status=Status.UP, pid=stand_pid(), pid_start=started))
    again = Machines(stand.host)
    again.recover()
    assert again.get(VM).pid == (stand_pid() if same else 0)
    assert again.get(VM).status is Status.UP


def test_another_boot_voids_pids_and_times(stand: Stand) -> None:
    pid = stand_pid()
    plan = Shutdown(press_at=1.0, patience=1.0)
    left_behind(stand, machine(status=Status.UP, pid=pid, pid_start=start_time(pid) or 0, shutdown=plan), "long ago")
    again = Machines(stand.host)
    again.recover()
    assert (again.get(VM).pid, again.get(VM).shutdown, again.get(VM).status) == (0, None, Status.UP)
    assert again.uri == "fake:///"


def stand_pid() -> int:
    """A process that surely lives."""
    return 1


def test_a_snapshot_is_a_copy(build: Callable[..., Stand]) -> None:
    stand = build()
    machines = Machines(stand.host)
    one = machine()
    machines.add(one)
    taken = machines.snapshot("")
    machines.move(one, Move.LAUNCH)
    assert taken.machines[0].status is Status.WAIT_FOR_LAUNCH
