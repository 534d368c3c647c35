"""Desk: what everybody works at who moves machines, from and to other hosts, and from and to files.

Imported after the first answer.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from drivers.base import Host
from drivers.errors import NoSuchVm
from drivers.hooks import Hooks
from drivers.vm.belongings import Belongings
from drivers.vm.changes.images import Images
from drivers.vm.connection import Connection
from drivers.vm.console import Consoles
from drivers.vm.contract import UNBORN, Settings
from drivers.vm.machine import Journey, Machine, Machines
from drivers.vm.transfer import devices
from drivers.vm.watch import Watch

if TYPE_CHECKING:
    from drivers.vm.link import Link

log = logging.getLogger("vm")


class Peer(Protocol):
    """The daemon of another host. For worker threads."""

    def call(self, verb: str, *args: Any, timeout: float) -> dict[str, Any]:
        """Return the reply without its envelope. Raises PeerUnreachable, PeerRefused, PeerSilent."""


class Desk(msgspec.Struct, frozen=True, kw_only=True):
    """Functions say what holds at the moment. `room`: returns the folder for guests' channels, which is there by then."""

    host: Host
    machines: Machines
    connection: Connection
    watch: Watch
    consoles: Consoles
    settings: Callable[[], Settings]
    images: Callable[[], Images]
    hooks: Callable[[], Hooks]
    peer: Callable[[str], Peer]
    room: Callable[[Link], str]
    belongings: Belongings

    def running(self, vm_id: str) -> Machine:
        """Raises NoSuchVm, also when it does not run yet, or any more."""
        machine = self.machines.get(vm_id)
        if machine.is_down or machine.status in UNBORN:
            raise NoSuchVm(vm=vm_id)
        return machine

    def note(self, machine: Machine, journey: Journey, *, told: str = "") -> None:
        """Have the journey on record like this. Any thread."""
        self.machines.update(machine, journey=journey)
        log.info("On its way vm=%s way=%s stage=%s%s", machine.vm_id, journey.way, journey.stage, told and f": {told}")
        self.host.event(
            "vm.journey",
            vm=machine.vm_id,
            way=str(journey.way),
            stage=str(journey.stage),
            peer=journey.peer,
            reason=told,
        )

    def run_hooks(self, name: str, xml: str, machine: Machine, extra: dict[str, str] | None = None) -> str:
        """Run the operator's scripts at the point over the definition. Returns what they made of it. Raises HookFailed."""
        custom = machine.conf.get("custom")
        given = custom if isinstance(custom, dict) else {}
        return self.hooks().run(name, xml, vm_id=machine.vm_id, custom=given, extra=extra)

    def run_device_hooks(self, name: str, xml: str, machine: Machine) -> None:
        """Run the operator's scripts at the point over each device of the definition. Raises HookFailed."""
        if xml and self.hooks().has(name):
            for element in devices(xml):
                self.run_hooks(name, element, machine)
