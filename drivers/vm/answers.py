"""Answers: what can be asked of virtual machines.

It promises to answer from memory, at once, in every phase of the daemon's life. All calls come from the loop's thread.
"""

from __future__ import annotations

import time
from typing import Any

from drivers.vm.agents.agents import Agents
from drivers.vm.connection import Connection
from drivers.vm.contract import Status, Virt
from drivers.vm.machine import Machine
from drivers.vm.machines import Machines
from drivers.vm.sampler import Sampler
from drivers.vm.vmstats import down_stats, running_stats

Stats = dict[str, Any]
Conf = dict[str, Any]


class Answers:
    """See the module."""

    def __init__(self, machines: Machines, connection: Connection, sampler: Sampler, agents: Agents) -> None:
        self._machines = machines
        self._connection = connection
        self._sampler = sampler
        self.agents = agents

    def link_status(self) -> str:
        return self._connection.status()

    def statuses(self) -> list[str]:
        return [str(machine.status) for machine in self._machines.all()]

    def committed(self) -> int:
        """Return the memory in MiB that is promised to machines which are not Down."""
        return sum(int(m.conf.get("memSize", 0)) for m in self._machines.all() if not m.is_down)

    def virt(self) -> Virt:
        return self._machines.virt

    def using(self, domain: str) -> list[str]:
        """Return the machines that have a disk on a storage domain."""
        return [machine.vm_id for machine in self._machines.all() if _uses(machine.conf, domain)]

    def list_short(self, vm_ids: list[str]) -> list[dict[str, str]]:
        return [{"vmId": machine.vm_id, "status": str(machine.status)} for machine in self._some(vm_ids)]

    def list_full(self, vm_ids: list[str]) -> list[Conf]:
        return [shown(machine) for machine in self._some(vm_ids)]

    def migration(self, vm_id: str) -> dict[str, Any]:
        """Return how the last way of the machine goes, or ended: code (the wire's name for why it failed, or ''), message and
        progress. Raises NoSuchVm."""
        from drivers.vm.travel.progress import status_of  # deferred: `vdsmd.deferred` has it imported

        return status_of(self._machines.get(vm_id))

    def stats(self, vm_id: str) -> Stats:
        """Return the statistics of the machine, or how it ended. Raises NoSuchVm."""
        return self._stats(self._machines.get(vm_id))

    def all_stats(self) -> list[Stats]:
        return [self._stats(machine) for machine in self._machines.all()]

    def _some(self, vm_ids: list[str]) -> list[Machine]:
        """Return the machines with these ids, or all when none are given. Unknown ids are passed over."""
        if not vm_ids:
            return self._machines.all()
        return [machine for machine in map(self._machines.find, vm_ids) if machine is not None]

    def _stats(self, machine: Machine) -> Stats:
        ending = machine.ending
        if ending is not None:
            return down_stats(
                machine.conf,
                exit_code=ending.code,
                exit_message=ending.message,
                exit_reason=ending.reason,
                status_since=machine.status_since,
            )
        sample, previous = self._sampler.of(machine.vm_id)
        return running_stats(
            machine.conf,
            str(machine.status),
            sample,
            previous,
            now=time.monotonic(),
            elapsed=time.time() - (machine.started or time.time()),
            status_since=machine.status_since,
            pid=machine.pid,
            responsive=machine.responds and (self._connection.link is not None or not self._connection.tried),
            pause_code=machine.pause_code if machine.status is Status.PAUSED else "",
            watchdog=machine.watchdog,
            jobs=machine.jobs.values(),
            policy=machine.policy,
            guest=self.agents.statistics(machine),
            migration_progress=_progress(machine),
        )


def shown(machine: Machine) -> Conf:
    """Return the machine's full form on the wire: its configuration, and how it is."""
    form = {**machine.conf, "status": str(machine.status), "pid": machine.pid}
    if machine.status is Status.PAUSED:
        form["pauseCode"] = machine.pause_code
    if machine.ending is not None:
        form["exitCode"], form["exitMessage"] = int(machine.ending.code), machine.ending.message
        form["exitReason"] = int(machine.ending.reason)
    return form


def _progress(machine: Machine) -> int | None:
    leaves = machine.journey is not None and machine.status is Status.MIGRATION_SOURCE
    return machine.journey.progress if leaves and machine.journey else None


def _uses(conf: Conf, domain: str) -> bool:
    disks = (device for device in conf.get("devices", ()) if device.get("type") == "disk")
    return any(disk.get("domainID") == domain or domain in str(disk.get("path") or "") for disk in disks)
