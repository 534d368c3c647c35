"""What libvirt does with a whole running domain that lasts: saving it to a file, restoring it, and its migration.

All calls may block, and belong into worker threads; `save` and `restore` do for as long as it takes.
Raises from all calls: HypervisorDown, NoSuchVm, NotResponding, Failed.
"""

from __future__ import annotations

from typing import Any

import libvirt
import msgspec

from drivers.vm.hypervisor.domains import Domains, meaning
from drivers.vm.machine import Way

_WAYS = {
    libvirt.VIR_DOMAIN_JOB_OPERATION_SAVE: Way.SAVE,
    libvirt.VIR_DOMAIN_JOB_OPERATION_MIGRATION_OUT: Way.OUT,
    libvirt.VIR_DOMAIN_JOB_OPERATION_MIGRATION_IN: Way.IN,
}
"""Not every job is one of a machine on its way."""

_MIGRATABLE = libvirt.VIR_DOMAIN_XML_SECURE | libvirt.VIR_DOMAIN_XML_MIGRATABLE


class Underway(msgspec.Struct, frozen=True, kw_only=True):
    """A machine on its way, as libvirt sees it now. total, remaining: bytes, of which there may become more. downtime: in
    ms, what it would be now."""

    way: Way
    total: int = 0
    remaining: int = 0
    downtime: int = 0

    @property
    def progress(self) -> int:
        """In percent."""
        return 100 * (self.total - self.remaining) // self.total if self.total else 0


class LinkJobs:
    """See the module."""

    def __init__(self, connection: Any, domains: Domains) -> None:
        self._connection = connection
        self._domains = domains

    def underway(self, vm_id: str) -> Underway | None:
        """Return the way on which the domain is, None when it is on none."""
        with self._domains.get(vm_id, "looking at a job") as domain:
            stats: dict[str, Any] = domain.jobStats()
        way = _WAYS.get(stats.get("operation", libvirt.VIR_DOMAIN_JOB_OPERATION_UNKNOWN))
        if way is None or stats.get("type", libvirt.VIR_DOMAIN_JOB_NONE) == libvirt.VIR_DOMAIN_JOB_NONE:
            return None
        return Underway(
            way=way,
            total=stats.get(libvirt.VIR_DOMAIN_JOB_DATA_TOTAL, 0),
            remaining=stats.get(libvirt.VIR_DOMAIN_JOB_DATA_REMAINING, 0),
            downtime=stats.get(libvirt.VIR_DOMAIN_JOB_DOWNTIME, 0),
        )

    def abort(self, vm_id: str) -> None:
        """End what lasts; the domain runs on as before."""
        with self._domains.get(vm_id, "aborting") as domain:
            domain.abortJob()

    def allow_downtime(self, vm_id: str, milliseconds: int) -> None:
        with self._domains.get(vm_id, "setting the downtime") as domain:
            domain.migrateSetMaxDowntime(milliseconds, 0)

    def migratable(self, vm_id: str) -> str:
        """Return the definition that another host can take over. It holds passwords."""
        with self._domains.get(vm_id, "reading the definition") as domain:
            return str(domain.XMLDesc(_MIGRATABLE))

    def save(self, vm_id: str, path: str) -> None:
        """Write the domain's memory to the file and end it. When that fails, it runs on."""
        with self._domains.get(vm_id, "saving") as domain:
            domain.saveFlags(path, None, 0)

    def saved(self, path: str) -> str:
        """Return the definition of the domain in the file. It holds passwords."""
        with meaning("reading a saved memory"):
            return str(self._connection.saveImageGetXMLDesc(path, libvirt.VIR_DOMAIN_SAVE_IMAGE_XML_SECURE))

    def restore(self, xml: str, path: str, *, paused: bool) -> None:
        """Start the domain with the memory in the file, which stays. It is paused if it was, or if `paused` says so."""
        with meaning("restoring"):
            self._connection.restoreFlags(path, xml, libvirt.VIR_DOMAIN_SAVE_PAUSED if paused else 0)
