"""Jobs: work of QEMU on the layers of a disk, which lasts, and goes on over a re-exec and over a crash of ours.

It promises that each step is on record before it is taken, so that whoever comes after us knows what to look for; that
libvirt is then asked how far it has come; and that a job which cannot be seen is not taken for one that has ended.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from drivers.errors import DriverError, NoSuchVm, NotResponding
from drivers.vm.changes.bench import Bench
from drivers.vm.connection import Connection
from drivers.vm.machine import BlockJob, Machine, Step

if TYPE_CHECKING:
    from drivers.vm.hypervisor.blocks import JobSeen
    from drivers.vm.hypervisor.link import Link

log = logging.getLogger("vm")

INTERVAL = 1.0
"""Seconds between two looks at a job."""
RETRY = 10.0
"""Seconds after which what failed at the end of a job is tried again."""


class Kind(Protocol):
    """What is special about jobs of a kind. Both are called in a worker, with the machine's id as key."""

    def seen(self, machine: Machine, link: Link, job: BlockJob, seen: JobSeen) -> None:
        """The job runs, like this."""

    def ended(self, machine: Machine, link: Link, job: BlockJob) -> None:
        """There is no such job any more: find out what came of it, and have it forgotten."""


class Jobs:
    """Begins jobs in workers, looks after them from the loop."""

    def __init__(self, bench: Bench, connection: Connection) -> None:
        self.kinds: dict[str, Kind] = {}
        self._bench = bench
        self._connection = connection
        self._looking: set[str] = set()
        self._patience: dict[str, float] = {}
        self._held = False
        self._timer: Any = None

    # In a worker

    def begin(self, machine: Machine, job: BlockJob, start: Callable[[], None]) -> None:
        """Write the job down, and start it. Raises what `start` raises; unless nobody knows whether the job has started, it
        is forgotten then."""
        self.write(machine, job)
        try:
            start()
        except NotResponding:
            self._bench.host.in_loop(self.start)
            raise
        except DriverError:
            self.forget(machine, job)
            raise
        self.write(machine, msgspec.structs.replace(job, step=Step.RUN))
        self._tell(machine, job, "begun")
        self._bench.host.in_loop(self.start)

    def of(self, machine: Machine, disk: str) -> BlockJob | None:
        """Return the job on the disk."""
        return next((job for job in machine.jobs.values() if job.disk == disk), None)

    def write(self, machine: Machine, job: BlockJob) -> None:
        """Have the job on record like this."""
        with self._bench.machines.lock:
            self._bench.machines.update(machine, jobs={**machine.jobs, job.job_id: job})

    def step(self, machine: Machine, job: BlockJob, step: Step) -> BlockJob:
        """Write down what is about to be done with the job. Returns it as it is then."""
        job = msgspec.structs.replace(machine.jobs.get(job.job_id, job), step=step)
        self.write(machine, job)
        return job

    def forget(self, machine: Machine, job: BlockJob) -> None:
        self._patience.pop(job.job_id, None)
        with self._bench.machines.lock:
            rest = {job_id: other for job_id, other in machine.jobs.items() if job_id != job.job_id}
            self._bench.machines.update(machine, jobs=rest)

    def conclude(self, machine: Machine, job: BlockJob, *, failed: str = "") -> None:
        """The job has ended: forget it, and tell how."""
        self.forget(machine, job)
        if failed:
            log.error("A job failed vm=%s job=%s disk=%s: %s", machine.vm_id, job.job_id, job.disk, failed)
        self._tell(machine, job, "failed" if failed else "done", reason=failed)

    def later(self, job: BlockJob, reason: object) -> None:
        """Something did not work at the end of a job: leave it alone for a while."""
        log.error("The end of a job is put off job=%s disk=%s: %s", job.job_id, job.disk, reason)
        self._patience[job.job_id] = time.monotonic() + RETRY

    def may_end(self, job: BlockJob) -> bool:
        """Say whether the end of the job may be tried now."""
        return time.monotonic() >= self._patience.get(job.job_id, 0.0)

    # In the loop

    def start(self) -> None:
        """Look after jobs from now on, if there are any."""
        if self._timer is None and self._any():
            self._timer = self._bench.host.later(INTERVAL, self._tick)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def hold(self, held: bool) -> None:
        """Begin no look while held: a re-exec is wanted. The jobs go on meanwhile."""
        self._held = held

    def _any(self) -> bool:
        return any(machine.jobs for machine in self._bench.machines.all())

    def _tick(self) -> None:
        self._timer = None
        link = self._connection.link
        for machine in self._bench.machines.all():
            if machine.jobs and link is not None and not self._held and machine.vm_id not in self._looking:
                self._looking.add(machine.vm_id)
                done = partial(self._looked, machine)
                self._bench.host.submit(partial(self._look, machine, link), done, key=machine.vm_id)
        self.start()

    def _look(self, machine: Machine, link: Link) -> None:
        if not self._bench.machines.is_current(machine):
            return
        if machine.intended:
            self._bench.settle(machine, link)
        for job in list(machine.jobs.values()):
            self.look_at(machine, link, job)

    def look_at(self, machine: Machine, link: Link, job: BlockJob) -> None:
        """See how far a job has come, and do what is to be done next."""
        seen = link.blocks.job(machine.vm_id, job.disk)
        kind = self.kinds[job.kind]
        if seen is None:
            kind.ended(machine, link, job)
            return
        if job.step is Step.BEGIN:
            job = self.step(machine, job, Step.RUN)
        now = msgspec.structs.replace(job, cur=seen.cur, end=seen.end, bandwidth=seen.bandwidth)
        with self._bench.machines.lock:
            if now != job and job.job_id in machine.jobs:
                machine.jobs = {**machine.jobs, job.job_id: now}  # not worth a checkpoint: libvirt knows it
        kind.seen(machine, link, now, seen)

    def _looked(self, machine: Machine, _: None, error: Exception | None) -> None:
        self._looking.discard(machine.vm_id)
        if isinstance(error, NoSuchVm):
            return  # what becomes of the machine is told by events
        if isinstance(error, DriverError):
            log.warning("Jobs cannot be seen vm=%s error=%s", machine.vm_id, error)
        elif error is not None:
            log.error("Unexpected failure while looking after jobs vm=%s", machine.vm_id, exc_info=error)

    def _tell(self, machine: Machine, job: BlockJob, what: str, **more: str) -> None:
        log.info("A job has %s vm=%s job=%s kind=%s disk=%s", what, machine.vm_id, job.job_id, job.kind, job.disk)
        self._bench.host.event(
            "vm.job", vm=machine.vm_id, job=job.job_id, kind=job.kind, disk=job.disk, state=what, **more
        )
