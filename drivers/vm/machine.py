"""One virtual machine, and what becomes of it, as a record carries them over an exec and a crash.

It promises that a machine moves as the life cycle says, or not at all, and that one which came from a damaged record is told
from one about which questions can be answered.
"""

from __future__ import annotations

import time
from enum import StrEnum
from typing import Annotated, Any, ClassVar

import msgspec

from drivers.errors import IllegalMove
from drivers.vm.contract import NO_ERROR, TABLE, Ending, Move, Status, Virt
from state.records import Migration, Record, RecordError


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
