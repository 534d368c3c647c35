"""Changing: all that changes running virtual machines, put together. Imported after the first answer.

It promises that a change which a crash has cut short is settled before anyone changes the same machine again.
"""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING

from drivers.errors import DriverError
from drivers.vm.changes.bench import Bench
from drivers.vm.changes.drives import Drives
from drivers.vm.changes.jobs import Jobs
from drivers.vm.changes.merges import Merges, Pulls
from drivers.vm.changes.nics import Nics
from drivers.vm.changes.replicas import Replicas
from drivers.vm.changes.resources import Resources
from drivers.vm.changes.snapshots import Snapshots
from drivers.vm.changes.tuning import Tuning
from drivers.vm.desk import Desk
from drivers.vm.machine import Machine

if TYPE_CHECKING:
    from drivers.vm.hypervisor.link import Link

log = logging.getLogger("vm")


class Changing:
    """See `drivers.vm.changes` for the parts, whose calls belong into workers, with the machine's id as key. The calls of this
    class itself come from the loop's thread."""

    def __init__(self, desk: Desk) -> None:
        self._host = desk.host
        self._machines = desk.machines
        self._bench = Bench(desk)
        self.drives = Drives(self._bench)
        self.nics = Nics(self._bench)
        self.resources = Resources(self._bench)
        self.tuning = Tuning(self._bench)
        self.snapshots = Snapshots(self._bench)
        self.jobs = Jobs(self._bench, desk.connection)
        self.merges = Merges(self._bench, self.jobs)
        self.pulls = Pulls(self._bench, self.jobs)
        self.replicas = Replicas(self._bench, self.jobs)
        self.jobs.kinds.update(commit=self.merges, pull=self.pulls, copy=self.replicas)

    def connected(self, link: Link) -> None:
        """libvirt is there: find out what came of changes that nobody saw the end of, and look after jobs again."""
        for machine in self._machines.all():
            if not machine.is_down and (machine.intended or machine.frozen):
                work = partial(self._take_up, machine, link)
                self._host.submit(work, partial(self._taken_up, machine), key=machine.vm_id)
        self.jobs.start()

    def unsafe(self) -> str | None:
        """Say what must end before a re-exec."""
        underway = [f"{vm_id} ({what})" for vm_id, what in sorted(self._bench.underway.items())]
        return f"virtual machines are being changed: {', '.join(underway)}" if underway else None

    def _take_up(self, machine: Machine, link: Link) -> None:
        if machine.intended:
            self._bench.settle(machine, link)
        if machine.frozen:
            self.snapshots.thaw_after(machine, link)

    def _taken_up(self, machine: Machine, _: None, error: Exception | None) -> None:
        if isinstance(error, DriverError):
            log.warning("A change is settled later vm=%s error=%s", machine.vm_id, error)
        elif error is not None:
            log.error("Unexpected failure while settling a change vm=%s", machine.vm_id, exc_info=error)
