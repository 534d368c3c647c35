"""Deeds: what changes a virtual machine. In worker threads, with the machine's id as key.

It promises that each either happens, or raises one of the meanings of `drivers.errors` and changes nothing.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from drivers.errors import (
    DestroyFailed,
    DriverError,
    Failed,
    HypervisorDown,
    IllegalMove,
    Invalid,
    NoSuchVm,
    NoWayToShutDown,
    TicketFailed,
)
from drivers.vm.agents.agents import OVIRT
from drivers.vm.answers import shown
from drivers.vm.conf.params import Defaults, handling_of, normalise
from drivers.vm.contract import NO_ERROR, UNBORN, Move, Status
from drivers.vm.desk import Desk
from drivers.vm.hastening import Hastening, answers
from drivers.vm.launcher import Launcher
from drivers.vm.machine import Machine, Shutdown
from drivers.vm.powerbutton import PowerButton
from drivers.vm.travel.restoring import remembered

if TYPE_CHECKING:
    from drivers.vm.hypervisor.link import Link

log = logging.getLogger("vm")

Conf = dict[str, Any]

AGENT_PATIENCE = 10.0
"""Seconds for which the agent in a guest is asked to shut it down, when it does not respond."""

UNFIT_FOR_CONT = (Status.MIGRATION_SOURCE, Status.SAVING, Status.DOWN)


class Deeds:
    """See the module."""

    def __init__(self, desk: Desk, launcher: Launcher, button: PowerButton, hastening: Hastening) -> None:
        self._desk = desk
        self._host = desk.host
        self._machines = desk.machines
        self._connection = desk.connection
        self._hooked = desk.hooked
        self._launcher = launcher
        self._button = button
        self._hastening = hastening

    def create(self, params: dict[str, Any]) -> Conf:
        """Take in a new machine; it is launched soon. Raises Invalid, MissingParameter, Unsupported, VmExists."""
        settings = self._desk.settings()
        defaults = Defaults(nic_model=settings.nic_model, bridge=settings.bridge)
        conf = normalise(remembered(self._desk.images(), params), defaults)
        now = time.time()
        machine = Machine(vm_id=conf["vmId"], conf=conf, created=now, status_since=now)
        reply = shown(machine)
        self._machines.add(machine)
        self._host.in_loop(self._launcher.launch_waiting)
        return reply

    def destroy(self, vm_id: str) -> None:
        """End the machine if it runs, and forget it. Raises NoSuchVm, HypervisorDown, DestroyFailed, HookFailed."""
        machine = self._machines.get(vm_id)
        try:
            with self._hooked.destroy(machine.conf, lambda: self._xml(machine)):
                with self._machines.lock:
                    if machine.status is Status.WAIT_FOR_LAUNCH:
                        self._machines.remove(machine)  # nobody launches it any more
                if self._machines.is_current(machine):
                    self._end(machine)
                self._forget(machine)
        finally:
            self._host.in_loop(lambda: self._hastening.spare(machine))

    def _xml(self, machine: Machine) -> str:
        """What hooks see of a machine: its domain's XML, '' when it has none."""
        return "" if machine.is_down or machine.status in UNBORN else self._connection.require().xml(machine.vm_id)

    def _end(self, machine: Machine) -> None:
        vm_id = machine.vm_id
        try:
            self._connection.require().destroy(vm_id, politely=answers(machine))
        except NoSuchVm:
            log.info("The domain was gone already vm=%s", vm_id)
        except HypervisorDown:
            raise
        except DriverError as error:
            raise DestroyFailed(vm=vm_id, reason=error) from error

    def _forget(self, machine: Machine) -> None:
        # The id is free only when all that goes by it is gone.
        self._desk.belongings.leave(machine)
        self._desk.consoles.remove(machine.vm_id)
        self._host.in_loop(lambda: self._desk.watch.forget(machine))
        self._machines.remove(machine)
        self._host.in_loop(lambda: self._desk.agents.forget(machine))

    def pause(self, vm_id: str) -> None:
        machine = self._running(vm_id)
        self._check_born(machine, Move.PAUSE)
        with self._hooked.around("vm_pause", machine.conf, lambda: self._xml(machine)):
            self._ask(machine, lambda link: link.suspend(machine.vm_id), Move.PAUSE)

    def cont(self, vm_id: str) -> None:
        machine = self._machines.get(vm_id)
        if machine.status in UNFIT_FOR_CONT:
            raise Failed(action="continuing", reason=f"the virtual machine is {machine.status}")
        self._check_born(machine, Move.RUN)
        with self._hooked.around("vm_cont", machine.conf, lambda: self._xml(machine)):
            self._ask(machine, lambda link: link.resume(machine.vm_id), Move.RUN)

    def shutdown(
        self,
        vm_id: str,
        *,
        delay: float | None,
        patience: float | None,
        reboot: bool,
        force: bool,
        message: str = "",
    ) -> None:
        """Have the guest shut down `delay` seconds from now (None: as configured where users can be warned, at once where
        not): by the agent in it, then by its power button, then, if allowed, by force; the next after `patience` seconds
        without effect (None: as configured). Raises NoSuchVm (also when it is Down), NoWayToShutDown, IllegalMove,
        HypervisorDown."""
        machine = self._running(vm_id)
        has_button = handling_of(machine.conf).acpi_enable
        link = self._connection.require()  # and with it, after an exec, the agents
        agent = self._desk.agents.way(machine)
        if not agent and not has_button and not force:
            raise NoWayToShutDown(vm=vm_id)
        settings = self._desk.settings()
        warned = settings.user_shutdown_timeout if delay is None else delay
        press_at = time.monotonic() + (0 if agent == OVIRT else delay or 0)
        plan = Shutdown(
            press_at=press_at,
            patience=settings.sys_shutdown_timeout if patience is None else patience,
            agent=agent,
            agent_until=press_at + AGENT_PATIENCE,
            delay=warned if agent == OVIRT else 0,
            message=message,
            has_button=has_button,
            force=force,
            reboot=reboot,
        )
        self._button.ask(link, machine, plan)

    def set_ticket(
        self, vm_id: str, password: str, ttl: int, on_conflict: str, properties: dict[str, str] | None = None
    ) -> None:
        """Set the password of the first display; hooks get the `properties`. Raises NoSuchVm, Invalid, TicketFailed,
        HypervisorDown."""
        machine = self._running(vm_id)
        try:
            with self._hooked.around("vm_set_ticket", machine.conf, lambda: self._xml(machine), properties):
                self._connection.require().set_ticket(machine.vm_id, password, ttl, on_conflict)
        except (HypervisorDown, Invalid):
            raise
        except NoSuchVm as error:
            if machine.status not in UNBORN:
                raise
            raise TicketFailed(vm=vm_id, reason="it has not been started yet") from error
        except DriverError as error:
            raise TicketFailed(vm=vm_id, reason=error) from error

    def _running(self, vm_id: str) -> Machine:
        machine = self._machines.get(vm_id)
        if machine.is_down:
            raise NoSuchVm(vm=vm_id)
        return machine

    def _check_born(self, machine: Machine, move: Move) -> None:
        if machine.status in UNBORN or machine.status is Status.MIGRATION_DESTINATION:
            raise IllegalMove(vm=machine.vm_id, status=machine.status, move=move)

    def _ask(self, machine: Machine, deed: Callable[[Link], None], move: Move) -> None:
        """Do the deed, and show at once what it led to; libvirt's event about it comes later."""
        try:
            deed(self._connection.require())
        except NoSuchVm:
            self._host.in_loop(lambda: self._desk.watch.look(machine))
            raise
        with self._machines.lock:
            if self._machines.is_current(machine):
                self._machines.move(machine, move, pause_code=NO_ERROR)
