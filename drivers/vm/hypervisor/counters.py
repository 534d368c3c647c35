"""The counters of all domains of an open connection, read at once.

It promises that a domain which is being ended holds up nobody who reads them: libvirt has whoever asks for such a one wait, for
up to 45 seconds when its QEMU does not end. Imported after the first answer.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import libvirt

from drivers.vm.hypervisor.domains import Domains, meaning

COUNTERS = (
    libvirt.VIR_DOMAIN_STATS_CPU_TOTAL
    | libvirt.VIR_DOMAIN_STATS_BALLOON
    | libvirt.VIR_DOMAIN_STATS_VCPU
    | libvirt.VIR_DOMAIN_STATS_INTERFACE
    | libvirt.VIR_DOMAIN_STATS_BLOCK
)
"""What `vmstats.sample_of` looks at. A hypervisor that has not all of these gives the others."""
SIGNS_OF_LIFE = libvirt.VIR_DOMAIN_STATS_BALLOON | libvirt.VIR_DOMAIN_STATS_IOTHREAD
"""The least that shows whether a monitor answers, also one of a guest without a balloon."""


class Counters:
    """`patient`: the bulk call can be told not to wait for a busy domain. Any thread."""

    def __init__(self, connection: Any, domains: Domains, *, patient: bool) -> None:
        self.ending: list[str] = []
        """The ids of domains that are being ended."""
        self._connection = connection
        self._domains = domains
        self._flags = libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_NOWAIT if patient else 0

    @contextmanager
    def without(self, vm_id: str) -> Iterator[None]:
        """The domain is being ended within."""
        self.ending.append(vm_id)
        try:
            yield
        finally:
            self.ending.remove(vm_id)

    def read(self, vm_ids: Iterable[str], *, brief: bool) -> dict[str, dict[str, Any]]:
        """Return the counters of all domains, from one call; while one is being ended, of these alone without that. `brief`:
        no more than signs of life."""
        mask = SIGNS_OF_LIFE if brief else COUNTERS
        with meaning("sampling"):
            if not (ending := set(self.ending)):
                found = self._connection.getAllDomainStats(mask, self._flags)
            else:
                others = self._domains.there(vm_id for vm_id in vm_ids if vm_id not in ending)
                found = self._connection.domainListGetStats(others, mask, self._flags) if others else []
            return {domain.UUIDString(): values for domain, values in found}
