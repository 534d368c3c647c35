"""The machines we have: in memory, in the hand-off's record, and each in a checkpoint of its own.

It promises that every change follows the life cycle, is in the checkpoint before anyone is told, and that an impossible move
raises and changes nothing. Machines are changed by the loop's thread and by verbs in worker threads: the lock is for them,
and is never held over a call to libvirt.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

import msgspec

from drivers.base import Host
from drivers.errors import Failed, NoSuchVm, VmExists
from drivers.vm.contract import Ending, Move, Virt
from drivers.vm.machine import Machine, VmRecord, judge
from state.directory import StateDirectory
from state.process import boot_id, is_alive
from state.records import Entry, RecordError, decode, encode, pack, unpack

log = logging.getLogger("vm")

NOTHING_LEFT: dict[str, Any] = {"intended": {}, "frozen": False, "jobs": {}}
"""What ends with a run."""


class Machines:
    """All machines, by id. Iterating gives a copy."""

    def __init__(self, host: Host) -> None:
        self.lock = threading.RLock()
        self.uri = ""
        self.virt = Virt()
        self.ended: Callable[[Machine], None] = lambda machine: None
        """Told of each machine that has become Down. Any thread."""
        self._host = host
        self._machines: dict[str, Machine] = {}
        self._directory: StateDirectory | None = None

    def __contains__(self, vm_id: str) -> bool:
        return vm_id in self._machines

    def all(self) -> list[Machine]:
        return list(self._machines.values())

    def find(self, vm_id: str) -> Machine | None:
        return self._machines.get(vm_id.lower())

    def get(self, vm_id: str) -> Machine:
        machine = self.find(vm_id)
        if machine is None:
            raise NoSuchVm(vm=vm_id)
        return machine

    def is_current(self, machine: Machine) -> bool:
        """Say whether this is still the machine with its id, and not Down: whether news of its domain concern it."""
        return self._machines.get(machine.vm_id) is machine and not machine.is_down

    def add(self, machine: Machine) -> None:
        """Take in a new machine. Raises VmExists, or Failed when it cannot be written down; then nothing has changed."""
        with self.lock:
            if machine.vm_id in self._machines:
                raise VmExists(vm=machine.vm_id)
            try:
                self._write(machine)
            except OSError as error:
                raise Failed(action="writing down a new virtual machine", reason=error) from error
            self._machines[machine.vm_id] = machine
        self._host.event("vm.created", vm=machine.vm_id, name=machine.conf.get("vmName", ""))

    def remove(self, machine: Machine) -> None:
        with self.lock:
            if self._machines.get(machine.vm_id) is machine:
                del self._machines[machine.vm_id]
                self._checkpoints().remove(machine.vm_id)
                self._host.event("vm.removed", vm=machine.vm_id)

    def move(self, machine: Machine, move: Move, **fields: Any) -> None:
        """Make the move, and set the fields with it. Raises IllegalMove, and then nothing has changed."""
        with self.lock:
            before = machine.status
            changed = machine.move(move)
            self.update(machine, **fields)
        if changed:
            log.info("Status changed vm=%s before=%r now=%r", machine.vm_id, str(before), str(machine.status))
            self._host.event("vm.status", vm=machine.vm_id, status=str(machine.status))

    def end(self, machine: Machine, ending: Ending) -> None:
        """The machine is Down, for this reason."""
        log.info("Ended vm=%s code=%d reason=%d: %s", machine.vm_id, ending.code, ending.reason, ending.message)
        self.move(
            machine, Move.END, ending=ending, shutdown=None, pid=0, pid_start=0, responds=True, xml="", **NOTHING_LEFT
        )
        self._host.event("vm.ended", vm=machine.vm_id, code=ending.code, reason=ending.reason, message=ending.message)
        self.ended(machine)

    def update(self, machine: Machine, **fields: Any) -> None:
        """Set the fields, and write the machine down. A full disk is logged; it must not hurt a running machine."""
        with self.lock:
            for name, value in fields.items():
                setattr(machine, name, value)
            if self._machines.get(machine.vm_id) is not machine:
                return
            try:
                self._write(machine)
            except OSError as error:
                log.error("A virtual machine's checkpoint is out of date vm=%s error=%s", machine.vm_id, error)

    def snapshot(self, samples: str, agents: str = "") -> VmRecord:
        with self.lock:
            machines = [msgspec.structs.replace(machine) for machine in self._machines.values()]
        return VmRecord(machines=machines, samples=samples, agents=agents, uri=self.uri, virt=self.virt)

    def restore(self, record: VmRecord) -> None:
        for number, machine in enumerate(record.machines):
            judge(machine, f"owners.vm.machines[{number}]")
        self._machines = {machine.vm_id: machine for machine in record.machines}
        self.uri = record.uri
        self.virt = record.virt

    def recover(self) -> None:
        """Take what the checkpoints say. One that is of no use is set aside, and costs no other machine anything."""
        directory = self._checkpoints()
        for vm_id in directory.names():
            try:
                self._recover(directory.read(vm_id) or b"", vm_id)
            except (RecordError, OSError) as error:
                directory.set_aside(vm_id, str(error))

    def _recover(self, data: bytes, vm_id: str) -> None:
        record = decode(VmRecord, unpack(Entry, data, vm_id), vm_id)
        if [machine.vm_id for machine in record.machines] != [vm_id]:
            raise RecordError(f"{vm_id}.machines: the file is not about the machine that it is named for")
        judge(record.machines[0], f"{vm_id}.machines[0]")
        same_boot = record.boot == boot_id()
        for machine in record.machines:
            if not same_boot:
                machine.shutdown = None  # its times were of that boot's clock
            if not same_boot or not machine.pid or not is_alive(machine.pid, machine.pid_start):
                machine.pid = machine.pid_start = 0
            self._machines[machine.vm_id] = machine
            self.uri = record.uri

    def _write(self, machine: Machine) -> None:
        record = VmRecord(machines=[machine], uri=self.uri, boot=boot_id())
        self._checkpoints().write(machine.vm_id, pack(encode(record)))

    def _checkpoints(self) -> StateDirectory:
        if self._directory is None:
            self._directory = self._host.checkpoints.below("vm")
        return self._directory
