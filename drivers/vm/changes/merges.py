"""Merges: layers of a disk become one while the guest goes on writing.

It promises that a leaf which is about to be given up is marked first, so that no host starts from it should we vanish, and
that the mark is taken back when the disk could not be moved to the layer below.
"""

from __future__ import annotations

import os
import uuid
from typing import TYPE_CHECKING, Any

from drivers.errors import DriverError, Invalid, NotResponding
from drivers.vm.changes import lookup
from drivers.vm.changes.bench import Bench
from drivers.vm.changes.jobs import Jobs
from drivers.vm.errors import MergeFailed
from drivers.vm.machine import BlockJob, Machine, Step

if TYPE_CHECKING:
    from drivers.vm.hypervisor.blocks import JobSeen
    from drivers.vm.hypervisor.link import Link

Struct = dict[str, Any]


class Merges:
    """Begins merges, and sees those to their end that move the leaf (kind 'commit')."""

    def __init__(self, bench: Bench, jobs: Jobs) -> None:
        self._bench = bench
        self._jobs = jobs

    def begin(self, vm_id: str, drive: Struct, base: str, top: str, bandwidth: int, job_id: str) -> None:
        """Begin to merge the layers above `base`, up to `top` (ids of volumes, or paths), into it, with at most `bandwidth`
        MiB/s (0: any). Raises MergeFailed, ImageUnavailable."""
        with self._bench.work(vm_id, MergeFailed, "beginning a merge") as (machine, link):
            disk = self._idle(machine, drive)
            chain = link.blocks.chain(machine.vm_id, disk["name"])
            low, high = _layer(chain, base, "baseVolUUID"), _layer(chain, top, "topVolUUID")
            if low >= high:
                raise MergeFailed(vm=vm_id, reason=f"{base} does not lie below {top}")
            job_id = job_id or str(uuid.uuid4())
            if bandwidth < 0 or job_id in machine.jobs:
                raise MergeFailed(vm=vm_id, reason=f"bandwidth {bandwidth} or job {job_id} cannot be meant")
            job = BlockJob(
                job_id=job_id,
                kind="commit",
                disk=disk["name"],
                image=str(disk.get("imageID", "")),
                base=chain[low],
                top=chain[high],
                active=chain[high] == chain[-1],
                bandwidth=bandwidth,
            )
            self._commit(machine, link, job)

    def _commit(self, machine: Machine, link: Link, job: BlockJob) -> None:
        def start() -> None:
            link.blocks.commit(
                machine.vm_id,
                job.disk,
                base=job.base,
                top=job.top,
                active=job.active,
                bandwidth=job.bandwidth,
            )

        self._jobs.begin(machine, job, start)

    def _idle(self, machine: Machine, drive: Struct) -> Struct:
        disk = lookup.image(machine.conf, drive)
        if (job := self._jobs.of(machine, disk["name"])) is not None:
            raise MergeFailed(vm=machine.vm_id, reason=f"disk {disk['name']} has job {job.job_id} already")
        return disk

    # The end of one that moves the leaf

    def seen(self, machine: Machine, link: Link, job: BlockJob, seen: JobSeen) -> None:
        if job.active and seen.ready and self._jobs.may_end(job):
            self._pivot(machine, link, job)

    def _pivot(self, machine: Machine, link: Link, job: BlockJob) -> None:
        disk, leaf = lookup.disk(machine.conf, {"name": job.disk}), os.path.basename(job.top)
        job = self._jobs.step(machine, job, Step.PIVOT)
        try:
            self._bench.images.mark(disk, leaf, legal=False)
            link.blocks.pivot(machine.vm_id, job.disk)
        except NotResponding:
            raise  # it may have happened: the next look will show
        except DriverError as error:
            self._bench.images.mark(disk, leaf, legal=True)
            self._jobs.later(self._jobs.step(machine, job, Step.RUN), error)
            return
        self.ended(machine, link, job)

    def ended(self, machine: Machine, link: Link, job: BlockJob) -> None:
        chain = link.blocks.chain(machine.vm_id, job.disk)
        if job.top in chain:
            if job.step is Step.PIVOT:
                disk = lookup.disk(machine.conf, {"name": job.disk})
                self._bench.images.mark(disk, os.path.basename(job.top), legal=True)
            self._jobs.conclude(machine, job, failed="it ended, and the layers are as before")
            return
        if job.active:
            self._moved(machine, link, job)
        self._bench.learn(machine, link)
        self._jobs.conclude(machine, job)

    def _moved(self, machine: Machine, link: Link, job: BlockJob) -> None:
        path, form = link.blocks.leaf(machine.vm_id, job.disk)
        with self._bench.machines.lock:
            disk = lookup.disk(machine.conf, {"name": job.disk})
            ids = {"volumeID": os.path.basename(path)} if disk.get("volumeID") else {}
            conf = lookup.replaced(machine.conf, disk, path=path, format=form, **ids)
            self._bench.machines.update(machine, conf=conf)


class Pulls:
    """The older way: what lies between a base and the leaf moves into the leaf (kind 'pull')."""

    def __init__(self, bench: Bench, jobs: Jobs) -> None:
        self._bench = bench
        self._jobs = jobs

    def begin(self, vm_id: str, drives: list[Struct]) -> None:
        """Begin for each of the drives, whose volumeID (or path) names the base. Raises MergeFailed, ImageUnavailable."""
        with self._bench.work(vm_id, MergeFailed, "beginning a merge") as (machine, link):
            if not drives:
                raise Invalid(what="mergeDrives", reason="there are none")
            for job in [self._job(machine, link, said) for said in drives]:
                base = job.base
                self._jobs.begin(
                    machine,
                    job,
                    lambda job=job, base=base: link.blocks.pull(machine.vm_id, job.disk, base=base, bandwidth=0),  # type: ignore[misc]
                )

    def _job(self, machine: Machine, link: Link, said: Struct) -> BlockJob:
        base = str(said.get("baseVolumeID") or said.get("volumeID") or said.get("basePath") or "")
        disk = lookup.image(machine.conf, {key: said[key] for key in ("domainID", "imageID", "name") if said.get(key)})
        chain = link.blocks.chain(machine.vm_id, disk["name"])
        if _layer(chain, base, "volumeID") == len(chain) - 1 or self._jobs.of(machine, disk["name"]) is not None:
            raise MergeFailed(vm=machine.vm_id, reason=f"disk {disk['name']} has a job, or nothing above {base}")
        image = str(disk.get("imageID", ""))
        path = chain[_layer(chain, base, "volumeID")]
        return BlockJob(job_id=str(uuid.uuid4()), kind="pull", disk=disk["name"], image=image, base=path, top=chain[-1])

    def status(self, vm_id: str) -> list[Struct]:
        """Return the drives of which a merge of this kind runs."""
        machine = self._bench.machines.get(vm_id)
        return [
            {"domainID": str(disk.get("domainID", "")), "imageID": job.image, "volumeID": os.path.basename(job.base)}
            for job in machine.jobs.values()
            if job.kind == "pull"
            for disk in [lookup.disk(machine.conf, {"name": job.disk})]
        ]

    def seen(self, machine: Machine, link: Link, job: BlockJob, seen: JobSeen) -> None:
        """It ends by itself."""

    def ended(self, machine: Machine, link: Link, job: BlockJob) -> None:
        chain = link.blocks.chain(machine.vm_id, job.disk)
        self._bench.learn(machine, link)
        done = chain[-2:] == [job.base, job.top]
        self._jobs.conclude(machine, job, failed="" if done else "it ended, and the layers are as before")


def _layer(chain: list[str], volume: str, parameter: str) -> int:
    """Where in the chain the volume (its id, or its path) is."""
    found = [number for number, path in enumerate(chain) if volume and volume in (path, os.path.basename(path))]
    if len(found) != 1:
        raise Invalid(what=parameter, reason=f"{volume!s:.100} is no layer of the disk")
    return found[0]
