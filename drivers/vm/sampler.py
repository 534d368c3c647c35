"""Sampler: the counters of all machines, taken in one call to libvirt on a period, so that verbs answer from memory.

It promises that a machine whose monitor is stuck costs the others nothing: the sample that waits for it is left to wait, and
the next ones go around it. The last two samples of each machine survive an exec, and so rates do.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

import msgspec

from drivers.base import Host
from drivers.vm.connection import Connection
from drivers.vm.contract import Status
from drivers.vm.machine import Machine
from drivers.vm.machines import Machines
from drivers.vm.vmstats import Sample, sample_of
from state.records import UNREADABLE

log = logging.getLogger("vm")

SHORTEST = 0.1
SOON = 1.0
MOST_WAITING = 3
"""Samples that wait for stuck monitors, before we wait with them."""
PATIENCE = 5.0
"""Seconds without word from a monitor, and at least two samples, before we say that it does not respond."""
STUCK = 1.0
"""Seconds after which a sample does not just take its time."""
ONLY_A_MONITOR_KNOWS = "balloon.rss"

Pair = tuple[Sample, Sample | None]


class Sampler:
    """All of it in the loop's thread, but for the sampling itself. `sampled` is called with the ids that were seen."""

    def __init__(
        self,
        host: Host,
        machines: Machines,
        connection: Connection,
        interval: Callable[[], float],
        sampled: Callable[[set[str]], None],
    ) -> None:
        self._host = host
        self._machines = machines
        self._connection = connection
        self._interval = interval
        self._sampled = sampled
        self._samples: dict[str, Pair] = {}
        self._text = ""
        self._silent_since: dict[str, float] = {}
        self._waiting: list[float] = []
        self._held = False
        self._timer: Any = None

    def of(self, vm_id: str) -> tuple[Sample | None, Sample | None]:
        """Return the last sample of the machine and the one before, as far as there are any."""
        return self._all().get(vm_id, (None, None))

    def text(self) -> str:
        """Return all samples as text that `load` understands."""
        return self._text or msgspec.json.encode(self._samples).decode()

    def load(self, text: str) -> None:
        self._text = text

    @property
    def stuck(self) -> bool:
        """Whether a sample waits for a monitor that does not answer."""
        return any(time.monotonic() - began > STUCK for began in self._waiting)

    def hold(self, held: bool) -> None:
        """Begin no sample while held, unless one is stuck already: then it must be found out on which machine."""
        self._held = held

    def start(self) -> None:
        """Take a sample now, and then one on every period. Loop's thread."""
        self.stop()
        self._tick()

    def soon(self) -> None:
        """Take one a little later: something has begun."""
        self._next(SOON)

    def stop(self) -> None:
        """Begin no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _all(self) -> dict[str, Pair]:
        if self._text:
            text, self._text = self._text, ""
            try:
                self._samples = msgspec.json.decode(text, type=dict[str, Pair])
            except UNREADABLE as error:
                log.error("The samples that were left for us are of no use, and are taken anew error=%s", error)
        return self._samples

    def _next(self, seconds: float) -> None:
        self.stop()
        self._timer = self._host.later(max(SHORTEST, seconds), self._tick)

    def _tick(self) -> None:
        self._next(self._interval())
        link = self._connection.link
        if self._held and not self._waiting:
            return
        if link is None or len(self._waiting) >= MOST_WAITING or not self._machines.all():
            return
        began = time.monotonic()
        self._waiting.append(began)
        # No time-out: a sample that waits for a stuck monitor holds its thread, and is counted until it returns.
        self._host.submit(link.statistics, lambda values, error: self._done(values, error, began), timeout=0)
        self._host.later(STUCK, lambda: self._go_around(began))

    def _go_around(self, began: float) -> None:
        """A sample that is stuck must not take the period of the others, nor must it take several to find out on whom."""
        if began in self._waiting and self._timer is not None:
            self._next(min(self._interval(), SOON))

    def _done(self, values: dict[str, dict[str, Any]] | None, error: Exception | None, began: float) -> None:
        self._waiting.remove(began)
        if time.monotonic() - began > STUCK and self._timer is not None:
            self._next(min(self._interval(), SOON))  # what it waited for may be over, on whichever machine
        if values is None:
            log.warning("Statistics could not be sampled, the last ones stay error=%s", error)
            return
        before = self._all()
        taken = time.monotonic()
        fresh = {}
        for machine in self._machines.all():
            vm_id = machine.vm_id
            last = before.get(vm_id, (None, None))[0]
            if vm_id in values and (last is None or last.taken < began):
                fresh[vm_id] = sample_of(values[vm_id], taken), last
                self._listen(machine, values[vm_id], timely=taken - began <= STUCK)
            elif vm_id in before:
                fresh[vm_id] = before[vm_id]
        self._samples = fresh
        self._silent_since = {vm_id: since for vm_id, since in self._silent_since.items() if vm_id in self._machines}
        self._sampled(set(values))

    def _listen(self, machine: Machine, values: dict[str, Any], *, timely: bool) -> None:
        link = self._connection.link
        if link is None or not link.row.monitors or machine.status is Status.MIGRATION_DESTINATION:
            return  # there is nobody to ask, or it cannot answer before it has arrived
        if ONLY_A_MONITOR_KNOWS in values:
            self._silent_since.pop(machine.vm_id, None)
            responds = True
        elif not timely:
            return  # others that waited with it were asking the same monitors, and kept them busy
        else:
            since = self._silent_since.setdefault(machine.vm_id, time.monotonic())
            responds = time.monotonic() - since < PATIENCE and machine.responds
            if responds and self._timer is not None:
                self._next(min(self._interval(), PATIENCE))
        if responds is not machine.responds:
            log.warning("The monitor %s vm=%s", "responds again" if responds else "does not respond", machine.vm_id)
            self._machines.update(machine, responds=responds)
