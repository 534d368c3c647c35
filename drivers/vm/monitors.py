"""Monitors: each QEMU that was there before an exec must have answered once before the next one may come.

libvirt connects to monitors in threads of its own, and an exec in the middle of that has been seen to lose the guest. It
promises that a monitor which is stuck holds up only itself.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from drivers.base import Host
from drivers.errors import DriverError, NotResponding
from drivers.vm.machines import Machines

if TYPE_CHECKING:
    from drivers.vm.hypervisor.link import Link

log = logging.getLogger("vm")

PATIENCE = 5.0
AGAIN = 5.0


class Monitors:
    """All of it in the loop's thread, but for the asking itself."""

    def __init__(self, host: Host, machines: Machines) -> None:
        self._host = host
        self._machines = machines
        self._silent: set[str] = set()

    @property
    def silent(self) -> list[str]:
        """The ids of machines whose monitor has yet to answer."""
        return sorted(vm_id for vm_id in self._silent if vm_id in self._machines)

    def ask(self, link: Link, vm_ids: list[str]) -> None:
        """Have each of them answer, one after the other."""
        if not vm_ids:
            return
        self._silent.update(vm_ids)
        asked: list[str] = []
        self._host.submit(lambda: self._ask_all(link, vm_ids, asked), timeout=0)
        self._host.later(PATIENCE, lambda: self._too_long(link, vm_ids, asked))

    def _ask_all(self, link: Link, vm_ids: list[str], asked: list[str]) -> None:
        for vm_id in vm_ids:
            asked.append(vm_id)
            try:
                link.ask_monitor(vm_id)
            except NotResponding as error:
                log.error("A monitor does not answer vm=%s error=%s", vm_id, error)
                self._host.in_loop(lambda v=vm_id: self._again(link, v))  # type: ignore[misc]
                continue
            except DriverError as error:
                # Gone, or going: what becomes of it is told by events.
                log.info("A monitor cannot be asked vm=%s error=%s", vm_id, error)
            self._host.in_loop(lambda v=vm_id: self._silent.discard(v))  # type: ignore[misc]

    def _again(self, link: Link, vm_id: str) -> None:
        self._host.later(AGAIN, lambda: self._ask_again(link, vm_id))

    def _ask_again(self, link: Link, vm_id: str) -> None:
        if vm_id in self._machines:
            self.ask(link, [vm_id])
        else:
            # A later machine with this id is no business of ours.
            self._silent.discard(vm_id)

    def _too_long(self, link: Link, vm_ids: list[str], asked: list[str]) -> None:
        """If the last that was asked is stuck, go on with those behind it."""
        stuck = asked[-1] if asked else ""
        machine = self._machines.find(stuck)
        if machine is None or stuck not in self._silent:
            return
        log.error("A monitor does not answer, a re-exec will have to wait for it vm=%s", stuck)
        self._machines.update(machine, responds=False)
        self.ask(link, [vm_id for vm_id in vm_ids[len(asked) :] if vm_id in self._silent])
