"""Survey: looks at the host, for HostFacts. Everything that is needed for looking is imported here, after the first answer."""

from __future__ import annotations

import logging
from typing import Any

from drivers.base import Root
from drivers.vm.contract import Identity, Virt
from supervdsm.client import ActionError
from vdsmd.host import capabilities, hardware, hostdev, sampling
from vdsmd.host.facts import Sample, Settings, Shown
from vdsmd.host.files import Files
from vdsmd.host.links import current_addresses, last_client
from vdsmd.host.packages import Packages

log = logging.getLogger("host")

PATIENCE = 10.0
"""Seconds to wait for what only root may read. It can be done without."""


class Survey:
    """All calls only read, and may come from any thread."""

    def __init__(self, folder: str, root: Root) -> None:
        self._files = Files(folder)
        self._root = root
        self._roots: dict[str, str] = {}
        self._missed = False
        self._packages = Packages(self._files)

    def look(self, shown: Shown, before: Sample) -> tuple[Sample, dict[str, Any]]:
        """Return a new sample, and the statistics over the time since `before`."""
        now = sampling.take(self._files, shown)
        return now, sampling.statistics(self._files, before, now)

    def capabilities(self, settings: Settings, virt: Virt, client: str) -> dict[str, Any]:
        addresses = current_addresses()
        known = capabilities.capabilities(self._files, settings, virt, addresses, self._firmware())
        known["packages2"] = self._packages.beside(known["packages2"])
        return known | last_client(addresses, client)

    def identity(self) -> Identity:
        system = hardware.operating_system(self._files)
        name = "" if system["name"] == hardware.UNKNOWN else system["name"]
        return Identity(
            host_uuid=hardware.host_id(self._files, self._firmware()), os_name=name, os_version=system["version"]
        )

    def devices(self, wanted: list[str]) -> dict[str, dict[str, Any]]:
        return hostdev.devices(self._files, wanted)

    def hardware(self) -> dict[str, str]:
        return hardware.information(self._files, self._firmware())

    def _firmware(self) -> dict[str, str]:
        """Return what the firmware says of this machine. It does not change: root is asked once for what is root's."""
        told = hardware.firmware(self._files)
        if told["systemUUID"] or not any(told.values()):
            return told
        if not self._roots:
            try:
                self._roots = self._root.call("hardware.facts", timeout=PATIENCE)
            except ActionError as error:
                if not self._missed:
                    log.warning("The host's serial number and uuid cannot be read error=%s", error)
                self._missed = True
        return told | self._roots
