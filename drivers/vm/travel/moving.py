"""Moving: all that has machines go to other hosts and to files, and come from there, put together. Imported after the first
answer.
"""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING, Any

from drivers.errors import DriverError
from drivers.vm.contract import UNBORN
from drivers.vm.desk import Desk
from drivers.vm.machine import Machine, Way
from drivers.vm.travel.arrivals import Arrivals
from drivers.vm.travel.departures import Departures
from drivers.vm.travel.migration import Migration
from drivers.vm.travel.saving import Saving

if TYPE_CHECKING:
    from drivers.vm.hypervisor.link import Link

log = logging.getLogger("vm")

Struct = dict[str, Any]


class Moving:
    """Its verbs are for workers, with the machine's id as key; all else comes from the loop's thread."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._saving = Saving(desk)
        self._migration = Migration(desk)
        self.departures = Departures(desk, {Way.SAVE: self._saving, Way.OUT: self._migration})
        self.arrivals = Arrivals(desk)
        self._timer: Any = None

    # Verbs

    def hibernate(self, vm_id: str, handle: str) -> None:
        """See `Saving.begin`."""
        self._saving.begin(self.departures, vm_id, handle)
        self._desk.host.in_loop(self.start)

    def migrate(self, params: Struct) -> None:
        """See `Migration.begin`, and `hibernate` for the mode 'file'."""
        if params.get("mode", "remote") == "file":
            self.hibernate(str(params.get("vmId", "")), str(params.get("dst", "")))
            return
        self._migration.begin(self.departures, params)
        self._desk.host.in_loop(self.start)

    def expect(self, params: Struct) -> tuple[Machine, str]:
        """See `Arrivals.expect`."""
        expected = self.arrivals.expect(params)
        self._desk.host.in_loop(self.start)
        return expected

    def cancel(self, vm_id: str) -> None:
        """Have the machine stay. Raises NoSuchVm, NothingToCancel, HypervisorDown."""
        self.departures.cancel(self._desk.machines.get(vm_id))

    # In the loop

    def connected(self, link: Link) -> None:
        """libvirt is there: go on with what was under way, and find what is without our doing."""
        self.departures.connected()
        if link.row.migrates:
            here = [m for m in self._desk.machines.all() if not m.is_down and m.status not in UNBORN]
            idle = [m for m in here if m.journey is None or m.journey.is_over]
            self._desk.host.submit(partial(self._find, link, idle), self._found)
        self.start()

    def unsafe(self) -> str | None:
        return self.departures.unsafe()

    def hold(self, held: bool) -> None:
        self.departures.hold(held)

    def start(self) -> None:
        """Look now and then, as long as somebody is on its way."""
        if self._timer is None and self._under_way():
            self._timer = self._desk.host.later(self._desk.settings().migration_monitor_interval, self._tick)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _under_way(self) -> bool:
        return self.arrivals.any() or any(m.journey and not m.journey.is_over for m in self._desk.machines.all())

    def _tick(self) -> None:
        self._timer = None
        self.departures.tick()
        self.arrivals.tick()
        self.start()

    def _find(self, link: Link, idle: list[Machine]) -> list[tuple[Machine, Way]]:
        """Return those that are on their way: every job must be looked at, and not every one is a migration."""
        found: list[tuple[Machine, Way]] = []
        for machine in idle:
            try:
                underway = link.jobs.underway(machine.vm_id)
            except DriverError as error:
                log.info("It cannot be seen whether it is on its way vm=%s error=%s", machine.vm_id, error)
                continue
            if underway is not None and underway.way in (Way.OUT, Way.SAVE):
                found.append((machine, underway.way))
        return found

    def _found(self, found: list[tuple[Machine, Way]] | None, error: Exception | None) -> None:
        if found is None:
            log.error("It is not known which machines are on their way", exc_info=error)
        for machine, way in found or []:
            self.departures.adopt(machine, way)
        self.start()
