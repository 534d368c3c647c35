"""Revival: guests that an I/O error has paused go on when their storage is back.

It promises that nobody has to do it: it is tried again and again, ever more seldom, because a guest whose request fails once
more is just paused once more; and at once when somebody knows that storage has come back. What a caller paused stays paused.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Collection
from functools import partial

import msgspec

from drivers.base import Host
from drivers.errors import DriverError, NoSuchVm
from drivers.vm.connection import Connection
from drivers.vm.contract import NO_ERROR, Status
from drivers.vm.machine import Machine
from drivers.vm.machines import Machines

log = logging.getLogger("vm")

FIRST_PAUSE, LONGEST_PAUSE = 10.0, 300.0
"""Seconds until the next attempt: each time twice as many."""


class Attempts(msgspec.Struct):
    """Times of the monotonic clock."""

    pause: float
    next_at: float


class Revival:
    """Calls come from the loop's thread. Nothing here is worth surviving: after an exec it is tried anew."""

    def __init__(self, host: Host, machines: Machines, connection: Connection) -> None:
        self._host = host
        self._machines = machines
        self._connection = connection
        self._attempts: dict[str, Attempts] = {}

    def attend(self) -> None:
        """Try with those whose time has come. To be called every few seconds."""
        now = time.monotonic()
        for machine in self._machines.all():
            attempts = self._attempts.get(machine.vm_id)
            if _is_stopped(machine):
                if attempts is None:
                    self._attempts[machine.vm_id] = Attempts(FIRST_PAUSE, now + FIRST_PAUSE)
                elif attempts.next_at <= now:
                    pause = min(2 * attempts.pause, LONGEST_PAUSE)
                    self._attempts[machine.vm_id] = Attempts(pause, now + pause)
                    self._try(machine)
            elif attempts is not None and attempts.next_at <= now:
                del self._attempts[machine.vm_id]  # it has run for long enough
        for vm_id in [vm_id for vm_id in self._attempts if vm_id not in self._machines]:
            del self._attempts[vm_id]

    def resume(self, vm_ids: Collection[str] | None = None) -> None:
        """Storage is back: try with these machines now, or with all."""
        for machine in self._machines.all():
            if _is_stopped(machine) and (vm_ids is None or machine.vm_id in vm_ids):
                self._try(machine)

    def _try(self, machine: Machine) -> None:
        self._host.submit(partial(self._resume, machine), partial(_resumed, machine), key=machine.vm_id)

    def _resume(self, machine: Machine) -> None:
        """In a worker, with the machine's key: nobody pauses it meanwhile."""
        link = self._connection.link
        if link is not None and self._machines.is_current(machine) and _is_stopped(machine):
            log.info("Continuing after an I/O error vm=%s code=%s", machine.vm_id, machine.pause_code)
            link.resume(machine.vm_id)


def _is_stopped(machine: Machine) -> bool:
    return machine.status is Status.PAUSED and machine.pause_code != NO_ERROR


def _resumed(machine: Machine, _: None, error: Exception | None) -> None:
    if isinstance(error, NoSuchVm):
        return  # it has ended, of which an event tells
    if isinstance(error, DriverError):
        log.warning("A guest cannot be continued yet vm=%s error=%s", machine.vm_id, error)
    elif error is not None:
        log.error("Unexpected failure while continuing a guest vm=%s", machine.vm_id, exc_info=error)
