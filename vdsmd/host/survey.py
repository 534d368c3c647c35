"""Survey: looks at the host, for HostFacts. Everything that is needed for looking is imported here, after the first answer."""

from __future__ import annotations

from typing import Any

from drivers.vm.contract import Identity, Virt
from vdsmd.host import capabilities, hardware, sampling
from vdsmd.host.facts import Sample, Settings, Shown
from vdsmd.host.files import Files
from vdsmd.host.links import current_addresses, last_client


class Survey:
    """All calls only read, and may come from any thread."""

    def __init__(self, root: str) -> None:
        self._files = Files(root)

    def look(self, shown: Shown, before: Sample) -> tuple[Sample, dict[str, Any]]:
        """Return a new sample, and the statistics over the time since `before`."""
        now = sampling.take(self._files, shown)
        return now, sampling.statistics(self._files, before, now)

    def capabilities(self, settings: Settings, virt: Virt, client: str) -> dict[str, Any]:
        addresses = current_addresses()
        return capabilities.capabilities(self._files, settings, virt, addresses) | last_client(addresses, client)

    def identity(self) -> Identity:
        system = hardware.operating_system(self._files)
        name = "" if system["name"] == hardware.UNKNOWN else system["name"]
        return Identity(host_uuid=hardware.host_id(self._files), os_name=name, os_version=system["version"])

    def hardware(self) -> dict[str, str]:
        return hardware.information(self._files)
