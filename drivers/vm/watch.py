"""Watch: how machines are, and that and why they have ended.

It promises that what libvirt tells through events is only ever a hint to look, that a machine becomes Down only when libvirt
has answered that its domain is gone (never because it could not be seen), and that news of a predecessor with the same id
do not touch its successor. All calls come from the loop's thread; what blocks runs in workers, keyed by machine.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection
from functools import partial
from typing import TYPE_CHECKING, Any

from drivers.base import Host
from drivers.errors import DriverError, NotResponding
from drivers.vm.connection import Connection
from drivers.vm.contract import (
    CARRIER,
    INTERRUPTED,
    LOST_QEMU,
    MIGRATED,
    NO_ERROR,
    QEMU,
    SAVED,
    TABLE,
    UNBORN,
    Ending,
    Move,
    Settings,
    Status,
    name_of,
)
from drivers.vm.endings import NOTED, Notes, ending_of
from drivers.vm.machine import Journey, Machine, Stage, Way
from drivers.vm.machines import Machines
from state.children import Exit
from state.process import start_time

if TYPE_CHECKING:
    from drivers.vm.hypervisor.link import Link, Seen

log = logging.getLogger("vm")

EVENT_GRACE = 5.0
"""Seconds that the event which says why a domain ended may come later than the sight of its absence."""
LISTING_GRACE = 1.0
"""The same for one that was absent when we connected: most likely it ended before, and nobody will say why."""


class Watch:
    """`starting` has the machines that are being started now: how they are is not to be judged from outside."""

    def __init__(
        self, host: Host, machines: Machines, connection: Connection, settings: Callable[[], Settings]
    ) -> None:
        self.starting: dict[str, Machine] = {}
        self.departed: Callable[[Machine], None] = lambda machine: None
        """Told of a machine on its way whose domain is gone, or whose carrier has ended: finds out what that means."""
        self.came: Callable[[Machine], None] = lambda machine: None
        """Told of a machine that is on its way here when its domain is seen, and `arrived`, when it runs."""
        self.arrived: Callable[[Machine], None] = lambda machine: None
        self._host = host
        self._machines = machines
        self._connection = connection
        self._settings = settings
        self._notes: dict[str, tuple[Machine, Notes]] = {}
        self._unseen: list[Machine] = []
        """Machines to look at when we are connected: something happened after the listing of all, or before it."""

    # Comparing what we have with what is there

    def compare(self, link: Link, live: dict[str, Seen]) -> None:
        """libvirt has listed its domains: hold our machines against them."""
        for machine in self._machines.all():
            if machine.is_down or machine.vm_id in self.starting:
                continue
            seen = live.get(machine.vm_id)
            if seen is not None:
                self.notes(machine).started = True
                self.alive(machine, seen)
                if not machine.pid:
                    self._learn(link, machine)
            elif machine.status in (Status.POWERING_UP, Status.RESTORING):
                self._machines.end(machine, INTERRUPTED)
            elif machine.status is not Status.WAIT_FOR_LAUNCH:
                self._gone(machine, LISTING_GRACE)
        heard, self._unseen = self._unseen, []
        for machine in heard:
            self.look(machine)

    def take_in(self, link: Link, vm_id: str, seen: Seen) -> None:
        """A domain is ours, but we have no record of it: show it, and never touch it unasked."""
        log.warning("A domain is ours but not on record, taking it in vm=%s", vm_id)
        now = time.time()
        machine = Machine(vm_id=vm_id, conf={"vmId": vm_id, "vmName": vm_id, "devices": []}, created=now)
        if seen.coming:
            machine.status, machine.journey = Status.MIGRATION_DESTINATION, Journey(way=Way.IN, begun=now)
        try:
            self._machines.add(machine)
        except DriverError as error:
            log.error("A domain cannot be taken in vm=%s error=%s", vm_id, error)
            return
        self.notes(machine).started = True
        self.alive(machine, seen)
        self._learn(link, machine)

    def sampled(self, present: set[str]) -> None:
        """A sample shows which domains there are: look at machines that it lacks. The safety net under lost events."""
        for machine in self._machines.all():
            if machine.vm_id not in present:
                self.look(machine)

    def _learn(self, link: Link, machine: Machine) -> None:
        vm_id, conf = machine.vm_id, machine.conf

        def learnt(known: tuple[dict[str, Any], int] | None, error: Exception | None) -> None:
            if known is None or not self._machines.is_current(machine):
                return
            with self._machines.lock:
                is_new = machine.conf is not conf  # somebody has changed it: what was read is out of date
                now = machine.conf if is_new else {**conf, **known[0]}
                self._machines.update(machine, conf=now, started=machine.started or time.time())
            self.adopt(machine, known[1])
            if is_new:
                self._learn(link, machine)

        self._host.submit(lambda: link.known(vm_id, conf), learnt, key=vm_id)

    # Hearing and looking

    def notes(self, machine: Machine) -> Notes:
        owner, notes = self._notes.get(machine.vm_id, (None, None))
        if owner is not machine or notes is None:
            # One that runs already when we begin to listen has started before.
            notes = Notes(started=machine.status not in UNBORN)
            self._notes[machine.vm_id] = machine, notes
        return notes

    def heard(self, vm_id: str, what: str, detail: Any) -> None:
        """libvirt tells that something happened (see `libvirt_events.Tell`): note it, and look."""
        machine = self._machines.find(vm_id)
        if machine is None or machine.is_down:
            return
        note = NOTED.get(what)
        if note is not None:
            note(self.notes(machine), detail)
        elif machine.status not in UNBORN or self.notes(machine).started:
            self._happened(machine, what, detail)
        self.look(machine)

    def _happened(self, machine: Machine, what: str, detail: Any) -> None:
        level = logging.DEBUG if what == "changed" else logging.INFO
        log.log(level, "It happened vm=%s what=%r detail=%s", machine.vm_id, what, detail)
        if what == "rebooted" and (machine.status, Move.REBOOTED) in TABLE:
            self._machines.move(machine, Move.REBOOTED, shutdown=None)
        elif what == "clock":
            self._edit(machine, lambda conf: {**conf, "timeOffset": str(detail)})
        elif what == "watchdog":
            self._machines.update(machine, watchdog={"time": time.time(), "action": detail})
        elif what == "unplugged":
            self._edit(machine, lambda conf: without(conf, detail))
        elif what == "io-error":
            self._machines.update(machine, pause_code=detail)

    def _edit(self, machine: Machine, edit: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
        with self._machines.lock:
            self._machines.update(machine, conf=edit(machine.conf))

    def look(self, machine: Machine) -> None:
        """Ask libvirt how the machine is, and go by that; when it is not there now, as soon as it is."""
        link = self._connection.link
        if machine.is_down or machine.status in UNBORN:
            return
        if link is None:
            self._unseen.append(machine)
            return
        asked: list[Machine] = []

        def observe() -> Seen | None:
            asked.append(machine)
            return link.observe(machine.vm_id)

        timeout = self._settings().command_timeout
        self._host.submit(observe, partial(self._looked, machine, asked=asked), key=machine.vm_id, timeout=timeout)

    def _looked(
        self, machine: Machine, seen: Seen | None, error: Exception | None, asked: Collection[Machine] = ()
    ) -> None:
        if not self._machines.is_current(machine):
            return
        if error is not None:
            log.warning("A machine cannot be seen vm=%s error=%s", machine.vm_id, error)
            if isinstance(error, NotResponding) and asked:  # rather than waited for its turn all the time
                self._machines.update(machine, responds=False)
        elif seen is None:
            self._gone(machine, EVENT_GRACE)
        else:
            self.alive(machine, seen)

    def alive(self, machine: Machine, seen: Seen) -> None:
        """libvirt has the machine's domain, like this."""
        if machine.status is Status.MIGRATION_DESTINATION and seen.coming:
            self.came(machine)
            if not machine.pid and self._connection.link is not None:
                self._learn(self._connection.link, machine)
            return
        code = NO_ERROR
        if seen.pause_code != NO_ERROR:
            # What an event said is more exact than what can be seen afterwards.
            code = machine.pause_code if machine.pause_code != NO_ERROR else seen.pause_code
        move = Move.PAUSE if seen.paused else Move.RUN
        with self._machines.lock:
            awaited = machine.status is Status.MIGRATION_DESTINATION
            self._show(machine, move, code)
        link = self._connection.link
        if awaited and machine.status is not Status.MIGRATION_DESTINATION and not machine.is_down and link is not None:
            self._learn(link, machine)
            self.arrived(machine)

    def _show(self, machine: Machine, move: Move, code: str) -> None:
        if not self._machines.is_current(machine):
            return
        if TABLE.get((machine.status, move), machine.status) is not machine.status or code != machine.pause_code:
            self._machines.move(machine, move, pause_code=code)

    # Ending

    def _gone(self, machine: Machine, grace: float) -> None:
        journey = machine.journey
        if machine.status is Status.MIGRATION_DESTINATION and (journey is None or journey.stage is not Stage.MOVING):
            return  # it is still to come
        heard = self.notes(machine).ending
        told_soon = heard is LOST_QEMU and name_of(machine.vm_id, QEMU) in self._host.children  # how it exited
        if heard is not None and not told_soon:
            self._end(machine)
        else:
            self._host.later(grace, lambda: self._end(machine))

    def _end(self, machine: Machine) -> None:
        if not self._machines.is_current(machine):
            return
        heard, journey = self.notes(machine).ending, machine.journey
        leaves = journey is not None and journey.way is not Way.IN and journey.stage is Stage.MOVING
        if leaves and heard not in (MIGRATED, SAVED):
            self.departed(machine)
        else:
            self.conclude(machine, ending_of(machine, self.notes(machine)))

    def conclude(self, machine: Machine, ending: Ending) -> None:
        """The machine has ended, for this reason."""
        if self._machines.is_current(machine):
            self.forget(machine)
            self._machines.end(machine, ending)

    def forget(self, machine: Machine) -> None:
        """Stop watching the machine and its process."""
        self._host.children.forget(name_of(machine.vm_id, QEMU))
        if self._notes.get(machine.vm_id, (None, None))[0] is machine:
            del self._notes[machine.vm_id]

    def adopt(self, machine: Machine, pid: int) -> None:
        """Know the machine's QEMU, so that its end is noticed whatever libvirt says."""
        started = start_time(pid) if pid else None
        if started is None or name_of(machine.vm_id, QEMU) in self._host.children:
            return
        on_exit = partial(self._exited, machine)
        if self._host.children.adopt(name_of(machine.vm_id, QEMU), pid, started, on_exit=on_exit) is not None:
            self._machines.update(machine, pid=pid, pid_start=started)

    def take_child(self, machine: Machine) -> None:
        """Go on watching the QEMU that the previous run watched, and who carries the machine away."""
        self._host.children.take(name_of(machine.vm_id, CARRIER), on_exit=lambda _: self.departed(machine))
        self._host.children.take(name_of(machine.vm_id, QEMU), on_exit=partial(self._exited, machine))

    def _exited(self, machine: Machine, ended: Exit) -> None:
        if self._machines.is_current(machine):
            self.notes(machine).exit_code = ended.code
            self.look(machine)


def without(conf: dict[str, Any], alias: str) -> dict[str, Any]:
    """Return the configuration without the device of that alias."""
    return {**conf, "devices": [device for device in conf["devices"] if device.get("alias") != alias]}
