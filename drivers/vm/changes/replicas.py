"""Replicas: a disk is mirrored to another place while the guest goes on writing, and moves there, or stays."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from drivers.errors import DriverError, NotResponding
from drivers.vm.changes import lookup
from drivers.vm.changes.bench import Bench
from drivers.vm.changes.jobs import Jobs
from drivers.vm.errors import ChangeDiskFailed, NotReady, ReplicaFailed, TransientDisk
from drivers.vm.machine import BlockJob, Machine, Step
from drivers.vm.xml import pieces

if TYPE_CHECKING:
    from drivers.vm.hypervisor.blocks import JobSeen
    from drivers.vm.hypervisor.link import Link

Struct = dict[str, Any]

_IDS = ("poolID", "domainID", "imageID", "volumeID", "GUID", "UUID")


class Replicas:
    """Jobs of the kind 'copy'. When one has done its part it goes on mirroring until it is told how to end."""

    def __init__(self, bench: Bench, jobs: Jobs) -> None:
        self._bench = bench
        self._jobs = jobs

    def begin(self, vm_id: str, source: Struct, target: Struct) -> None:
        """Begin to mirror the leaf of the disk `source` to `target`, which exists already, with the same layers below it.
        Raises ReplicaFailed, TransientDisk, ImageUnavailable."""
        with self._bench.work(vm_id, ReplicaFailed, "beginning a replication") as (machine, link):
            disk = self._fit(machine, source)
            path = self._bench.images.prepare(target)
            if path == disk.get("path"):
                raise ReplicaFailed(vm=vm_id, reason="the target is where the disk is already")
            form = str(target.get("format") or disk.get("format") or "raw")
            ids = {key: target[key] for key in _IDS if target.get(key)}
            job = BlockJob(
                job_id=f"copy-{disk['name']}",
                kind="copy",
                disk=disk["name"],
                image=str(disk.get("imageID", "")),
                base=path,
                top=str(disk.get("path", "")),
                target={"path": path, "format": form, **ids},
            )
            mirror = pieces.mirror_disk(path, form, str(target.get("diskType", "")))
            bandwidth = self._bench.settings.replication_bandwidth
            self._jobs.begin(
                machine,
                job,
                lambda: link.blocks.copy(machine.vm_id, job.disk, mirror, shallow=True, bandwidth=bandwidth),
            )

    def _fit(self, machine: Machine, source: Struct) -> Struct:
        disk = lookup.image(machine.conf, source)
        if disk.get("shared") == "transient":
            raise TransientDisk(vm=machine.vm_id, reason=f"disk {disk['name']} is transient: it is not replicated")
        if self._jobs.of(machine, disk["name"]) is not None:
            raise ReplicaFailed(vm=machine.vm_id, reason=f"disk {disk['name']} has a job already")
        return disk

    def end(self, vm_id: str, source: Struct, target: Struct) -> None:
        """End a replication: with the disk at `target`, or, when that is `source`, where it was.
        Raises ReplicaFailed, NotReady, ChangeDiskFailed, ImageUnavailable."""
        with self._bench.work(vm_id, ReplicaFailed, "ending a replication") as (machine, link):
            disk = lookup.image(machine.conf, source)
            job = self._jobs.of(machine, disk["name"])
            seen = link.blocks.job(machine.vm_id, disk["name"])
            if job is None or job.kind != "copy":
                raise ReplicaFailed(vm=vm_id, reason=f"disk {disk['name']} is not being replicated")
            if seen is None:
                self.ended(machine, link, job)
                raise ReplicaFailed(vm=vm_id, reason=f"the replication of disk {disk['name']} has failed")
            if self._is_at(disk, source, target):
                link.blocks.abort(machine.vm_id, job.disk)
                self._jobs.conclude(machine, job)
            else:
                self._move(machine, link, disk, job, seen, self._bench.images.prepare(target))

    def _is_at(self, disk: Struct, source: Struct, target: Struct) -> bool:
        ids = [key for key in _IDS if target.get(key)]
        if ids:
            return all(target[key] == source.get(key, disk.get(key)) for key in ids)
        return self._bench.images.prepare(target) == disk.get("path")

    def _move(self, machine: Machine, link: Link, disk: Struct, job: BlockJob, seen: JobSeen, path: str) -> None:
        if path != job.target["path"]:
            raise ReplicaFailed(vm=machine.vm_id, reason=f"the disk is being replicated to {job.target['path']}")
        if not seen.ready:
            raise NotReady(what=f"disk {job.disk}", reason=f"{seen.cur} of {seen.end} have been replicated")
        job = self._jobs.step(machine, job, Step.PIVOT)
        try:
            with self._bench.change(machine, link, lambda conf: lookup.replaced(conf, disk, **job.target)):
                link.blocks.pivot(machine.vm_id, job.disk)
        except NotResponding:
            raise  # it may have happened: the next look will show
        except DriverError as error:
            self._jobs.step(machine, job, Step.RUN)
            raise ChangeDiskFailed(vm=machine.vm_id, reason=error) from error
        self._jobs.conclude(machine, job)

    def seen(self, machine: Machine, link: Link, job: BlockJob, seen: JobSeen) -> None:
        """It goes on until `end`."""

    def ended(self, machine: Machine, link: Link, job: BlockJob) -> None:
        moved = link.blocks.leaf(machine.vm_id, job.disk)[0] == job.target["path"]
        if moved:
            with self._bench.machines.lock:
                disk = lookup.disk(machine.conf, {"name": job.disk})
                self._bench.machines.update(machine, conf=lookup.replaced(machine.conf, disk, **job.target))
            self._bench.learn(machine, link)
        self._jobs.conclude(machine, job, failed="" if moved else "it ended by itself")
