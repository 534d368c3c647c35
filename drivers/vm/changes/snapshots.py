"""Snapshots: every disk gets a new leaf at the same moment, with the guest's file systems at rest if it can be had.

It promises that file systems which were frozen for a snapshot are thawed after it, whatever comes between.
"""

from __future__ import annotations

import logging
from typing import Any

from drivers.errors import DriverError, Invalid, NotFound
from drivers.vm.changes import lookup
from drivers.vm.changes.bench import Bench, Conf
from drivers.vm.errors import FreezeFailed, SnapshotFailed, ThawFailed, TransientDisk
from drivers.vm.hypervisor.link import Link
from drivers.vm.machine import Machine

log = logging.getLogger("vm")

Struct = dict[str, Any]
Layers = list[tuple[Struct, Struct]]
"""Each disk, and what becomes otherwise of it."""

_MEMORY_IDS = 6


class Snapshots:
    """See the module. All calls raise NoSuchVm, MigrationInProgress, and the error of their own."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench

    def take(self, vm_id: str, drives: list[Struct], memory: str, *, frozen: bool) -> bool:
        """Give the drives new leaves, which exist already; keep the memory in the volume that `memory` names, unless it is ''.
        frozen: the caller has frozen the guest's file systems. Returns whether they were frozen by us.
        Raises SnapshotFailed, TransientDisk, ImageUnavailable."""
        with self._bench.work(vm_id, SnapshotFailed, "taking a snapshot") as (machine, link):
            layers = self._layers(machine, drives)
            target = self._memory(memory)
            if not layers and not target:
                raise SnapshotFailed(vm=vm_id, reason="it is of no disk, and not of the memory")
            # While the memory is kept nothing runs in the guest: there is nothing to freeze.
            quiesced = not frozen and not target and self._freeze(machine, link)
            try:
                self._take(machine, link, layers, target)
            finally:
                if quiesced:
                    self.thaw_after(machine, link)
            return quiesced

    def freeze(self, vm_id: str) -> None:
        """Have the guest write nothing until `thaw`. Raises FreezeFailed, NotResponding (no agent), Unsupported."""
        with self._bench.work(vm_id, FreezeFailed, "freezing") as (machine, link):
            link.blocks.freeze(machine.vm_id)

    def thaw(self, vm_id: str) -> None:
        """Have the guest write again. Raises ThawFailed, NotResponding (no agent), Unsupported."""
        with self._bench.work(vm_id, ThawFailed, "thawing") as (machine, link):
            link.blocks.thaw(machine.vm_id)
            self._bench.machines.update(machine, frozen=False)

    def thaw_after(self, machine: Machine, link: Link) -> None:
        """Thaw what was frozen for a snapshot. Where that fails it is on record, and tried again."""
        try:
            link.blocks.thaw(machine.vm_id)
        except DriverError as error:
            log.error("A guest could not be thawed after a snapshot vm=%s error=%s", machine.vm_id, error)
            return
        self._bench.machines.update(machine, frozen=False)

    def _layers(self, machine: Machine, drives: list[Struct]) -> Layers:
        layers: Layers = []
        for number, said in enumerate(drives):
            disk = _base(machine.conf, said)
            if disk.get("shared") == "transient":
                raise TransientDisk(vm=machine.vm_id, reason=f"disk {disk['name']} is transient: it has no snapshots")
            path = self._bench.images.prepare(said)
            if any(disk is other for other, _ in layers) or path == disk.get("path"):
                raise Invalid(what=f"snapDrives[{number}]", reason="it is the same disk, or the same file, again")
            ids = {key: said[key] for key in ("volumeID", "GUID", "UUID") if said.get(key)}
            layers.append((disk, {"path": path, "format": "cow", **ids}))
        return layers

    def _memory(self, handle: str) -> str:
        """The path that the memory goes to. The handle is a path, or the ids domain, pool, image and volume (and those of a
        second volume, which has no use here)."""
        ids = handle.split(",")
        if handle.startswith("/"):
            return ids[0]
        if not handle:
            return ""
        if len(ids) != _MEMORY_IDS:
            raise Invalid(what="snapMemVolHandle", reason=f"expected {_MEMORY_IDS} ids")
        return self._bench.images.prepare(dict(zip(("domainID", "poolID", "imageID", "volumeID"), ids, strict=False)))

    def _freeze(self, machine: Machine, link: Link) -> bool:
        self._bench.machines.update(machine, frozen=True)
        try:
            link.blocks.freeze(machine.vm_id)
        except DriverError as error:
            log.info("A snapshot is taken without the guest's agent vm=%s error=%s", machine.vm_id, error)
            self._bench.machines.update(machine, frozen=False)
            return False
        return True

    def _take(self, machine: Machine, link: Link, layers: Layers, memory: str) -> None:
        chosen = {disk["name"]: changes["path"] for disk, changes in layers}
        others = [disk["name"] for disk in lookup.of_kind(machine.conf, "disk") if disk["name"] not in chosen]

        def edit(conf: Conf) -> Conf:
            for disk, changes in layers:
                conf = lookup.replaced(conf, disk, **changes)
            return conf

        with self._bench.change(machine, link, edit):
            link.blocks.snapshot(machine.vm_id, chosen, others, memory)


def _base(conf: Conf, said: Struct) -> Struct:
    """The disk that a caller wants a snapshot of, named by its present leaf."""
    by = {
        "domainID": said.get("domainID"),
        "imageID": said.get("imageID"),
        "volumeID": said.get("baseVolumeID"),
        "GUID": said.get("baseGUID"),
        "UUID": said.get("baseUUID"),
        "path": said.get("basePath"),
        "name": said.get("name"),
    }
    disk = lookup.disk(conf, {key: value for key, value in by.items() if value})
    if disk.get("device") not in ("disk", "lun", None):
        raise NotFound(kind="disk", name=disk["name"])
    return disk
