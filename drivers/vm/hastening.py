"""Hastening: a machine that is to be destroyed, and whose monitor is stuck, is ended before it is its turn.

Who destroys a machine waits for those who are at it already, and they may wait for its monitor for ever: only the end of its
QEMU frees them. It promises to end only what somebody wants destroyed, what does not answer, and what no script of the
operator has a say in. Imported after the first answer.
"""

from __future__ import annotations

import logging
from functools import partial

from drivers.errors import DriverError
from drivers.vm.contract import UNBORN
from drivers.vm.desk import Desk
from drivers.vm.machine import Machine

log = logging.getLogger("vm")

PATIENCE = 2.0
"""Seconds after which it is looked closer why a machine has not been destroyed yet."""


class Hastening:
    """Calls come from the loop's thread."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._host = desk.host
        self._machines = desk.machines
        self._doomed: dict[str, Machine] = {}

    def ask(self, vm_id: str) -> None:
        """Somebody waits for the turn to destroy this machine."""
        machine = self._machines.find(vm_id)
        if machine is None or machine.is_down or self._desk.hooked.any("before_vm_destroy"):
            return
        self._doomed[machine.vm_id] = machine
        self._host.later(PATIENCE, self._look_closer)
        self.attend()

    def attend(self) -> None:
        """End those of which it is known by now that they do not answer. To be called when more may be known."""
        for vm_id, machine in list(self._doomed.items()):
            if not self._machines.is_current(machine) or machine.is_down:
                del self._doomed[vm_id]
            elif not machine.responds and machine.status not in UNBORN:
                del self._doomed[vm_id]
                log.warning("A machine that is to be destroyed does not answer, and is ended by force vm=%s", vm_id)
                self._host.submit(partial(self._end, machine), partial(_ended, machine), timeout=0)

    def spare(self, machine: Machine) -> None:
        """Whoever wanted it destroyed has had a turn."""
        if self._doomed.get(machine.vm_id) is machine:
            del self._doomed[machine.vm_id]

    def _look_closer(self) -> None:
        self.attend()
        if self._doomed:
            self._desk.sample_soon()

    def _end(self, machine: Machine) -> None:
        """In a worker, without the machine's key: who has it waits for this."""
        if self._machines.is_current(machine):
            self._desk.connection.require().destroy(machine.vm_id, politely=False)


def _ended(machine: Machine, _: None, error: Exception | None) -> None:
    if isinstance(error, DriverError):
        log.info("Somebody else has ended it, or will vm=%s error=%s", machine.vm_id, error)
    elif error is not None:
        log.error("Unexpected failure while ending a machine vm=%s", machine.vm_id, exc_info=error)
