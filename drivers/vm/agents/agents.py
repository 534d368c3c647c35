"""Agents: all guests whose agents we listen to, and what can be asked of them.

It promises that every machine that runs is listened to, that what its agents told outlives an exec together with the connection
and the line that has arrived in part, and a crash without them, and that no guest can delay another. Nothing of a protocol is
imported before the first answer.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from drivers.base import Host
from drivers.errors import DriverError, NotResponding
from drivers.vm.connection import Connection
from drivers.vm.contract import AGENT, UNBORN, Settings, Status, name_of
from drivers.vm.machine import Machine
from drivers.vm.machines import Machines
from state.records import UNREADABLE

if TYPE_CHECKING:
    from drivers.vm.agents.channel import Floods
    from drivers.vm.agents.guest import Guest
    from drivers.vm.agents.remembered import Remembered
    from drivers.vm.agents.surveyor import Surveyor
    from drivers.vm.agents.told import Kept
    from drivers.vm.hypervisor.link import Link

log = logging.getLogger("guest")

OVIRT = "ovirt"
QEMU = "qemu"
"""The kinds of agents."""

NEWS_PATIENCE = 120.0
"""Seconds for which it is worth telling a guest what has happened to it."""


class Agents:
    """All calls come from the loop's thread, but `way`, `shut_down` and `advise`, which come from workers."""

    def __init__(
        self, host: Host, machines: Machines, connection: Connection, settings: Callable[[], Settings]
    ) -> None:
        self._host = host
        self._machines = machines
        self._connection = connection
        self._settings = settings
        self._guests: dict[str, Guest] = {}
        self._surveyor: Surveyor | None = None
        self._remembered: Remembered | None = None
        self._floods: Floods | None = None
        self._text: str | None = None
        """What the previous run handed over, until somebody asks for it; None when it handed over nothing."""
        self._recalled = False
        self._left: dict[str, Kept] = {}
        self._fds: dict[str, int] = {}
        self._runs = False
        self._timer: Any = None

    # As part of an owner

    def text(self) -> str:
        """Return all that is to outlive an exec as text that `load` understands."""
        if self._text:
            return self._text  # nobody has asked yet
        left = self._all_left()
        if not self._guests and not left:
            return ""
        from drivers.vm.agents.guest import save

        known = {vm_id: guest.snapshot() for vm_id, guest in self._guests.items()}
        return save(left | known)

    def load(self, text: str) -> None:
        self._text = text

    def claim(self, vm_id: str) -> None:
        """Take over the connection that the previous run had to the guest."""
        fd = self._host.fds.take(name_of(vm_id, AGENT))
        if fd is not None:
            self._fds[vm_id] = fd

    def start(self) -> None:
        """Listen. May be called again."""
        self._runs = True
        for guest in self._guests.values():
            guest.start()
        self.attend()
        if self._timer is None:
            self._remember_later()

    def quiesce(self) -> None:
        """Read nothing and begin nothing until `start`."""
        self._runs = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._surveyor is not None:
            self._surveyor.stop()
        for guest in self._guests.values():
            guest.stop()

    @property
    def asked(self) -> list[str]:
        """The ids of machines whose QEMU guest agent has yet to answer."""
        return self._surveyor.running if self._surveyor is not None else []

    def hold(self, held: bool) -> None:
        """Begin nothing in worker threads while held."""
        self._held_surveyor().hold(held)

    # Which guests

    def attend(self) -> None:
        """Listen to every machine that runs, and to no other."""
        if not self._runs:
            return
        for guest in list(self._guests.values()):
            if not self._machines.is_current(guest.machine):
                self._drop(guest)
        link = self._connection.link
        for machine in self._machines.all():
            if not machine.is_down and machine.status not in UNBORN:
                self._attend(self._guest(machine), link)
        for vm_id in list(self._fds):
            if vm_id not in self._guests:
                del self._fds[vm_id]
                self._host.fds.drop(name_of(vm_id, AGENT))
        # What is left now was told by guests that have ended, and is not to be believed of later ones with their ids.
        for vm_id in self._all_left():
            self._memory().forget(vm_id)
        self._left.clear()
        self._held_surveyor().look_around()

    def forget(self, machine: Machine) -> None:
        """The machine has ended: there is nobody to listen to."""
        guest = self._guests.get(machine.vm_id)
        if guest is not None and guest.machine is machine:
            self._drop(guest)

    def _drop(self, guest: Guest) -> None:
        guest.close()
        del self._guests[guest.machine.vm_id]
        self._memory().forget(guest.machine.vm_id)

    def _attend(self, guest: Guest, link: Link | None) -> None:
        fd = self._fds.pop(guest.machine.vm_id, None)
        if fd is not None:
            guest.adopt(fd)
        elif link is not None and link.row.channels:
            guest.connect()

    def _guest(self, machine: Machine) -> Guest:
        from drivers.vm.agents.guest import Guest  # deferred: `vdsmd.deferred` has it imported
        from drivers.vm.agents.told import Kept

        guest = self._guests.get(machine.vm_id)
        if guest is not None and guest.machine is machine:
            return guest
        if guest is not None:
            guest.close()  # of a predecessor with the same id
        kept = self._all_left().pop(machine.vm_id, None) or Kept()
        guest = self._guests[machine.vm_id] = Guest(self._host, machine, kept, self._all_floods())
        return guest

    def _all_left(self) -> dict[str, Kept]:
        """Return what the previous run left of guests that nobody has asked after yet; after a crash, what it wrote down."""
        if self._recalled:
            return self._left
        self._recalled = True
        text, self._text = self._text, ""
        if text is None:
            self._left = self._memory().read({machine.vm_id: machine for machine in self._machines.all()})
        elif text:
            from drivers.vm.agents.guest import load

            try:
                self._left = load(text)
            except UNREADABLE as error:
                log.error("What guests told is of no use, and will be told anew error=%s", error)
        return self._left

    def _remember_later(self) -> None:
        from drivers.vm.agents.remembered import INTERVAL

        self._timer = self._host.later(INTERVAL, self._remember)

    def _remember(self) -> None:
        self._memory().write(self._guests.values())
        self._remember_later()

    def _memory(self) -> Remembered:
        from drivers.vm.agents.remembered import Remembered

        if self._remembered is None:
            self._remembered = Remembered(self._host)
        return self._remembered

    def _all_floods(self) -> Floods:
        from drivers.vm.agents.channel import Floods

        if self._floods is None:
            self._floods = Floods()
        return self._floods

    def _held_surveyor(self) -> Surveyor:
        from drivers.vm.agents.surveyor import Surveyor

        if self._surveyor is None:
            self._surveyor = Surveyor(self._host, self._connection, self._guests.values)
        return self._surveyor

    def came(self, vm_id: str) -> None:
        """libvirt tells that QEMU's guest agent has come or gone."""
        guest = self._guests.get(vm_id)
        if guest is not None and self._runs:
            self._held_surveyor().soon(guest)

    # Questions and deeds

    def statistics(self, machine: Machine) -> dict[str, Any]:
        """Return what the guest's agents told, by the keys of the statistics."""
        if machine.vm_id not in self._guests and machine.vm_id not in self._all_left():
            return {}
        return self._guest(machine).statistics(self._settings().guest_agent_timeout)

    def tell(self, vm_id: str, kind: str, **fields: str | int) -> None:
        """Send a message to the oVirt agent in a guest. Raises NoSuchVm, NotResponding."""
        machine = self._machines.get(vm_id)
        if machine.vm_id in self._fds:
            self._attend(self._guest(machine), None)  # nobody needs to know that we have only just begun
        guest = self._guests.get(machine.vm_id)
        if guest is None or guest.machine is not machine:
            raise NotResponding(what="the guest agent", reason="the virtual machine does not run")
        guest.tell(kind, **fields)

    def advise(self, machine: Machine, since: int, kind: str, **fields: str | int) -> None:
        """Send a message to the oVirt agent in a guest, if it is there and speaks the protocol's version `since`, or a later
        one. Nothing depends on it."""

        def send() -> None:
            guest = self._guests.get(machine.vm_id)
            if guest is not None and guest.machine is machine and guest.responds and guest.kept.report.api >= since:
                self._try_to_tell(machine.vm_id, kind, fields)

        self._host.in_loop(send)

    def announce(self, machine: Machine, event: str) -> None:
        """Something has happened to a guest as a whole ('after_hibernation', 'after_migration'): tell the oVirt agent in it, as
        soon as it is known to understand that."""
        if self._machines.is_current(machine):
            guest = self._guest(machine)
            if self._runs:
                guest.hurry()
                self._attend(guest, self._connection.link)
                self._held_surveyor().soon(guest)
            guest.announce(event, NEWS_PATIENCE)

    def way(self, machine: Machine) -> str:
        """Return the kind of the agent that can shut the guest down, '' when there is none."""
        guest = self._guests.get(machine.vm_id)
        if guest is None or guest.machine is not machine or machine.status is Status.PAUSED:
            return ""
        return OVIRT if guest.responds else QEMU if guest.surveyed_lately else ""

    def shut_down(self, link: Link, machine: Machine, way: str, *, delay: float, message: str, reboot: bool) -> None:
        """Have the guest's agent shut it down, or start it anew; the oVirt agent warns users `delay` seconds before. Raises
        DriverError when the agent is known not to do it."""
        from drivers.vm.agents.qemu import shut_down

        if way == QEMU:
            shut_down(link, machine.vm_id, reboot=reboot)
        else:
            fields: dict[str, str | int] = {
                "timeout": int(delay),
                "message": message,
                "reboot": "true" if reboot else "false",
            }
            self._host.in_loop(partial(self._try_to_tell, machine.vm_id, "shutdown", fields))

    def _try_to_tell(self, vm_id: str, kind: str, fields: dict[str, str | int]) -> None:
        try:
            self.tell(vm_id, kind, **fields)
        except DriverError as error:
            log.warning("A guest could not be told vm=%s message=%s error=%s", vm_id, kind, error)
