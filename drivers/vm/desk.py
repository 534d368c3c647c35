"""Desk: what everybody works at who does something to machines.

It promises that what may change under a running daemon (its configuration, where data are found, which scripts there are) is
asked for each time. Imported after the first answer.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from drivers.base import Host
from drivers.errors import Failed, NoSuchVm
from drivers.vm.agents.agents import Agents
from drivers.vm.belongings import Belongings
from drivers.vm.changes.images import Images
from drivers.vm.connection import Connection
from drivers.vm.console import Consoles
from drivers.vm.contract import UNBORN, Identity, Settings, no_room
from drivers.vm.hooked import Hooked
from drivers.vm.machine import Journey, Machine
from drivers.vm.machines import Machines
from drivers.vm.watch import Watch

if TYPE_CHECKING:
    from drivers.vm.hypervisor.link import Link

log = logging.getLogger("vm")


class Peer(Protocol):
    """The daemon of another host. For worker threads."""

    def call(self, verb: str, *args: Any, timeout: float) -> dict[str, Any]:
        """Return the reply without its envelope. Raises PeerUnreachable, PeerRefused, PeerSilent."""


class Desk(msgspec.Struct, frozen=True, kw_only=True):
    """Functions say what holds at the moment. identify: returns what guests are told of their host, in a worker. address_on:
    returns this host's address on a network, '' for none, in a worker."""

    host: Host
    machines: Machines
    connection: Connection
    watch: Watch
    consoles: Consoles
    agents: Agents
    belongings: Belongings
    hooked: Hooked
    settings: Callable[[], Settings]
    images: Callable[[], Images]
    identify: Callable[[], Identity]
    address_on: Callable[[str], str]
    peer: Callable[[str], Peer]
    sample_soon: Callable[[], None]

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

    def trouble(self, link: Link) -> str:
        """Say why no machine can be started, whichever it is; '' when there is no such reason."""
        return no_room(self._channels) if link.row.channels else ""

    def room(self, link: Link) -> str:
        """Return the folder for guests' channels, which is there by then. Raises Failed when they would not fit there."""
        if trouble := self.trouble(link):
            raise Failed(action="starting", reason=trouble)
        os.makedirs(self._channels, mode=0o711, exist_ok=True)
        return self._channels

    @property
    def _channels(self) -> str:
        return f"{self.host.run_dir}/channels"
