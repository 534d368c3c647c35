"""Sampler: the counters of all machines, taken in one call to libvirt on a period, so that verbs answer from memory.

It promises that a machine whose monitor is stuck costs the others nothing: the sample that waits for it is left to wait, and
the next ones go around it; and that such a monitor is found out within a period of 15 seconds or more, since between two
samples it is looked whether all answer. The last two samples of each machine survive an exec, and so rates do.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from drivers.base import Host
from drivers.vm.connection import Connection
from drivers.vm.contract import UNBORN, Status
from drivers.vm.machine import Machine
from drivers.vm.machines import Machines
from drivers.vm.vmstats import Sample, sample_of
from state.records import UNREADABLE

if TYPE_CHECKING:
    from drivers.vm.hypervisor.link import Link

log = logging.getLogger("vm")

SHORTEST = 0.1
SOON = 1.0
MOST_WAITING = 8
"""Samples that wait for stuck monitors, before we wait with them."""
PATIENCE = 6.0
"""Seconds without word from a monitor, and at least two samples, before we say that it does not respond. libvirt itself keeps
one to itself for 5 while it waits for a guest that is to let go of a device."""
LOOK_AGAIN = 2.0
"""Seconds between two looks at a monitor that may be silent for good."""
STUCK = 1.0
"""Seconds after which a sample does not just take its time, unless they all do: three times what one takes as a rule."""
EARLY = 0.01
"""Seconds by which a timer may be too early."""
ONLY_A_MONITOR_KNOWS = "balloon.rss"

CANNOT_ANSWER = (*UNBORN, Status.MIGRATION_DESTINATION)
"""How a machine is before it has started or arrived, which may take libvirt long."""

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
        self._heard: dict[str, float] = {}
        """When each monitor was heard last."""
        self._silent_since: dict[str, float] = {}
        self._waiting: list[float] = []
        self._held = False
        self._takes = 0.0
        """Seconds that a whole sample takes as a rule."""
        self._due = 0.0
        """When the next whole sample is. Until then it is only looked who answers."""
        self._timer: Any = None
        self._next_at = 0.0

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
        return any(time.monotonic() - began > self._late for began in self._waiting)

    @property
    def _late(self) -> float:
        return max(STUCK, 3 * self._takes)

    def hold(self, held: bool) -> None:
        """Begin no sample while held, unless one is stuck already: then it must be found out on which machine."""
        self._held = held

    def start(self) -> None:
        """Take a sample now, and then one on every period. Loop's thread."""
        self.stop()
        self._due = 0.0
        self._tick()

    def soon(self) -> None:
        """Take one a little later: something has begun."""
        self._again(SOON, whole=True)

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
        seconds = max(SHORTEST, seconds)
        self._next_at = time.monotonic() + seconds
        self._timer = self._host.later(seconds, self._tick)

    def _sooner(self, seconds: float) -> None:
        """Look again after so many seconds, unless that is to be sooner anyway: who comes later delays nobody."""
        if self._timer is None or time.monotonic() + seconds < self._next_at:
            self._next(seconds)

    def _again(self, seconds: float, *, whole: bool) -> None:
        if whole:
            self._due = min(self._due, time.monotonic() + seconds)
        self._sooner(seconds)

    def _tick(self) -> None:
        now, interval = time.monotonic(), self._interval()
        whole = now >= self._due - EARLY
        if whole:
            self._due = now + interval
        # A look that shows who answers only helps if there is time left to be sure of it.
        self._next(min(self._due - now, max(interval / 2, PATIENCE)))
        link = self._connection.link
        if self._held and not self._waiting:
            return
        if link is None or len(self._waiting) >= MOST_WAITING or not self._machines.all():
            return
        if whole or link.row.monitors:
            self._begin(link, now, whole=whole)

    def _begin(self, link: Link, began: float, *, whole: bool) -> None:
        self._waiting.append(began)
        vm_ids = [machine.vm_id for machine in self._machines.all() if not machine.is_down]
        # No time-out: a sample that waits for a stuck monitor holds its thread, and is counted until it returns.
        self._host.submit(
            partial(link.statistics, vm_ids, brief=not whole),
            lambda values, error: self._done(link, values, error, began, whole=whole),
            timeout=0,
        )
        self._host.later(self._late, lambda: self._go_around(began, whole=whole))

    def _go_around(self, began: float, *, whole: bool) -> None:
        """A sample that is stuck must not take the period of the others, nor must it take several to find out on whom."""
        if began in self._waiting and self._timer is not None:
            self._again(SHORTEST, whole=whole)

    def _done(
        self,
        link: Link,
        values: dict[str, dict[str, Any]] | None,
        error: Exception | None,
        began: float,
        *,
        whole: bool,
    ) -> None:
        self._waiting.remove(began)
        took = time.monotonic() - began
        timely = took <= self._late
        if whole:
            # One that was stuck says little about the rule.
            self._takes = min(took, max(2 * self._takes, STUCK / 2))
        if not timely and self._timer is not None:
            # What it waited for may be over, on whichever machine.
            self._again(min(self._interval(), SOON), whole=True)
        if values is None:
            log.warning("Statistics could not be sampled, the last ones stay error=%s", error)
            self._due = 0.0  # a machine has ended meanwhile, most likely: no need to wait for a whole period
            return
        # A look that comes late is no news: another one is about to be taken.
        news = self._keep(values, began) if whole else values if timely else ()
        for machine in self._machines.all():
            if machine.vm_id in news:
                self._listen(machine, values[machine.vm_id], timely=timely)
        for told in (self._silent_since, self._heard):
            for vm_id in [vm_id for vm_id in told if vm_id not in self._machines]:
                del told[vm_id]
        # Those that are being ended were not asked for, and are there all the same.
        self._sampled({*values, *link.ending})

    def _keep(self, values: dict[str, dict[str, Any]], began: float) -> Collection[str]:
        """Take over a sample. Return the ids of those of which it is news."""
        before, taken = self._all(), time.monotonic()
        news, kept = {}, {}
        for machine in self._machines.all():
            vm_id = machine.vm_id
            last = before.get(vm_id, (None, None))[0]
            if vm_id in values and (last is None or last.taken < began):
                news[vm_id] = sample_of(values[vm_id], taken), last
            elif vm_id in before:
                kept[vm_id] = before[vm_id]
        self._samples = kept | news
        return news

    def _listen(self, machine: Machine, values: dict[str, Any], *, timely: bool) -> None:
        link = self._connection.link
        if link is None or not link.row.monitors or machine.status in CANNOT_ANSWER:
            return  # there is nobody to ask, or nobody may be
        now = time.monotonic()
        if ONLY_A_MONITOR_KNOWS in values:
            self._silent_since.pop(machine.vm_id, None)
            self._heard[machine.vm_id] = now
            responds = True
        elif not timely:
            return  # others that waited with it were asking the same monitors, and kept them busy
        else:
            left = self._silent_since.setdefault(machine.vm_id, self._fell_silent(machine.vm_id)) + PATIENCE - now
            responds = left > 0 and machine.responds
            if responds and self._timer is not None:
                self._sooner(min(LOOK_AGAIN, left))
        if responds is not machine.responds:
            log.warning("The monitor %s vm=%s", "responds again" if responds else "does not respond", machine.vm_id)
            self._machines.update(machine, responds=responds)

    def _fell_silent(self, vm_id: str) -> float:
        """Return since when a monitor is silent that has just been found so: most likely, the last sample that waits waits for
        it, unless it has been heard since that was begun."""
        heard = self._heard.get(vm_id, 0.0)
        return max((began for began in self._waiting if began > heard), default=time.monotonic())
