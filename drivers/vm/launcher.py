"""Launcher: machines that wait for it are started, a few at a time.

It promises that a machine that waits is on record, so that a re-exec in between costs nothing but time; that none is begun
while a re-exec is wanted; and that it is known how each start ended before a re-exec may come.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from drivers.errors import Busy, DriverError, Failed, HypervisorDown
from drivers.vm.conf.params import handling_of
from drivers.vm.contract import Ending, ExitCode, ExitReason, Move, Status
from drivers.vm.desk import Desk
from drivers.vm.machine import Machine
from drivers.vm.travel.restoring import Restoring

if TYPE_CHECKING:
    from drivers.vm.hypervisor.link import Link, Seen

log = logging.getLogger("vm")

AT_ONCE = 4
"""Machines that are started at the same time."""
ATTEMPTS = 20
"""For a start that fails because somebody else took the port that libvirt had chosen for a display. Several daemons that start
machines at the same time choose the same ports, one after the other."""


class Launched(msgspec.Struct, frozen=True):
    """What a start brought about."""

    seen: Seen
    learnt: dict[str, Any]
    pid: int
    xml: str


class Launcher:
    """All calls come from the loop's thread. `launched` is called after each start that succeeded, and then `restored` with a
    machine that goes on from a saved memory. `taken` says whether a predecessor with that id is still being ended."""

    def __init__(
        self,
        desk: Desk,
        launched: Callable[[], None],
        restored: Callable[[Machine], None],
        taken: Callable[[str], bool],
    ) -> None:
        self.held = False
        """Whether nothing may begin."""
        self._desk = desk
        self._host = desk.host
        self._machines = desk.machines
        self._consoles = desk.consoles
        self._watch = desk.watch
        self._launched = launched
        self._restored = restored
        self._taken = taken

    def launch_waiting(self) -> None:
        """Launch what waits for it, as far as that is possible now. What is left waits on, over an exec too."""
        link = self._desk.connection.link
        for machine in self._machines.all():
            if link is None or self.held or len(self._watch.starting) >= AT_ONCE:
                return
            busy = machine.vm_id in self._watch.starting or self._taken(machine.vm_id)
            if machine.status is Status.WAIT_FOR_LAUNCH and not busy:
                self._launch(link, machine)

    def _launch(self, link: Link, machine: Machine) -> None:
        with self._machines.lock:
            if not self._machines.is_current(machine):
                return
            self._machines.move(machine, Move.RESTORE if _remembers(machine.conf) else Move.LAUNCH)
            self._watch.notes(machine)  # from now on: what is heard before its start is about a predecessor
        self._watch.starting[machine.vm_id] = machine
        # No time-out: it must be known how it ended before a re-exec may come.
        self._host.submit(
            lambda: self._start(link, machine), partial(self._started, machine), key=machine.vm_id, timeout=0
        )

    def _start(self, link: Link, machine: Machine) -> Launched | None:
        """In a worker, with the machine's key: nobody destroys it meanwhile."""
        if not self._machines.is_current(machine):
            return None
        vm_id = machine.vm_id
        conf = self._desk.belongings.make(machine.conf, link.row)
        if _remembers(conf):
            seen, xml = self._restore(link, conf), ""
        else:
            xml = self._define(link, conf)
            with self._desk.hooked.start(conf, xml, lambda: link.xml(vm_id)) as xml:
                seen = self._create(link, machine, xml)
        known, pid = link.known(vm_id, conf)
        self._desk.belongings.watch_all(vm_id, known.get("devices") or conf["devices"], link.row)
        return Launched(seen, {"devices": conf["devices"], **known}, pid, xml if link.row.volatile else "")

    def _define(self, link: Link, conf: dict[str, Any]) -> str:
        return link.definition(
            conf,
            channels_dir=self._desk.room(link),
            console=self._consoles.prefix(str(conf["vmId"])),
            identity=self._desk.identify(),
            drive_cache=self._desk.settings().drive_cache,
            address_on=self._desk.address_on,
            amend=self._desk.hooked.amend(conf),
        )

    def _restore(self, link: Link, conf: dict[str, Any]) -> Seen:
        vm_id, prefix = str(conf["vmId"]), self._consoles.prefix(str(conf["vmId"]))
        restoring = Restoring(self._desk.images(), self._desk.hooked, conf, self._desk.address_on)
        xml = restoring.definition(link, channels_dir=self._desk.room(link), console=prefix)
        try:
            self._consoles.prepare(vm_id)
            restoring.restore(link, xml, paused=handling_of(conf).launch_paused)
        except (DriverError, OSError):
            self._consoles.remove(vm_id)
            raise
        seen = link.observe(vm_id)
        if seen is None:
            raise Failed(action="restoring", reason="it has ended at once")
        restoring.after(link)
        return seen

    def _create(self, link: Link, machine: Machine, xml: str) -> Seen:
        paused = handling_of(machine.conf).launch_paused
        for attempt in range(1, ATTEMPTS + 1):
            try:
                if link.row.consoles:
                    self._consoles.prepare(machine.vm_id)
                return link.create(xml, paused=paused)
            except (DriverError, OSError) as error:
                self._consoles.remove(machine.vm_id)
                if not isinstance(error, Busy) or attempt == ATTEMPTS:
                    raise
                log.warning("Starting once more vm=%s error=%s", machine.vm_id, error)
        raise AssertionError("the last attempt returns or raises")

    def _started(self, machine: Machine, launched: Launched | None, error: Exception | None) -> None:
        self._watch.starting.pop(machine.vm_id, None)
        unknown = isinstance(error, HypervisorDown)
        if unknown:
            log.error("It is not known whether a machine has started vm=%s error=%s", machine.vm_id, error)
            self._desk.connection.lost(str(error))  # the next connection will show, and the others wait for it
        self.launch_waiting()
        if unknown or not self._machines.is_current(machine):
            return
        if launched is None:
            self._failed(machine, error)
        else:
            # What was heard of it meanwhile stays: it is in the present conf.
            remembers = _remembers(machine.conf)
            conf = {key: value for key, value in {**machine.conf, **launched.learnt}.items() if key not in _MEMORY}
            self._machines.update(machine, conf=conf, xml=launched.xml, started=time.time())
            self._watch.alive(machine, launched.seen)
            self._watch.adopt(machine, launched.pid)
            self._watch.look(machine)
            self._launched()
            if remembers:
                self._restored(machine)

    def _failed(self, machine: Machine, error: Exception | None) -> None:
        if not isinstance(error, DriverError | OSError):
            log.error("Unexpected failure while starting vm=%s", machine.vm_id, exc_info=error)
        self._machines.end(machine, Ending(ExitCode.ERROR, ExitReason.LIBVIRT_START_FAILED, str(error)))


_MEMORY = ("hiberVolHandle", "restoreState", "restoreFromSnapshot")
"""Parameters of a machine that goes on from a saved memory. They hold for one start."""


def _remembers(conf: dict[str, Any]) -> bool:
    return any(conf.get(name) for name in _MEMORY[:2])
