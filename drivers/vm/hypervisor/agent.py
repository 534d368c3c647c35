"""QEMU's guest agent as libvirt reaches it. For worker threads."""

from __future__ import annotations

import libvirt_qemu

from drivers.vm.hypervisor.domains import Domains


class LinkAgent:
    """Raises from all calls: HypervisorDown, NoSuchVm, NotResponding (there is no agent that answers), Failed."""

    def __init__(self, domains: Domains) -> None:
        self._domains = domains

    def ask(self, vm_id: str, command: str, patience: int) -> str:
        """Return the answer to a command, both of them JSON. It may take `patience` seconds."""
        with self._domains.get(vm_id, "asking the guest agent") as domain:
            return str(libvirt_qemu.qemuAgentCommand(domain, command, patience, 0))
