"""What libvirt does with the processors, the memory and the limits of a running domain. For worker threads.

Raises from all calls: HypervisorDown, NoSuchVm, NotResponding, Failed.
"""

from __future__ import annotations

import libvirt

from drivers.vm.hypervisor.domains import Domains

LIVE = libvirt.VIR_DOMAIN_AFFECT_LIVE

IO_LIMITS = (
    "total_bytes_sec",
    "read_bytes_sec",
    "write_bytes_sec",
    "total_iops_sec",
    "read_iops_sec",
    "write_iops_sec",
)


class LinkTuning:
    """See the module."""

    def __init__(self, domains: Domains) -> None:
        self._domains = domains

    def set_cpus(self, vm_id: str, count: int) -> None:
        with self._domains.get(vm_id, "changing the number of processors") as domain:
            domain.setVcpusFlags(count, LIVE)

    def set_balloon(self, vm_id: str, kib: int) -> None:
        with self._domains.get(vm_id, "setting the balloon") as domain:
            domain.setMemoryFlags(kib, LIVE)

    def set_io_limits(self, vm_id: str, disk: str, limits: dict[str, int]) -> None:
        """Limit what a disk transfers. What `limits` does not name has no limit afterwards."""
        with self._domains.get(vm_id, "limiting a disk") as domain:
            domain.setBlockIoTune(disk, {name: limits.get(name, 0) for name in IO_LIMITS}, LIVE)

    def io_limits(self, vm_id: str, disk: str) -> dict[str, int]:
        """Return the limits of a disk, 0 for none."""
        with self._domains.get(vm_id, "reading the limits of a disk") as domain:
            said = domain.blockIoTune(disk, LIVE)
        return {name: int(said.get(name, 0)) for name in IO_LIMITS}

    def set_cpu_time(self, vm_id: str, **limits: int) -> None:
        """Limit the processors' time: vcpu_quota, vcpu_period, in microseconds."""
        with self._domains.get(vm_id, "limiting processor time") as domain:
            domain.setSchedulerParametersFlags(limits, LIVE)

    def set_metadata(self, vm_id: str, xml: str, prefix: str, namespace: str) -> None:
        """Put an element into the domain's metadata, in place of the one of that namespace."""
        with self._domains.get(vm_id, "writing metadata") as domain:
            domain.setMetadata(libvirt.VIR_DOMAIN_METADATA_ELEMENT, xml, prefix, namespace, LIVE)
