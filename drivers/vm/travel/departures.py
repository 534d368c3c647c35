"""Departures: machines that leave, for another host or into a file.

    waiting -> beginning -> moving -> done, and the machine is Down; or failed, and it is here as before

It promises that what libvirt is at goes on over a re-exec and a crash of ours wherever libvirt is a process of its own, and is
taken up again, with its limits; that what libvirt says decides how it ended, and that a machine is only ever told to be
elsewhere when somebody has said so who knows. Calls come from the loop's thread unless said otherwise.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from drivers.errors import DriverError, Failed, NoSuchVm
from drivers.vm.contract import CARRIER, Ending, Move, Status, name_of
from drivers.vm.desk import Desk
from drivers.vm.errors import NothingToCancel, OnItsWay
from drivers.vm.machine import Journey, Machine, Stage, Way
from drivers.vm.travel.carrier import Done, Order
from drivers.vm.travel.carriers import Carriers
from drivers.vm.travel.lookout import ENDINGS, Found, Kind, Lookout

if TYPE_CHECKING:
    from drivers.vm.hypervisor.link import Link

log = logging.getLogger("vm")

AGAIN = 1.0
"""Seconds until another look, where the next is due soon."""
CANCELLED = "Migration was cancelled"
MOVES = {Way.OUT: Move.LEAVE, Way.SAVE: Move.SAVE}


class Departures:
    """See the module."""

    def __init__(self, desk: Desk, kinds: Mapping[Way, Kind]) -> None:
        self._desk = desk
        self._kinds = kinds
        self._carriers = Carriers(desk.host)
        self._beginning: dict[str, Machine] = {}
        self._lookout = Lookout(desk, kinds, self._carriers)
        self._xml: dict[str, str] = {}
        """Their definitions."""
        self._looking: set[str] = set()
        self.held = False
        """Whether nothing may begin."""

    # In workers

    def begin(self, machine: Machine, journey: Journey) -> None:
        """Have the machine leave as soon as it is its turn. Raises OnItsWay, IllegalMove."""
        with self._desk.machines.lock:
            under_way = machine.journey is not None and not machine.journey.is_over
            if under_way or machine.status in (Status.SAVING, Status.MIGRATION_SOURCE, Status.MIGRATION_DESTINATION):
                raise OnItsWay(vm=machine.vm_id, status=machine.status)
            self._desk.machines.move(machine, MOVES[journey.way], journey=journey)
        self._desk.host.in_loop(self.next)

    def cancel(self, machine: Machine) -> None:
        """Have it stay. Raises NothingToCancel, HypervisorDown."""
        with self._desk.machines.lock:
            journey = machine.journey
            if journey is None or journey.is_over or journey.way is Way.IN or machine.is_down:
                raise NothingToCancel(vm=machine.vm_id)
            told = msgspec.structs.replace(journey, told=journey.told or CANCELLED, code=journey.code or "migCancelErr")
            self._desk.machines.update(machine, journey=told)
        if journey.stage is Stage.WAITING:
            self._desk.host.in_loop(partial(self._give_up_waiting, machine))
        if journey.stage is Stage.MOVING:
            try:
                self._desk.connection.require().jobs.abort(machine.vm_id)
            except (Failed, NoSuchVm) as error:
                # It has not begun yet, or is over: the next look shows.
                log.info("Nothing to abort vm=%s error=%s", machine.vm_id, error)
                self._desk.host.in_loop(partial(self._soon, machine))

    # In the loop

    def unsafe(self) -> str | None:
        if self._beginning:
            return f"virtual machines are being made ready to leave: {', '.join(sorted(self._beginning))}"
        # Until it has been seen how it ended: the next run would not know the definition that scripts are given then.
        saved = self._lookout.inside | (self._xml.keys() & {machine.vm_id for machine in self._departing()})
        if saved:
            return f"virtual machines are being saved: {', '.join(sorted(saved))}"
        return None

    def hold(self, held: bool) -> None:
        """Begin nothing while held; then what waits."""
        self.held = held
        self.next()

    def connected(self) -> None:
        """libvirt is there: go on with what was under way."""
        departing = {machine.vm_id for machine in self._departing()}
        for vm_id in self._carriers.left():
            if vm_id not in departing and not self._carriers.at_work(vm_id):
                self._carriers.forget(vm_id)  # its machine was destroyed, and we did not come to see its end
        for machine in self._departing():
            assert machine.journey is not None
            if machine.journey.stage is Stage.MOVING:
                self.attend(machine)
            elif machine.journey.stage is Stage.BEGINNING and machine.vm_id not in self._beginning:
                self._fail(machine, Failed(action="leaving", reason="the daemon ended before it had begun"))
        self.next()

    def adopt(self, machine: Machine, way: Way) -> None:
        """libvirt is at it, but we have no record of that."""
        with self._desk.machines.lock:
            if self._desk.machines.is_current(machine) and (machine.journey is None or machine.journey.is_over):
                log.warning("A machine is on its way without our doing vm=%s way=%s", machine.vm_id, way)
                journey = Journey(way=way, stage=Stage.MOVING, begun=time.time())
                self._desk.machines.move(machine, MOVES[way], journey=journey)

    def next(self) -> None:
        """Begin with those whose turn it is."""
        link = self._desk.connection.link
        waiting = [m for m in self._departing() if m.journey and m.journey.stage is Stage.WAITING]
        for machine in sorted(waiting, key=lambda machine: machine.status_since):
            if link is None or self.held:
                return
            if self._may_begin(machine):
                self._begin(machine, link)

    def attend(self, machine: Machine) -> None:
        """Look at how it is going."""
        link = self._desk.connection.link
        journey = machine.journey
        if self._desk.machines.find(machine.vm_id) is not machine:
            if not self._carriers.at_work(machine.vm_id):
                self._carriers.forget(machine.vm_id)
        elif journey and journey.stage is Stage.MOVING and link and machine.vm_id not in self._looking:
            self._looking.add(machine.vm_id)
            self._desk.host.submit(
                partial(self._lookout.look, machine, journey, link),
                partial(self._looked, machine),
                key=f"{machine.vm_id}/way",
            )

    def tick(self) -> None:
        if not self.held:
            for machine in self._departing():
                self.attend(machine)

    def _departing(self) -> list[Machine]:
        found = self._desk.machines.all()
        return [m for m in found if m.journey and m.journey.way is not Way.IN and not m.journey.is_over]

    def _may_begin(self, machine: Machine) -> bool:
        if machine.journey is None or machine.journey.way is not Way.OUT:
            return True
        gone = [m.journey for m in self._departing() if m.journey and m.journey.way is Way.OUT]
        busy = [journey for journey in gone if journey.stage is not Stage.WAITING]
        return len(busy) < max(1, self._desk.settings().max_outgoing_migrations)

    def _begin(self, machine: Machine, link: Link) -> None:
        assert machine.journey is not None
        self._desk.note(machine, msgspec.structs.replace(machine.journey, stage=Stage.BEGINNING))
        self._beginning[machine.vm_id] = machine
        prepare = self._kinds[machine.journey.way].prepare
        # No time-out: it must be known whether it has begun before a re-exec may come.
        self._desk.host.submit(
            partial(prepare, machine, link),
            partial(self._prepared, machine, link),
            key=f"{machine.vm_id}/way",
            timeout=0,
        )

    def _prepared(self, machine: Machine, link: Link, order: Order | None, error: Exception | None) -> None:
        self._beginning.pop(machine.vm_id, None)
        journey = machine.journey
        assert journey is not None
        if order is None or journey.told or not self._desk.machines.is_current(machine):
            self._fail(machine, error)
            return
        try:
            self._carry(machine, msgspec.structs.replace(journey, stage=Stage.MOVING, begun=time.time()), link, order)
        except OSError as failure:
            self._fail(machine, failure)

    def _carry(self, machine: Machine, journey: Journey, link: Link, order: Order) -> None:
        vm_id = machine.vm_id
        self._lookout.forget(vm_id)
        self._desk.note(machine, journey)
        if not link.row.children_are_ours:
            self._carriers.start(order, lambda _: self.attend(machine))
        else:
            self._lookout.inside.add(vm_id)
            self._xml[vm_id] = order.xml
            save = partial(link.jobs.save, vm_id, order.target)
            self._desk.host.submit(save, partial(self._saved, machine), key=f"{vm_id}/inside", timeout=0)

    def _saved(self, machine: Machine, _: None, error: Exception | None) -> None:
        self._lookout.inside.discard(machine.vm_id)
        self._lookout.results[machine.vm_id] = Done(error=str(error) if error else "")
        self.attend(machine)

    def _give_up_waiting(self, machine: Machine) -> None:
        if machine.journey is not None and machine.journey.stage is Stage.WAITING:
            self._fail(machine, None)

    def _soon(self, machine: Machine) -> None:
        self._desk.host.later(AGAIN, lambda: self.attend(machine))

    # How it ended

    def _looked(self, machine: Machine, found: Found | None, error: Exception | None) -> None:
        self._looking.discard(machine.vm_id)
        journey = machine.journey
        if journey is None or journey.is_over:
            return
        if found is None:
            log.warning("It cannot be seen how it is going vm=%s error=%s", machine.vm_id, error)
            self._soon(machine)
        elif found.stays is not None:
            self._fail(machine, Failed(action="leaving", reason=found.stays))
        elif found.ending is not None:
            self._left(machine, journey, found.ending)
        elif name_of(machine.vm_id, CARRIER) not in self._desk.host.children:
            self._soon(machine)  # nobody tells us of its end

    def _left(self, machine: Machine, journey: Journey, ending: Ending) -> None:
        if not machine.is_down:
            self._desk.watch.conclude(machine, ending)
        went = ending in ENDINGS.values()
        after = msgspec.structs.replace(
            journey, stage=Stage.DONE if went else Stage.FAILED, progress=100 if went else journey.progress
        )
        self._desk.note(machine, after, told="" if went else ending.message)
        order = self._carriers.order(machine.vm_id)
        xml = order.xml if order else self._xml.get(machine.vm_id, "")
        kind = self._kinds[journey.way]
        then = partial(kind.left, machine, after, xml) if went else partial(kind.failed, machine, after)
        self._finish(machine, then)

    def _fail(self, machine: Machine, error: Exception | None) -> None:
        if error is not None and not isinstance(error, DriverError | OSError):
            log.error("Unexpected failure while leaving vm=%s", machine.vm_id, exc_info=error)
        with self._desk.machines.lock:
            journey = machine.journey
            assert journey is not None
            told, code = (
                journey.told or str(error or "it was ended"),
                journey.code or getattr(type(error), "wire", "") or "migrateErr",
            )
            after = msgspec.structs.replace(journey, stage=Stage.FAILED, told=told, code=code)
            if self._desk.machines.is_current(machine) and machine.status in (Status.SAVING, Status.MIGRATION_SOURCE):
                self._desk.machines.move(machine, Move.STAY)
            self._desk.note(machine, after, told=told)
        self._desk.watch.look(machine)
        self._finish(machine, partial(self._kinds[journey.way].failed, machine, after))

    def _finish(self, machine: Machine, then: Any) -> None:
        self._lookout.forget(machine.vm_id)
        self._xml.pop(machine.vm_id, None)
        self._carriers.forget(machine.vm_id)
        self._desk.host.submit(then, partial(self._finished, machine), key=f"{machine.vm_id}/way", timeout=0)
        self.next()

    def _finished(self, machine: Machine, _: None, error: Exception | None) -> None:
        if isinstance(error, DriverError):
            log.error("Something was left after a machine was on its way vm=%s error=%s", machine.vm_id, error)
        elif error is not None:
            log.error("Unexpected failure after a machine was on its way vm=%s", machine.vm_id, exc_info=error)
