"""Launcher: machines that wait for it are started, a few at a time.

It promises that a machine that waits is on record, so that a re-exec in between costs nothing but time; that none is begun
while a re-exec is wanted; and that it is known how each start ended before a re-exec may come.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from drivers.base import Host
from drivers.errors import Busy, DriverError, Failed, HypervisorDown
from drivers.hooks import Hooks
from drivers.vm.belongings import Belongings
from drivers.vm.connection import Connection
from drivers.vm.console import Consoles
from drivers.vm.contract import Ending, ExitCode, ExitReason, Identity, Move, Settings, Status, no_room
from drivers.vm.hooked import Hooked
from drivers.vm.machine import Machine, Machines
from drivers.vm.watch import Watch

if TYPE_CHECKING:
    from drivers.vm.changes.images import Images
    from drivers.vm.link import Link, Seen

log = logging.getLogger("vm")

AT_ONCE = 4
"""Machines that are started at the same time."""
ATTEMPTS = 5
"""For a start that fails because somebody else took the port that libvirt had chosen for a display."""


class Launched(msgspec.Struct, frozen=True):
    """What a start brought about."""

    seen: Seen
    learnt: dict[str, Any]
    pid: int
    xml: str


class Launcher:
    """All calls come from the loop's thread. `identify`, in a worker, says what guests are told of their host; `launched` is
    called after each start that succeeded."""

    def __init__(
        self,
        host: Host,
        machines: Machines,
        consoles: Consoles,
        connection: Connection,
        watch: Watch,
        settings: Callable[[], Settings],
        identify: Callable[[], Identity],
        launched: Callable[[], None],
        belongings: Belongings,
        hooked: Hooked,
    ) -> None:
        self._host = host
        self._machines = machines
        self._consoles = consoles
        self._connection = connection
        self._watch = watch
        self._settings = settings
        self._identify = identify
        self._launched = launched
        self._belongings = belongings
        self._hooked = hooked
        self._held = False
        self.images: Callable[[], Images | None] = lambda: None
        self.hooks: Callable[[], Hooks] = lambda: Hooks("")
        """What finds saved memories, and the operator's scripts around their use."""
        self.restored: Callable[[Machine], None] = lambda machine: None
        """Told, after `launched`, of a machine that goes on from a saved memory."""

    def hold(self, held: bool) -> None:
        """Begin nothing while held; then begin what waits."""
        self._held = held
        self.launch_waiting()

    def launch_waiting(self) -> None:
        """Launch what waits for it, as far as that is possible now. What is left waits on, over an exec too."""
        link = self._connection.link
        for machine in self._machines.all():
            if link is None or self._held or len(self._watch.starting) >= AT_ONCE:
                return
            if machine.status is Status.WAIT_FOR_LAUNCH and machine.vm_id not in self._watch.starting:
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
        conf = self._belongings.make(machine.conf, link.row)
        if _remembers(conf):
            seen, xml = self._restore(link, conf), ""
        else:
            xml = self._define(link, conf)
            with self._hooked.start(conf, xml, lambda: link.xml(vm_id)) as xml:
                seen = self._create(link, machine, xml)
        known, pid = link.known(vm_id, conf)
        self._belongings.watch_all(vm_id, known.get("devices") or conf["devices"], link.row)
        return Launched(seen, {"devices": conf["devices"], **known}, pid, xml if link.row.volatile else "")

    def _define(self, link: Link, conf: dict[str, Any]) -> str:
        return link.definition(
            conf,
            channels_dir=self.room(link),
            console=self._consoles.prefix(str(conf["vmId"])),
            identity=self._identify(),
            drive_cache=self._settings().drive_cache,
            amend=self._hooked.amend(conf),
        )

    def trouble(self, link: Link) -> str:
        """Say why no machine can be started, whichever it is; '' when there is no such reason."""
        return no_room(self._channels) if link.row.channels else ""

    @property
    def _channels(self) -> str:
        return f"{self._host.run_dir}/channels"

    def room(self, link: Link) -> str:
        """Return the folder for guests' channels, which is there by then. Raises Failed when they would not fit there."""
        if trouble := self.trouble(link):
            raise Failed(action="starting", reason=trouble)
        os.makedirs(self._channels, mode=0o711, exist_ok=True)
        return self._channels

    def _restore(self, link: Link, conf: dict[str, Any]) -> Seen:
        # Deferred, as below.
        from drivers.vm.changes.images import Paths
        from drivers.vm.params import handling_of
        from drivers.vm.restoring import Restoring

        vm_id, images = str(conf["vmId"]), self.images() or Paths()
        prefix = self._consoles.prefix(vm_id)
        restoring = Restoring(images, self.hooks(), conf)
        xml = restoring.definition(link, channels_dir=self.room(link), console=prefix)
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
        # Deferred: nobody needs it before the first answer. `vdsmd.deferred` has it imported.
        from drivers.vm.params import handling_of

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
            self._connection.lost(str(error))  # the next connection will show, and the others wait for it
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
                self.restored(machine)

    def _failed(self, machine: Machine, error: Exception | None) -> None:
        if not isinstance(error, DriverError | OSError):
            log.error("Unexpected failure while starting vm=%s", machine.vm_id, exc_info=error)
        self._machines.end(machine, Ending(ExitCode.ERROR, ExitReason.LIBVIRT_START_FAILED, str(error)))


_MEMORY = ("hiberVolHandle", "restoreState", "restoreFromSnapshot")
"""Parameters of a machine that goes on from a saved memory. They hold for one start."""


def _remembers(conf: dict[str, Any]) -> bool:
    return any(conf.get(name) for name in _MEMORY[:2])
