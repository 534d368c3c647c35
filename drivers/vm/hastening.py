"""Hastening: a machine that is to be destroyed, and whose monitor is stuck, is ended before it is its turn.

Who destroys a machine waits for those who are at it already, and they may wait for its monitor for ever: only the end of its
QEMU frees them. It promises to end only what somebody waits to have destroyed, what does not answer, and what no script of
the operator has a say in. Imported after the first answer.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from functools import partial

import msgspec

from drivers.errors import DriverError
from drivers.vm.contract import UNBORN
from drivers.vm.desk import Desk
from drivers.vm.machine import Machine
from state.process import stat_fields

log = logging.getLogger("vm")

PATIENCE = 2.0
"""Seconds after which it is looked closer why a machine has not been destroyed yet."""


class Doomed(msgspec.Struct, frozen=True):
    """A machine that somebody waits to have destroyed, until then by the monotonic clock."""

    machine: Machine
    until: float

    @property
    def is_wanted(self) -> bool:
        return time.monotonic() < self.until


def answers(machine: Machine) -> bool:
    """Say whether its monitor may answer: nothing else is known, and its QEMU has not been stopped."""
    fields = stat_fields(machine.pid) if machine.pid else []
    is_stopped = fields[:1] in (["T"], ["t"]) and int(fields[19]) == machine.pid_start
    return machine.responds and not is_stopped


class Hastening:
    """Calls come from the loop's thread. `ended` is called after each that was ended, or could not be."""

    def __init__(self, desk: Desk, ended: Callable[[], None]) -> None:
        self._desk = desk
        self._host = desk.host
        self._machines = desk.machines
        self._doomed: dict[str, Doomed] = {}
        self._ending: list[str] = []
        self._ended = ended

    def ask(self, vm_id: str, patience: float) -> None:
        """Somebody waits for the turn to destroy this machine, for so many seconds."""
        machine = self._machines.find(vm_id)
        if machine is None or machine.is_down or self._desk.hooked.any("before_vm_destroy", "before_device_destroy"):
            return
        self._doomed[machine.vm_id] = Doomed(machine, time.monotonic() + patience)
        self._host.later(PATIENCE, self._look_closer)
        self.attend()

    def attend(self) -> None:
        """End those of which it is known by now that they do not answer. To be called when more may be known."""
        for vm_id, doomed in list(self._doomed.items()):
            machine = doomed.machine
            if not self._machines.is_current(machine) or not doomed.is_wanted:
                del self._doomed[vm_id]
            elif machine.status not in UNBORN and not answers(machine):
                del self._doomed[vm_id]
                self._ending.append(vm_id)
                log.warning("A machine that is to be destroyed does not answer, and is ended by force vm=%s", vm_id)
                self._host.submit(partial(self._end, doomed), partial(self._over, machine), timeout=0)

    def spare(self, machine: Machine) -> None:
        """Whoever wanted it destroyed has had a turn."""
        doomed = self._doomed.get(machine.vm_id)
        if doomed is not None and doomed.machine is machine:
            del self._doomed[machine.vm_id]

    def is_at(self, vm_id: str) -> bool:
        """Say whether a machine of this id is being ended. Its successor must not begin before that is over."""
        return vm_id in self._ending

    def _look_closer(self) -> None:
        self.attend()
        if self._doomed:
            self._desk.sample_soon()

    def _end(self, doomed: Doomed) -> None:
        """In a worker, without the machine's key: who has it waits for this."""
        if self._machines.is_current(doomed.machine) and doomed.is_wanted:
            self._desk.connection.require().destroy(doomed.machine.vm_id, politely=False)

    def _over(self, machine: Machine, _: None, error: Exception | None) -> None:
        self._ending.remove(machine.vm_id)
        if isinstance(error, DriverError):
            log.info("Somebody else has ended it, or will vm=%s error=%s", machine.vm_id, error)
        elif error is not None:
            log.error("Unexpected failure while ending a machine vm=%s", machine.vm_id, exc_info=error)
        self._ended()
