"""What libvirt does with the devices of a running domain. All calls may block, and belong into worker threads.

Raises from all calls: HypervisorDown, NoSuchVm, NotResponding, Failed; where XML is made, Invalid and Unsupported.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import libvirt

from drivers.errors import NotFound
from drivers.vm.conf.devices import InterfaceSpec
from drivers.vm.hypervisor.domains import Domains
from drivers.vm.xml import pieces

Struct = dict[str, Any]

LIVE = libvirt.VIR_DOMAIN_AFFECT_LIVE


class LinkDevices:
    """See the module."""

    def __init__(self, domains: Domains) -> None:
        self._domains = domains

    def attach(self, vm_id: str, element: str) -> None:
        """Plug in the device that `element` describes."""
        with self._domains.get(vm_id, "plugging in") as domain:
            domain.attachDeviceFlags(element, LIVE)

    def detach(self, vm_id: str, device: Struct) -> None:
        """Ask the guest to let go of a device: it may take its time, or never do. Nothing when it is gone already."""
        element = pieces.element_of(self._domains.xml(vm_id), device)
        if element is not None:
            with self._domains.get(vm_id, "unplugging") as domain:
                domain.detachDeviceFlags(pieces.text(element), LIVE)

    def has(self, vm_id: str, device: Struct) -> bool:
        """Say whether the device is plugged in."""
        return pieces.element_of(self._domains.xml(vm_id), device) is not None

    def change_medium(self, vm_id: str, name: str, path: str) -> None:
        """Put another medium into the drive `name`, '' for none, whether or not the guest has locked it."""
        element = pieces.with_medium(pieces.disk_of(self._domains.xml(vm_id), name), path)
        with self._domains.get(vm_id, "changing the medium") as domain:
            domain.updateDeviceFlags(element, LIVE | libvirt.VIR_DOMAIN_DEVICE_MODIFY_FORCE)

    def update_nic(
        self,
        vm_id: str,
        nic: Struct,
        *,
        active: bool | None,
        network: str | None,
        limits: InterfaceSpec | None,
        amend: Callable[[str], str] = str,
    ) -> None:
        """Change a nic's link state, bridge, and limits; None leaves what is. `amend` has the last word on its element. Raises
        NotFound when it is gone."""
        element = pieces.element_of(self._domains.xml(vm_id), nic)
        if element is None:
            raise NotFound(kind="nic", name=nic.get("alias", ""))
        changed = amend(pieces.with_link(element, active=active, network=network, limits=limits))
        with self._domains.get(vm_id, "changing the nic") as domain:
            domain.updateDeviceFlags(changed, LIVE)
