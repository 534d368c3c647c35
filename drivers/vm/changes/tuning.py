"""Limits on what running machines take of their host, and the policies that limits are derived from.

A policy says what somebody who tunes (a person, or a policy engine) may set; keeping it changes nothing by itself.
"""

from __future__ import annotations

from typing import Any

import msgspec
from lxml import etree

from drivers.errors import DriverError, Invalid
from drivers.vm.changes import lookup
from drivers.vm.changes.bench import Bench, Conf
from drivers.vm.conf.devices import IoTune
from drivers.vm.conf.view import View, convert
from drivers.vm.errors import CpuTuneFailed, IoTuneFailed, PolicyFailed
from drivers.vm.hypervisor.link import Link
from drivers.vm.machine import Machine, Policy
from drivers.vm.xml.domain import TUNE_NAMESPACE
from drivers.vm.xml.elements import add
from drivers.vm.xml.running import on_the_wire

Struct = dict[str, Any]


class Tunable(View, frozen=True, kw_only=True):
    name: str = ""
    path: str = ""
    io_tune: IoTune


class Limits(View, frozen=True, kw_only=True):
    guaranteed: IoTune
    maximum: IoTune


class Tuning:
    """See the module. All calls raise NoSuchVm, NotResponding, and the error of their own."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench

    def set_io(self, vm_id: str, tunables: list[Struct]) -> None:
        """Limit what disks transfer: all that are named, or none. Raises IoTuneFailed."""
        with self._bench.work(vm_id, IoTuneFailed, "limiting disks") as (machine, link):
            wanted: list[tuple[Struct, dict[str, int]]] = []
            for number, said in enumerate(tunables):
                tunable = convert(said, Tunable, f"tunables[{number}]")
                disk = lookup.disk(machine.conf, {"name": tunable.name, "path": tunable.path})
                wanted.append((disk, msgspec.structs.asdict(tunable.io_tune)))
            self._limit(machine, link, wanted)

    def _limit(self, machine: Machine, link: Link, wanted: list[tuple[Struct, dict[str, int]]]) -> None:
        def edit(conf: Conf) -> Conf:
            for disk, limits in wanted:
                spec = {**(disk.get("specParams") or {}), "ioTune": on_the_wire(limits)}
                conf = lookup.replaced(conf, disk, specParams=spec)
            return conf

        done: list[tuple[str, dict[str, int]]] = []
        with self._bench.change(machine, link, edit):
            try:
                for disk, limits in wanted:
                    before = link.tuning.io_limits(machine.vm_id, disk["name"])
                    link.tuning.set_io_limits(machine.vm_id, disk["name"], limits)
                    done.append((disk["name"], before))
            except DriverError:
                for name, before in reversed(done):
                    link.tuning.set_io_limits(machine.vm_id, name, before)
                raise

    def io(self, vm_id: str) -> list[Struct]:
        """Return the limits of all disks, [{name, path, ioTune}]. Raises IoTuneFailed."""
        with self._bench.work(vm_id, IoTuneFailed, "reading the limits of disks") as (machine, link):
            disks = [disk for disk in lookup.of_kind(machine.conf, "disk") if disk.get("device") in ("disk", "lun")]
            return [
                {
                    "name": disk["name"],
                    "path": disk.get("path", ""),
                    "ioTune": on_the_wire(link.tuning.io_limits(machine.vm_id, disk["name"])),
                }
                for disk in disks
            ]

    def update_policy(self, params: Struct) -> None:
        """Keep what the policy says: vcpuLimit (percent), ioTune ([{name | path | ids, guaranteed, maximum}]). What is not
        said stays. Raises MissingParameter, PolicyFailed."""
        vm_id = lookup.text(params, "vmId")
        with self._bench.work(vm_id, PolicyFailed, "changing the policy") as (machine, link):
            policy = machine.policy
            if "vcpuLimit" in params:
                limit = convert(params["vcpuLimit"], int, "vcpuLimit") if params["vcpuLimit"] != "" else None
                policy = msgspec.structs.replace(policy, vcpu_limit="" if limit is None else str(limit))
            if "ioTune" in params:
                policy = msgspec.structs.replace(policy, io_tune=self._io_policy(machine, params["ioTune"]))
            link.tuning.set_metadata(machine.vm_id, _metadata(policy), "ovirt", TUNE_NAMESPACE)
            self._bench.machines.update(machine, policy=policy)

    def _io_policy(self, machine: Machine, said: Any) -> list[Struct]:
        if not isinstance(said, list) or not all(isinstance(entry, dict) for entry in said):
            raise Invalid(what="ioTune", reason="expected a list of structs")
        by_disk = {entry["name"]: entry for entry in machine.policy.io_tune}
        for number, entry in enumerate(said):
            limits = convert(entry, Limits, f"ioTune[{number}]")
            disk = lookup.disk(machine.conf, entry)
            by_disk[disk["name"]] = {
                "name": disk["name"],
                "path": disk.get("path", ""),
                "guaranteed": on_the_wire(msgspec.structs.asdict(limits.guaranteed)),
                "maximum": on_the_wire(msgspec.structs.asdict(limits.maximum)),
            }
        return list(by_disk.values())

    def io_policy(self, vm_id: str) -> list[Struct]:
        """Return what the policy says of disks."""
        with self._bench.work(vm_id, PolicyFailed, "reading the policy") as (machine, _):
            return list(machine.policy.io_tune)

    def set_cpu_quota(self, vm_id: str, quota: int) -> None:
        """Let each processor run for so many microseconds of a period, -1 for all of it. Raises CpuTuneFailed."""
        with self._bench.work(vm_id, CpuTuneFailed, "limiting processor time") as (machine, link):
            link.tuning.set_cpu_time(machine.vm_id, vcpu_quota=quota)
            policy = msgspec.structs.replace(machine.policy, quota=quota)
            self._bench.machines.update(machine, policy=policy)

    def set_cpu_period(self, vm_id: str, period: int) -> None:
        """Account for the processors' time in periods of so many microseconds. Raises CpuTuneFailed."""
        with self._bench.work(vm_id, CpuTuneFailed, "limiting processor time") as (machine, link):
            if period < 0:
                raise CpuTuneFailed(vm=vm_id, reason="a period has no less than no time")
            link.tuning.set_cpu_time(machine.vm_id, vcpu_period=period)
            policy = msgspec.structs.replace(machine.policy, period=period)
            self._bench.machines.update(machine, policy=policy)


def _metadata(policy: Policy) -> str:
    """The policy as other tools of the field read it from the domain. libvirt gives it its namespace."""
    qos = etree.Element("qos")
    if policy.vcpu_limit:
        add(qos, "vcpuLimit", policy.vcpu_limit)
    if policy.io_tune:
        devices = add(qos, "ioTune")
        for entry in policy.io_tune:
            device = add(devices, "device", name=entry["name"], path=entry["path"])
            for kind in ("maximum", "guaranteed"):
                limits = add(device, kind)
                for name, limit in entry[kind].items():
                    add(limits, name, limit)
    return etree.tostring(qos, encoding="unicode")
