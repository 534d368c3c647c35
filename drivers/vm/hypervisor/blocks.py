"""What libvirt does with the layers of a running domain's disks. All calls may block, and belong into worker threads.

Raises from all calls: HypervisorDown, NoSuchVm, NotResponding, Failed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import libvirt
import msgspec

from drivers.errors import Unsupported
from drivers.vm.hypervisor.domains import Domains
from drivers.vm.vmstats import sample_of, sizes
from drivers.vm.xml import pieces

Struct = dict[str, Any]

IMPOSSIBLE = {
    libvirt.VIR_ERR_NO_SUPPORT,
    libvirt.VIR_ERR_OPERATION_UNSUPPORTED,
    libvirt.VIR_ERR_CONFIG_UNSUPPORTED,
    libvirt.VIR_ERR_ARGUMENT_UNSUPPORTED,
}

_SNAPSHOT = libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_REUSE_EXT | libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_NO_METADATA


class JobSeen(msgspec.Struct, frozen=True, kw_only=True):
    """A block job that exists, as it is now. cur, end: its own measure of how far it has come; bandwidth in MiB/s.
    ready: the disk can be moved to its other side."""

    cur: int
    end: int
    bandwidth: int
    ready: bool


class LinkBlocks:
    """See the module."""

    def __init__(self, domains: Domains) -> None:
        self._domains = domains

    # Disks

    def measured(self, vm_id: str, devices: list[Struct], *, wait: bool) -> list[Struct]:
        """Return the devices, disks with their sizes as callers are told them. Without `wait`, as far as libvirt can tell them
        at once."""
        if not any(device["type"] == "disk" for device in devices):
            return devices
        flags = 0 if wait else libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_NOWAIT
        with self._domains.get(vm_id, "measuring disks") as domain:
            told = domain.connect().domainListGetStats([domain], libvirt.VIR_DOMAIN_STATS_BLOCK, flags)
        counted = sample_of(told[0][1], 0.0).disks if told else {}
        return [
            {**device, **sizes(device, counted.get(str(device.get("name"))))} if device["type"] == "disk" else device
            for device in devices
        ]

    def chain(self, vm_id: str, disk: str) -> list[str]:
        """Return the paths of a disk's layers, the leaf last."""
        return pieces.chain_of(pieces.disk_of(self._domains.xml(vm_id), disk))

    def leaf(self, vm_id: str, disk: str) -> tuple[str, str]:
        """Return the path of a disk's leaf, and its format as the wire calls it."""
        element = pieces.disk_of(self._domains.xml(vm_id), disk)
        form = pieces.attribute(element, "driver", "type")
        return pieces.path_of(element), "raw" if form == "raw" else "cow"

    def capacity(self, vm_id: str, disk: str) -> int:
        """Return how large the guest sees the disk, in bytes."""
        with self._domains.get(vm_id, "reading a disk's size") as domain:
            return int(domain.blockInfo(disk)[0])

    def resize(self, vm_id: str, disk: str, size: int) -> None:
        with self._domains.get(vm_id, "resizing a disk") as domain:
            domain.blockResize(disk, size, libvirt.VIR_DOMAIN_BLOCK_RESIZE_BYTES)

    def snapshot(self, vm_id: str, layers: dict[str, str], others: list[str], memory: str) -> None:
        """Give each disk in `layers` (by name) a new leaf, which exists already, at one moment; keep the memory in the file
        `memory`, if it is not ''."""
        flags = _SNAPSHOT | (0 if memory else libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_DISK_ONLY)
        with self._domains.get(vm_id, "taking a snapshot") as domain:
            domain.snapshotCreateXML(pieces.snapshot_xml(layers, others, memory), flags)

    # File systems of the guest

    def freeze(self, vm_id: str) -> None:
        """Have the guest's agent flush its file systems, and write nothing more. Raises Unsupported where it cannot."""
        with self._domains.get(vm_id, "freezing") as domain, _possible("freezing"):
            domain.fsFreeze()

    def thaw(self, vm_id: str) -> None:
        with self._domains.get(vm_id, "thawing") as domain, _possible("thawing"):
            domain.fsThaw()

    # Jobs

    def job(self, vm_id: str, disk: str) -> JobSeen | None:
        """Return the block job of the disk, or None: there is none, any more or yet."""
        with self._domains.get(vm_id, "looking after a block job") as domain:
            info = domain.blockJobInfo(disk, 0)
            if not info:
                return None
            element = pieces.disk_of(str(domain.XMLDesc(0)), disk)
        return JobSeen(
            cur=int(info["cur"]),
            end=int(info["end"]),
            bandwidth=int(info["bandwidth"]),
            ready=pieces.is_ready(element) and info["cur"] == info["end"],
        )

    def commit(self, vm_id: str, disk: str, *, base: str, top: str, active: bool, bandwidth: int) -> None:
        """Begin to move what the layers above `base` hold, up to `top`, into it."""
        flags = libvirt.VIR_DOMAIN_BLOCK_COMMIT_ACTIVE if active else 0
        with self._domains.get(vm_id, "merging") as domain:
            if active:
                domain.blockCommit(disk, base, top, bandwidth, flags)
            else:
                _commit_inside(domain, disk, base, top, bandwidth)

    def pull(self, vm_id: str, disk: str, *, base: str, bandwidth: int) -> None:
        """Begin to move what the layers between `base` and the leaf hold into the leaf; '' for a base: all of them."""
        with self._domains.get(vm_id, "merging") as domain:
            domain.blockRebase(disk, base or None, bandwidth, 0)

    def copy(self, vm_id: str, disk: str, mirror: str, *, shallow: bool, bandwidth: int) -> None:
        """Begin to mirror a disk to what `mirror` describes, which exists already; `shallow`: only its leaf."""
        flags = libvirt.VIR_DOMAIN_BLOCK_COPY_REUSE_EXT | libvirt.VIR_DOMAIN_BLOCK_COPY_TRANSIENT_JOB
        flags |= libvirt.VIR_DOMAIN_BLOCK_COPY_SHALLOW if shallow else 0
        parameters = {libvirt.VIR_DOMAIN_BLOCK_COPY_BANDWIDTH: bandwidth << 20} if bandwidth else {}
        with self._domains.get(vm_id, "replicating") as domain:
            domain.blockCopy(disk, mirror, parameters, flags)

    def pivot(self, vm_id: str, disk: str) -> None:
        """End a job that is ready, with the disk on its other side."""
        with self._domains.get(vm_id, "pivoting") as domain:
            domain.blockJobAbort(disk, libvirt.VIR_DOMAIN_BLOCK_JOB_ABORT_PIVOT)

    def abort(self, vm_id: str, disk: str) -> None:
        """End a job, with the disk where it was."""
        with self._domains.get(vm_id, "aborting a block job") as domain:
            domain.blockJobAbort(disk, 0)


def _commit_inside(domain: libvirt.virDomain, disk: str, base: str, top: str, bandwidth: int) -> None:
    """The layer above `top` gets a new name for what is below it: a relative one, if it had one."""
    try:
        domain.blockCommit(disk, base, top, bandwidth, libvirt.VIR_DOMAIN_BLOCK_COMMIT_RELATIVE)
    except libvirt.libvirtError as error:
        if error.get_error_code() != libvirt.VIR_ERR_OPERATION_INVALID:
            raise
        domain.blockCommit(disk, base, top, bandwidth, 0)


@contextmanager
def _possible(action: str) -> Iterator[None]:
    try:
        yield
    except libvirt.libvirtError as error:
        if error.get_error_code() in IMPOSSIBLE:
            raise Unsupported(what=action, reason=str(error)) from error
        raise
