"""Lookout: how machines on their way are doing, and what becomes of them.

It promises that what libvirt says decides how a journey ended, and that the limits of a migration hold whoever began it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

import msgspec

from drivers.errors import Failed, NoSuchVm
from drivers.vm.contract import MIGRATED, SAVED, Ending
from drivers.vm.desk import Desk
from drivers.vm.machine import Journey, Machine, Way
from drivers.vm.travel import limits
from drivers.vm.travel.carrier import Done, Order
from drivers.vm.travel.carriers import Carriers

if TYPE_CHECKING:
    from drivers.vm.hypervisor.jobs import Underway
    from drivers.vm.hypervisor.link import Link

log = logging.getLogger("vm")

ENDINGS = {Way.OUT: MIGRATED, Way.SAVE: SAVED}


class Kind(Protocol):
    """What is special about a way to leave. All of it in a worker."""

    def prepare(self, machine: Machine, link: Link) -> Order:
        """Have everything ready, and say what libvirt is to do."""

    def ending(self, machine: Machine) -> Ending | None:
        """The domain is gone, and nobody has said why: find out. None when it cannot be known now."""

    def failed(self, machine: Machine, journey: Journey) -> None:
        """It stays: undo what was prepared."""

    def left(self, machine: Machine, journey: Journey, xml: str) -> None:
        """It has left. `xml`: its definition."""


class Found(msgspec.Struct, frozen=True):
    """What a look has found: nothing new, that it has ended like this, or that it stays, for this reason."""

    ending: Ending | None = None
    stays: str | None = None


class Lookout:
    """Looks are taken in workers; all else comes from the loop's thread."""

    def __init__(self, desk: Desk, kinds: Mapping[Way, Kind], carriers: Carriers) -> None:
        self.inside: set[str] = set()
        """Machines that libvirt is saving inside of this process."""
        self.results: dict[str, Done] = {}
        """How that ended."""
        self._desk = desk
        self._kinds = kinds
        self._carriers = carriers
        self._marks: dict[str, limits.Mark] = {}

    def forget(self, vm_id: str) -> None:
        """What is known of a journey of the machine does not hold any more."""
        self._marks.pop(vm_id, None)
        self.results.pop(vm_id, None)

    def look(self, machine: Machine, journey: Journey, link: Link) -> Found:
        """Find out how it is going. Raises what libvirt and the kind of the journey raise."""
        vm_id = machine.vm_id
        if vm_id in self.inside or self._carriers.at_work(vm_id):
            try:
                self._supervise(machine, link)
            except NoSuchVm:
                log.debug("It is gone, and how will be told soon vm=%s", vm_id)
            return Found()
        done = self.results.get(vm_id) or self._carriers.done(vm_id)
        seen = None if machine.is_down else link.observe(vm_id)
        if seen is not None:
            underway = self._supervise(machine, link)
            if underway is not None and underway.way is journey.way:
                return Found()  # whoever carried it has ended, and libvirt goes on
            return Found(stays=(done.error if done else "") or "it ended, and nobody knows why")
        if machine.ending is not None:
            return Found(ending=machine.ending)
        if done is not None and done.error:
            return Found(stays=done.error)  # nor does it run here: it has ended for a reason of its own
        return Found(ending=ENDINGS[journey.way] if done else self._kinds[journey.way].ending(machine))

    def _supervise(self, machine: Machine, link: Link) -> Underway | None:
        underway = link.jobs.underway(machine.vm_id)
        with self._desk.machines.lock:
            journey = machine.journey
            if underway is None or journey is None or underway.way is not journey.way:
                return underway
            if journey.progress != underway.progress:
                # Not worth a checkpoint: libvirt knows it.
                machine.journey = msgspec.structs.replace(journey, progress=underway.progress)
        if journey.told:
            self._abort(machine, link)
        elif journey.way is Way.OUT:
            self._limit(machine, link, journey, underway)
        return underway

    def _limit(self, machine: Machine, link: Link, journey: Journey, underway: Underway) -> None:
        vm_id, now, settings = machine.vm_id, time.time(), self._desk.settings()
        mem = int(machine.conf.get("memSize", 0))
        mark = limits.advanced(self._marks.get(vm_id), underway.remaining, underway.total, now)
        self._marks[vm_id] = mark
        if why := limits.exceeded(mark, settings, mem_mib=mem, begun=journey.begun, now=now):
            with self._desk.machines.lock:
                told = msgspec.structs.replace(machine.journey or journey, told=why, code="migrateErr")
                self._desk.machines.update(machine, journey=told)
            log.error("A migration is given up vm=%s: %s", vm_id, why)
            self._abort(machine, link)
            return
        most = journey.downtime or settings.migration_downtime
        allowed = limits.downtime(settings, most=most, mem_mib=mem, begun=journey.begun, now=now)
        if allowed != mark.downtime:
            self._marks[vm_id] = msgspec.structs.replace(mark, downtime=allowed)
            try:
                link.jobs.allow_downtime(vm_id, allowed)
            except Failed as error:
                log.info("The downtime cannot be set now vm=%s error=%s", vm_id, error)

    def _abort(self, machine: Machine, link: Link) -> None:
        try:
            link.jobs.abort(machine.vm_id)
        except Failed as error:
            log.info("Aborting vm=%s error=%s", machine.vm_id, error)
