"""Bench: what every change to a running machine is made on.

It promises that what a change will lead to is written down before libvirt is asked for it, that it holds when libvirt has
done it and is taken back when libvirt has refused it, and that where nobody saw the end (a crash, a time-out) the domain is
asked before the next change. In worker threads, with the machine's id as key.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from drivers.errors import DriverError, MissingParameter, NoSuchVm, NotBuilt, NotResponding
from drivers.hooks import HookFailed
from drivers.vm.changes.images import Images
from drivers.vm.contract import UNBORN, Settings, Status
from drivers.vm.desk import Desk
from drivers.vm.errors import ChangeFailed, ImageUnavailable, MigrationInProgress, NotReady
from drivers.vm.machine import Machine
from drivers.vm.xml.settled import settled

if TYPE_CHECKING:
    from drivers.vm.hypervisor.link import Link

log = logging.getLogger("vm")

Conf = dict[str, Any]
Edit = Callable[[Conf], Conf]

ON_ITS_WAY = (Status.MIGRATION_SOURCE, Status.MIGRATION_DESTINATION, Status.SAVING, Status.RESTORING)
TOLD_AS_THEY_ARE = (
    NoSuchVm,
    NotResponding,
    MissingParameter,
    NotBuilt,
    HookFailed,
    ChangeFailed,
    MigrationInProgress,
    NotReady,
)
TRIES = 3


class Bench:
    """`images` and `settings` say what holds at the moment."""

    def __init__(self, desk: Desk) -> None:
        self.host = desk.host
        self.machines = desk.machines
        self.belongings = desk.belongings
        self.hooked = desk.hooked
        self.agents = desk.agents
        self._desk = desk
        self._underway: dict[str, str] = {}

    @property
    def images(self) -> Images:
        return self._desk.images()

    @property
    def settings(self) -> Settings:
        return self._desk.settings()

    @property
    def underway(self) -> dict[str, str]:
        """What is being done now, by machine."""
        return dict(self._underway)

    @contextmanager
    def work(self, vm_id: str, error: type[ChangeFailed], what: str) -> Iterator[tuple[Machine, Link]]:
        """Give a running machine, of which everything is known, and libvirt. What goes wrong has the meaning `error`."""
        machine: Machine | None = None
        try:
            machine = self._running(vm_id, error)
            self._underway[machine.vm_id] = what
            link = self._desk.connection.require()
            if machine.intended:
                self.settle(machine, link)
            yield machine, link
        except NoSuchVm:
            if (found := machine) is not None:
                self.host.in_loop(lambda: self._desk.watch.look(found))
            raise
        except TOLD_AS_THEY_ARE:
            raise
        except DriverError as cause:
            if isinstance(cause, ImageUnavailable) and error.knows_images:
                raise
            raise error(vm=vm_id, reason=cause) from cause
        finally:
            self._underway.pop(vm_id.lower(), None)

    @contextmanager
    def change(self, machine: Machine, link: Link, edit: Edit) -> Iterator[None]:
        """Within it libvirt does what `edit` does to a configuration."""
        self.machines.update(machine, intended=edit(machine.conf))
        try:
            yield
        except NotResponding:
            raise  # nobody knows what came of it: what is intended stays, until the domain can be asked
        except DriverError:
            self.settle(machine, link)
            raise
        with self.machines.lock:
            self.machines.update(machine, conf=edit(machine.conf), intended={})
        self.learn(machine, link)

    def settle(self, machine: Machine, link: Link) -> None:
        """Ask the domain what came of a change that was begun. Raises NotResponding when it does not tell."""
        xml = link.xml(machine.vm_id)
        with self.machines.lock:
            conf = settled(xml, machine.conf, machine.intended)
            if conf["devices"] != machine.conf["devices"]:
                log.warning("A change had happened that nobody saw the end of vm=%s", machine.vm_id)
            self.machines.update(machine, conf=conf, intended={})
        self.learn(machine, link)

    def learn(self, machine: Machine, link: Link) -> None:
        """Take over what libvirt decided: aliases, addresses, layers. A loss of these is none of the change."""
        for _ in range(TRIES):
            conf = machine.conf
            try:
                learnt = link.learnt(machine.vm_id, conf)
            except DriverError as error:
                log.warning("Not everything is known of a change vm=%s error=%s", machine.vm_id, error)
                return
            with self.machines.lock:
                if machine.conf is conf:
                    self.machines.update(machine, conf={**conf, **learnt})
                    return

    def _running(self, vm_id: str, error: type[ChangeFailed]) -> Machine:
        machine = self.machines.get(vm_id)
        if machine.is_down:
            raise NoSuchVm(vm=vm_id)
        if machine.status in UNBORN:
            raise error(vm=vm_id, reason="it has not been started yet")
        if machine.status in ON_ITS_WAY:
            raise MigrationInProgress(vm=vm_id, status=machine.status)
        return machine
