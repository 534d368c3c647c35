"""Shutdowns: a guest is asked by the agent in it, then by its power button, then, if that is allowed, ended by force.

It promises that a shutdown that was asked for goes on over an exec: its times are on record, and are armed again.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from drivers.errors import DriverError, Failed, NoSuchVm, NotResponding
from drivers.vm.contract import TABLE, Move
from drivers.vm.desk import Desk
from drivers.vm.machine import Machine, Shutdown

if TYPE_CHECKING:
    from drivers.vm.hypervisor.link import Link

log = logging.getLogger("vm")

AGAIN = 0.5
"""Seconds until an agent that did not respond is asked again."""


class PowerButton:
    """All calls come from the loop's thread, but `ask`, which comes from a worker with the machine's key."""

    def __init__(self, desk: Desk) -> None:
        self._host = desk.host
        self._machines = desk.machines
        self._connection = desk.connection
        self._agents = desk.agents
        self._look = desk.watch.look
        self._timers: dict[str, Any] = {}

    def ask(self, link: Link, machine: Machine, plan: Shutdown) -> None:
        """Begin the shutdown. Raises IllegalMove when the machine is not running, or libvirt's answer when the button, if
        it is to be pressed at once, cannot be."""
        self._machines.move(machine, Move.REBOOT if plan.reboot else Move.POWER_DOWN, shutdown=plan)
        if plan.press_at <= time.monotonic():
            try:
                self._step(link, machine, plan)
            except NoSuchVm:
                return  # it has ended meanwhile: what was asked for is done
            except DriverError:
                self._give_up(machine, plan)
                raise
        self._host.in_loop(lambda: self.arm(machine))

    def arm(self, machine: Machine) -> None:
        """Set the clock for the next step of the machine's shutdown, if one was asked for."""
        timer = self._timers.pop(machine.vm_id, None)
        if timer is not None:
            timer.cancel()
        plan = machine.shutdown
        if plan is not None:
            due = plan.pressed_at + plan.patience if plan.pressed_at else plan.press_at
            self._wait(machine, plan, max(0.0, due - time.monotonic()))

    def _wait(self, machine: Machine, plan: Shutdown, seconds: float) -> None:
        self._timers[machine.vm_id] = self._host.later(seconds, lambda: self._due(machine, plan))

    def _due(self, machine: Machine, plan: Shutdown) -> None:
        del self._timers[machine.vm_id]
        link = self._connection.link
        if machine.shutdown is not plan or not self._machines.is_current(machine):
            return
        if not plan.agent and not plan.force and (plan.pressed_at or not plan.has_button):
            log.warning("The guest did not shut down when asked vm=%s", machine.vm_id)
            self._give_up(machine, plan)
        elif link is None:
            self._wait(machine, plan, 1.0)
        else:
            step: Callable[[], object] = partial(self._force if plan.pressed_at else self._step, link, machine, plan)
            self._host.submit(step, partial(self._stepped, machine, plan), key=machine.vm_id)

    def _step(self, link: Link, machine: Machine, plan: Shutdown) -> None:
        """In a worker: go the first way that is left, and note that."""
        left = self._ask_agent(link, machine, plan) if plan.agent else self._press(link, machine, plan)
        with self._machines.lock:
            if machine.shutdown is plan:
                self._machines.update(machine, shutdown=left)

    def _ask_agent(self, link: Link, machine: Machine, plan: Shutdown) -> Shutdown:
        """Have the agent in the guest do it. The button is next, at once when the agent cannot be asked.

        After an exec libvirt takes a moment to be connected to agents again."""
        now = time.monotonic()
        try:
            self._agents.shut_down(
                link, machine, plan.agent, delay=plan.delay, message=plan.message, reboot=plan.reboot
            )
        except NoSuchVm:
            raise
        except DriverError as error:
            log.warning("The guest's agent does not shut it down vm=%s error=%s", machine.vm_id, error)
            if isinstance(error, NotResponding) and now < plan.agent_until:
                return msgspec.structs.replace(plan, press_at=now + AGAIN)
            return msgspec.structs.replace(plan, agent="", press_at=now)
        return msgspec.structs.replace(plan, agent="", press_at=now + plan.delay + plan.patience)

    def _press(self, link: Link, machine: Machine, plan: Shutdown) -> Shutdown:
        """Press the button, or where there is none to be pressed, do by force what it stands for."""
        if not plan.has_button:
            self._force(link, machine, plan)
        else:
            try:
                link.press(machine.vm_id, reboot=plan.reboot)
            except Failed as error:
                if not plan.force:
                    raise
                # A guest that is paused, for one, has no use for its button.
                log.warning("The power button cannot be pressed vm=%s error=%s", machine.vm_id, error)
                self._force(link, machine, plan)
        return msgspec.structs.replace(plan, pressed_at=time.monotonic())

    def _force(self, link: Link, machine: Machine, plan: Shutdown) -> None:
        log.info("By force vm=%s reboot=%s", machine.vm_id, plan.reboot)
        if plan.reboot:
            link.reset(machine.vm_id)
        else:
            link.destroy(machine.vm_id, politely=machine.responds)

    def _stepped(self, machine: Machine, plan: Shutdown, _: object, error: Exception | None) -> None:
        if error is not None and not isinstance(error, NoSuchVm):
            log.error("A shutdown failed vm=%s error=%s", machine.vm_id, error)
            self._give_up(machine, plan)
        elif not plan.pressed_at:
            self.arm(machine)

    def _give_up(self, machine: Machine, plan: Shutdown) -> None:
        with self._machines.lock:
            mine = machine.shutdown is not None and machine.shutdown.press_at == plan.press_at
            if mine and (machine.status, Move.GIVE_UP) in TABLE:
                self._machines.move(machine, Move.GIVE_UP, shutdown=None)
                # It may be paused, and then has been all the time.
                self._host.in_loop(lambda: self._look(machine))
            elif mine:
                self._machines.update(machine, shutdown=None)
