"""How soon a monitor that is stuck is found out, and that one which is only busy is not, by a clock of the test's own."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Iterable
from types import SimpleNamespace
from typing import Any

import pytest

from drivers.errors import Failed
from drivers.vm import sampler
from drivers.vm.contract import Status
from drivers.vm.machine import Machine
from drivers.vm.sampler import Sampler
from tests.drivers.vm.conftest import OTHER, VM

PERIOD = 15.0


class World:
    """A clock with what is due, and libvirt with two machines: `busy` says with which it can have no word now, `stopped`
    since when each of them is stopped for good. Whoever asks such a one first waits for ever; the others do without it."""

    def __init__(self, period: float = PERIOD) -> None:
        self.now = 0.0
        self.busy: Callable[[str, float], bool] = lambda vm_id, now: False
        self.stopped: dict[str, float] = {}
        self.asked: list[tuple[float, bool]] = []
        self.ending: list[str] = []
        self.fails = False
        self.takes = 0.01
        """Seconds that a sample takes of which nobody is stuck."""
        self.row = SimpleNamespace(monitors=True)
        self.told: dict[str, float] = {}
        """When each was told not to respond."""
        self.present: list[set[str]] = []
        self.machines = {vm_id: Machine(vm_id=vm_id, conf={}, status=Status.UP) for vm_id in (VM, OTHER)}
        self._waiting: set[str] = set()
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0
        self._off: set[int] = set()
        host: Any = SimpleNamespace(later=self.later, submit=self._submit)
        connection: Any = SimpleNamespace(link=self)
        machines: Any = self
        self.sampler = Sampler(host, machines, connection, lambda: period, self.present.append)

    def later(self, seconds: float, call: Callable[[], None]) -> Any:
        self._count += 1
        entry = (self.now + seconds, self._count, call)
        heapq.heappush(self._due, entry)
        return SimpleNamespace(cancel=lambda: self._off.add(entry[1]))

    def run(self, until: float) -> None:
        while self._due and self._due[0][0] <= until:
            self.now, number, call = heapq.heappop(self._due)
            if number not in self._off:
                call()
        self.now = until

    def statistics(self, vm_ids: Iterable[str], *, brief: bool = False) -> dict[str, dict[str, Any]] | None:
        """None: somebody waits for ever."""
        self.asked.append((self.now, brief))
        stuck = {vm_id for vm_id, since in self.stopped.items() if since <= self.now}
        if new := stuck - self._waiting:
            self._waiting.add(min(new))
            return None
        silent = stuck | {vm_id for vm_id in self.machines if self.busy(vm_id, self.now)}
        there = [vm_id for vm_id in vm_ids if vm_id not in self.ending]
        return {vm_id: {"cpu.time": 1} | ({} if vm_id in silent else {"balloon.rss": 1}) for vm_id in there}

    def _submit(
        self, call: Callable[[], Any], done: Callable[[Any, Exception | None], None], *, timeout: float
    ) -> None:
        values = call()
        error = Failed(action="sampling", reason="it has ended") if self.fails else None
        if error or values is not None:
            self.later(self.takes, lambda: done(None if error else values, error))

    # As Machines

    def __contains__(self, vm_id: str) -> bool:
        return vm_id in self.machines

    def all(self) -> list[Machine]:
        return list(self.machines.values())

    def update(self, machine: Machine, responds: bool) -> None:
        machine.responds = responds
        if not responds:
            self.told[machine.vm_id] = self.now


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    world = World()
    monkeypatch.setattr(sampler, "time", SimpleNamespace(monotonic=lambda: world.now))
    world.sampler.start()
    return world


@pytest.mark.parametrize("at", [0.001, 3.0, 7.4, 7.51, 11.0, 14.9])
def test_one_that_stops_is_told_within_a_period(world: World, at: float) -> None:
    world.stopped = {VM: at}
    world.run(60)
    assert list(world.told) == [VM] and world.told[VM] - at < PERIOD - 1


def test_one_whose_monitor_somebody_else_waits_for_is_told_as_soon(world: World) -> None:
    world.busy = lambda vm_id, now: vm_id == VM and now > 0
    world.run(60)
    assert list(world.told) == [VM] and world.told[VM] < PERIOD - 1


def test_two_that_stop_at_once_are_told_within_a_period(world: World) -> None:
    world.stopped = {VM: 0.001, OTHER: 0.001}
    world.run(60)
    assert set(world.told) == {VM, OTHER} and max(world.told.values()) < PERIOD


@pytest.mark.parametrize("other_is_stopped", [False, True])
def test_one_that_is_busy_for_a_while_is_not(world: World, other_is_stopped: bool) -> None:
    """Whenever that is, and whatever has been waiting for another one for long."""
    world.stopped = {OTHER: 40.0} if other_is_stopped else {}
    world.busy = lambda vm_id, now: vm_id == VM and now % 8.7 < 5.1
    world.run(3600)
    assert VM not in world.told and (OTHER in world.told) is other_is_stopped


@pytest.mark.parametrize("status", [Status.POWERING_UP, Status.MIGRATION_DESTINATION])
def test_one_that_has_not_come_yet_is_not(world: World, status: Status) -> None:
    world.machines[VM].status = status
    world.busy = lambda vm_id, now: vm_id == VM
    world.run(60)
    assert not world.told


def test_it_costs_one_look_between_two_samples(world: World) -> None:
    world.run(61)
    assert world.asked == [(n * PERIOD / 2, bool(n % 2)) for n in range(9)]


def test_the_others_are_sampled_in_time_whatever_is_stuck(world: World) -> None:
    world.stopped = {VM: 0.001}
    world.run(600)
    whole = [at for at, brief in world.asked if not brief]
    assert max(after - before for before, after in itertools.pairwise(whole)) <= PERIOD + 0.1
    assert len(world.asked) < 4 * 600 / PERIOD


def test_where_samples_take_long_they_are_not_taken_more_often(world: World) -> None:
    world.takes = 4.0
    world.run(600)
    assert not world.told and len(world.asked) < 1.3 * 600 / (PERIOD / 2)


def test_many_that_begin_one_after_the_other_put_nothing_off(world: World) -> None:
    for tenth in range(1, 100):
        world.run(tenth / 10)
        world.sampler.soon()
    assert len([at for at, brief in world.asked if not brief]) > 5


def test_one_that_is_being_ended_is_there_all_the_same(world: World) -> None:
    world.run(14)
    world.ending = [VM]
    world.run(20)
    assert world.present[-1] == {VM, OTHER}
    # Its last counters stay.
    assert world.sampler.of(VM)[0] is not None and world.sampler.of(VM)[0].taken < 1  # type: ignore[union-attr]
    assert world.sampler.of(OTHER)[0].taken > 14  # type: ignore[union-attr]


def test_a_sample_that_fails_is_not_waited_for_a_whole_period(world: World) -> None:
    world.run(14)
    world.fails = True
    world.run(16)
    world.fails = False
    world.run(23)
    assert world.asked[-1] == (22.5, False) and world.sampler.of(VM)[0].taken > 22  # type: ignore[union-attr]


def test_where_there_is_no_monitor_nobody_looks_at_it(world: World) -> None:
    world.row.monitors = False
    world.run(61)
    assert not any(brief for _, brief in world.asked)
