"""Processors and memory that running machines get and give back."""

from __future__ import annotations

from typing import Any

from drivers.vm.answers import shown
from drivers.vm.changes import lookup
from drivers.vm.changes.bench import Bench, Conf
from drivers.vm.conf.params import machine_of, new_device
from drivers.vm.errors import BalloonFailed, CpusFailed, HotplugMemoryFailed

Struct = dict[str, Any]

KNOWS_PROCESSORS = 1
"""The version of the guest agents' protocol since which one can be told how many there are."""


class Resources:
    """See the module. All calls raise NoSuchVm, MigrationInProgress, NotResponding, and the error of their own."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench

    def hotplug_memory(self, params: Struct) -> Conf:
        """Plug in the memory module `memory` ({size: MiB, node}). Returns the machine.
        Raises MissingParameter, HotplugMemoryFailed."""
        vm_id = lookup.text(params, "vmId")
        said = lookup.struct(params, "memory")
        with self._bench.work(vm_id, HotplugMemoryFailed, "plugging in memory") as (machine, link):
            module = new_device(machine.conf, {"device": "memory", **said}, "memory", nic_model="")
            element = link.device_xml(machine.vm_id, module, drive_cache="")

            def edit(conf: Conf) -> Conf:
                size = machine_of(conf).mem_size + int(module["size"])
                return {**conf, "devices": [*conf["devices"], module], "memSize": size}

            with (
                self._bench.hooked.around_piece("memory_hotplug", machine.conf, module.get("custom")) as amend,
                self._bench.change(machine, link, edit),
            ):
                link.devices.attach(machine.vm_id, amend(element))
            return shown(machine)

    def set_cpus(self, vm_id: str, count: int) -> Conf:
        """Have the machine run with so many processors. Returns the machine. Raises CpusFailed."""
        with self._bench.work(vm_id, CpusFailed, "changing the number of processors") as (machine, link):
            if count < 1:
                raise CpusFailed(vm=vm_id, reason="a machine has at least one processor")
            with (
                self._bench.hooked.around("set_num_of_cpus", machine.conf, lambda: link.xml(machine.vm_id)),
                self._bench.change(machine, link, lambda conf: {**conf, "smp": str(count)}),
            ):
                link.tuning.set_cpus(machine.vm_id, count)
            self._bench.agents.advise(machine, KNOWS_PROCESSORS, "set-number-of-cpus", count=count)
            return shown(machine)

    def set_balloon(self, vm_id: str, kib: int) -> None:
        """Ask the guest to make do with so much memory. Raises BalloonFailed."""
        with self._bench.work(vm_id, BalloonFailed, "setting the balloon") as (machine, link):
            if not 0 < kib <= machine_of(machine.conf).mem_size << 10:
                raise BalloonFailed(vm=vm_id, reason=f"{kib} KiB is none of 1 KiB to what the machine has")
            with self._bench.change(machine, link, lambda conf: {**conf, "balloonTarget": str(kib)}):
                link.tuning.set_balloon(machine.vm_id, kib)
