"""The machines we have: one struct each, in memory, in the hand-off's record, and in a checkpoint of its own.

It promises that every change follows the life cycle, is in the checkpoint before anyone is told, and that an impossible move
raises and changes nothing. Machines are changed by the loop's thread and by verbs in worker threads: the lock is for them,
and is never held over a call to libvirt.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from enum import StrEnum
from typing import Annotated, Any, ClassVar

import msgspec

from drivers.base import Host
from drivers.errors import Failed, IllegalMove, NoSuchVm, VmExists
from drivers.vm.contract import NO_ERROR, TABLE, Ending, Move, Status, Virt
from state.directory import StateDirectory
from state.process import boot_id, is_alive
from state.records import Entry, Migration, Record, RecordError, decode, encode, pack, unpack

log = logging.getLogger("vm")


class Shutdown(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A shutdown that was asked for. Times of the monotonic clock, which goes on over an exec."""

    press_at: float
    patience: float
    has_button: bool = True
    force: bool = False
    reboot: bool = False
    pressed_at: float = 0.0
    agent: str = ""
    """The kind of agent in the guest that is to be asked first (see `agents`), or '' when that is done."""
    agent_until: float = 0.0
    """How long it is asked again when it does not respond."""
    delay: float = 0.0
    """Seconds that users in the guest get."""
    message: str = ""


class Step(StrEnum):
    """What was about to be done with a block job when it was written down."""

    BEGIN = "begin"
    RUN = "run"
    PIVOT = "pivot"


class BlockJob(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Work of QEMU on the layers of a disk, which goes on whatever becomes of us.

    kind: 'commit' (into `base`, from `top`), 'pull' (into the leaf, from above `base`) or 'copy' (to `target`, the conf that
    the disk has when it is there). `disk` is its name. bandwidth in MiB/s, cur and end in the job's own measure.
    """

    job_id: str
    kind: str
    disk: str
    step: Step = Step.BEGIN
    image: str = ""
    base: str = ""
    top: str = ""
    active: bool = False
    target: dict[str, Any] = {}
    bandwidth: int = 0
    cur: int = 0
    end: int = 0


class Stage(StrEnum):
    """How far a machine has come on its way to another host, from one, or into a file."""

    WAITING = "waiting"
    """For its turn."""
    BEGINNING = "beginning"
    """The other side is being asked to expect it, or the file is being made ready."""
    MOVING = "moving"
    """libvirt is at it. Of one that comes: its domain has been seen here."""
    DONE = "done"
    FAILED = "failed"


class Way(StrEnum):
    OUT = "out"
    """To another host."""
    IN = "in"
    """From another host."""
    SAVE = "save"
    """Into a file."""


class Contact(StrEnum):
    """What is known of the other daemon's part in a migration."""

    NONE = "none"
    ASKED = "asked"
    """Whether it expects the machine is not known."""
    AGREED = "agreed"


class Journey(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The last way that a machine took. begun: seconds since the epoch. peer: the other daemon, as host or host:port.
    memory: the file, and params: that for the configuration. downtime in ms, bandwidth in MiB/s. options: what else a caller
    said of a migration. told: why it failed, and code: the name that the wire has for that. progress in percent."""

    way: Way
    stage: Stage = Stage.WAITING
    begun: float = 0.0
    peer: str = ""
    memory: str = ""
    params: str = ""
    downtime: int = 0
    bandwidth: int = 0
    options: dict[str, bool | str] = {}
    progress: int = 0
    told: str = ""
    code: str = ""
    contact: Contact = Contact.NONE

    @property
    def is_over(self) -> bool:
        return self.stage in (Stage.DONE, Stage.FAILED)


class Policy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the machine may take of the host, as callers have said. vcpu_limit in percent ('': none was said), quota and
    period in microseconds, io_tune as the wire has it."""

    vcpu_limit: str = ""
    io_tune: list[dict[str, Any]] = []
    quota: int = -1
    period: int = 0


class Machine(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """One virtual machine. An object stands for one run of it: whoever creates it anew makes a new object.

    `conf` is never changed in place, so that it may be read without the lock. `created`, `started` (0.0: not yet) and
    `status_since` are seconds since the epoch.
    """

    vm_id: str
    conf: dict[str, Any]
    status: Status = Status.WAIT_FOR_LAUNCH
    created: float = 0.0
    started: float = 0.0
    status_since: float = 0.0
    pid: int = 0
    pid_start: int = 0
    pause_code: str = NO_ERROR
    responds: bool = True
    ending: Ending | None = None
    shutdown: Shutdown | None = None
    watchdog: dict[str, float | str] = {}
    """The last event of its watchdog, as the wire tells it."""
    xml: str = ""
    """The domain's definition, where libvirt's own memory of it ends with our exec."""
    intended: dict[str, Any] = {}
    """The configuration that holds if a change which was begun has happened. Empty when none is under way."""
    frozen: bool = False
    """A snapshot has had the guest's file systems frozen, and must have them thawed."""
    jobs: dict[str, BlockJob] = {}
    """By id. Replaced, never changed in place."""
    policy: Policy = Policy()
    journey: Journey | None = None
    """Replaced, never changed in place."""

    @property
    def is_down(self) -> bool:
        return self.status is Status.DOWN

    def move(self, move: Move) -> bool:
        """Change the status as the life cycle says. Say whether it changed. Raises IllegalMove, and then nothing did."""
        after = TABLE.get((self.status, move))
        if after is None:
            raise IllegalMove(vm=self.vm_id, status=self.status, move=move)
        changed = after is not self.status
        if changed:
            self.status, self.status_since = after, time.time()
        return changed


class VmRecord(Record):
    """All machines; a checkpoint is the same with one machine, and its boot. `samples` is opaque text: it is worth its
    decoding only when somebody asks for statistics, which is after the pause."""

    # Version 2 has fields that version 1 had not, all with defaults.
    version: ClassVar[int] = 2
    migrations: ClassVar[dict[int, Migration]] = {1: lambda plain: plain}

    machines: list[Machine] = []
    samples: str = ""
    agents: str = ""
    """What the agents in guests told, and how far: opaque text, too."""
    uri: str = ""
    """Which hypervisor the machines run under: 'auto' must not choose anew while there are any."""
    boot: str = ""
    virt: Virt = Virt()


class _Device(msgspec.Struct):
    """What answers rely on in a device."""

    type: str = ""
    name: str = ""
    specParams: dict[str, Any] | Annotated[str, msgspec.Meta(max_length=0)] = ""  # noqa: N815 (the wire's own)


class _Conf(msgspec.Struct):
    """What answers rely on in a configuration."""

    vmId: str  # noqa: N815
    memSize: int = 0  # noqa: N815
    memGuaranteedSize: float | str = 0.0  # noqa: N815
    devices: list[_Device] = []


NOTHING_LEFT: dict[str, Any] = {"intended": {}, "frozen": False, "jobs": {}}
"""What ends with a run."""
DEEPEST = 60
LATEST = 1e12
"""Seconds since the epoch."""


def judge(machine: Machine, where: str) -> None:
    """Raise RecordError when questions about the machine could not be answered: one must not spoil the answers on all."""
    try:
        conf = msgspec.convert(machine.conf, _Conf)
        float(conf.memGuaranteedSize)
        if machine.intended:
            msgspec.convert(machine.intended, _Conf)
    except (ValueError, RecursionError) as error:
        raise RecordError(f"{where}.conf: {error}") from error
    if conf.vmId != machine.vm_id or machine.vm_id != machine.vm_id.lower() or not _can_name_a_file(machine.vm_id):
        raise RecordError(f"{where}.vm_id: is not the id of a machine")
    if not 0 <= machine.pid < 2**31:
        raise RecordError(f"{where}.pid: is not a process's")
    if not all(0 <= at <= LATEST for at in (machine.created, machine.started, machine.status_since)):
        raise RecordError(f"{where}: holds a time that is none")
    if machine.is_down is not (machine.ending is not None):
        raise RecordError(f"{where}.ending: a machine is Down if and only if it has ended")
    if not _can_be_sent(machine.conf, DEEPEST):
        raise RecordError(f"{where}.conf: holds what the wire cannot carry")


def _can_name_a_file(text: str) -> bool:
    return 0 < len(text) <= 64 and text.isascii() and text.isprintable() and "/" not in text and text[0] != "."


def _can_be_sent(value: object, depth: int) -> bool:
    if isinstance(value, dict):
        return depth > 0 and all(_can_be_sent(item, depth - 1) for item in value.values())
    if isinstance(value, list):
        return depth > 0 and all(_can_be_sent(item, depth - 1) for item in value)
    return isinstance(value, str | float) or (isinstance(value, int) and -(2**31) <= value < 2**31)


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
