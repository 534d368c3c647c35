"""What a virtual machine is to this daemon: its states, the moves between them, its ends, and the driver's settings.

It promises that a life cycle is only ever what `TABLE` says. The words and numbers are the wire's own. States of
hibernation and migration are known, so that they can be shown and stored; the moves into them come with those verbs.
"""

from __future__ import annotations

from enum import IntEnum, StrEnum
from typing import Any

import msgspec


class Status(StrEnum):
    WAIT_FOR_LAUNCH = "WaitForLaunch"
    POWERING_UP = "Powering up"
    UP = "Up"
    PAUSED = "Paused"
    POWERING_DOWN = "Powering down"
    REBOOTING = "RebootInProgress"
    SAVING = "Saving State"
    RESTORING = "Restoring state"
    MIGRATION_SOURCE = "Migration Source"
    MIGRATION_DESTINATION = "Migration Destination"
    DOWN = "Down"


class Move(StrEnum):
    LAUNCH = "be launched"
    RUN = "run"
    PAUSE = "pause"
    POWER_DOWN = "power down"
    REBOOT = "reboot"
    REBOOTED = "have rebooted"
    GIVE_UP = "go on after nobody heeded the power button"
    END = "end"


TABLE: dict[tuple[Status, Move], Status] = {
    (Status.WAIT_FOR_LAUNCH, Move.LAUNCH): Status.POWERING_UP,
    # What was seen by a daemon that crashed before it could write down that it had launched the machine.
    (Status.WAIT_FOR_LAUNCH, Move.RUN): Status.UP,
    (Status.WAIT_FOR_LAUNCH, Move.PAUSE): Status.PAUSED,
    (Status.WAIT_FOR_LAUNCH, Move.END): Status.DOWN,
    (Status.POWERING_UP, Move.RUN): Status.UP,
    (Status.POWERING_UP, Move.PAUSE): Status.PAUSED,
    (Status.POWERING_UP, Move.END): Status.DOWN,
    (Status.UP, Move.RUN): Status.UP,
    (Status.UP, Move.PAUSE): Status.PAUSED,
    (Status.UP, Move.POWER_DOWN): Status.POWERING_DOWN,
    (Status.UP, Move.REBOOT): Status.REBOOTING,
    (Status.UP, Move.REBOOTED): Status.UP,
    (Status.UP, Move.END): Status.DOWN,
    (Status.PAUSED, Move.PAUSE): Status.PAUSED,
    (Status.PAUSED, Move.RUN): Status.UP,
    (Status.PAUSED, Move.POWER_DOWN): Status.POWERING_DOWN,
    (Status.PAUSED, Move.REBOOT): Status.REBOOTING,
    (Status.PAUSED, Move.REBOOTED): Status.PAUSED,
    (Status.PAUSED, Move.END): Status.DOWN,
    # A guest that shuts down still runs: seeing it run says nothing new.
    (Status.POWERING_DOWN, Move.RUN): Status.POWERING_DOWN,
    (Status.POWERING_DOWN, Move.PAUSE): Status.PAUSED,
    (Status.POWERING_DOWN, Move.POWER_DOWN): Status.POWERING_DOWN,
    (Status.POWERING_DOWN, Move.REBOOT): Status.REBOOTING,
    (Status.POWERING_DOWN, Move.REBOOTED): Status.UP,
    (Status.POWERING_DOWN, Move.GIVE_UP): Status.UP,
    (Status.POWERING_DOWN, Move.END): Status.DOWN,
    (Status.REBOOTING, Move.RUN): Status.REBOOTING,
    (Status.REBOOTING, Move.PAUSE): Status.PAUSED,
    (Status.REBOOTING, Move.POWER_DOWN): Status.POWERING_DOWN,
    (Status.REBOOTING, Move.REBOOT): Status.REBOOTING,
    (Status.REBOOTING, Move.REBOOTED): Status.UP,
    (Status.REBOOTING, Move.GIVE_UP): Status.UP,
    (Status.REBOOTING, Move.END): Status.DOWN,
}

UNBORN = frozenset({Status.WAIT_FOR_LAUNCH, Status.POWERING_UP})
"""No domain is known to exist yet: what is heard of one with this id is about a predecessor."""


class ExitCode(IntEnum):
    NORMAL = 0
    ERROR = 1


class ExitReason(IntEnum):
    SUCCESS = 0
    GENERIC_ERROR = 1
    LOST_QEMU_CONNECTION = 2
    LIBVIRT_START_FAILED = 3
    MIGRATION_SUCCEEDED = 4
    SAVE_STATE_SUCCEEDED = 5
    ADMIN_SHUTDOWN = 6
    USER_SHUTDOWN = 7
    MIGRATION_FAILED = 8
    LIBVIRT_DOMAIN_MISSING = 9


class Ending(msgspec.Struct, frozen=True):
    """Why a machine is Down, as the wire tells it."""

    code: ExitCode
    reason: ExitReason
    message: str


ADMIN_SHUTDOWN = Ending(ExitCode.NORMAL, ExitReason.ADMIN_SHUTDOWN, "Admin shut down from the engine")
HOST_SHUTDOWN = Ending(ExitCode.NORMAL, ExitReason.ADMIN_SHUTDOWN, "Shut down from the host, outside of this daemon")
USER_SHUTDOWN = Ending(ExitCode.NORMAL, ExitReason.USER_SHUTDOWN, "User shut down from within the guest")
LOST_QEMU = Ending(ExitCode.ERROR, ExitReason.LOST_QEMU_CONNECTION, "Lost connection with qemu process")
MIGRATED = Ending(ExitCode.NORMAL, ExitReason.MIGRATION_SUCCEEDED, "Migration succeeded")
SAVED = Ending(ExitCode.NORMAL, ExitReason.SAVE_STATE_SUCCEEDED, "SaveState succeeded")
MISSING = Ending(ExitCode.ERROR, ExitReason.LIBVIRT_DOMAIN_MISSING, "Failed to find the libvirt domain")
INTERRUPTED = Ending(
    ExitCode.ERROR,
    ExitReason.LIBVIRT_START_FAILED,
    "The start was interrupted: the daemon, or its connection to libvirt, ended",
)

NO_ERROR = "NOERR"


LONGEST_SOCKET = 107
"""Bytes that the path of a socket may have."""
AGENT_CHANNELS = ("com.redhat.rhevm.vdsm", "org.qemu.guest_agent.0")
"""The channels of each guest for the agents in it, by which guests know them."""


def truth(value: object) -> bool:
    """Whether a parameter of the wire says yes. It may come as text, of which only 'true' (in any case) does."""
    return value.lower() == "true" if isinstance(value, str) else bool(value)


def channel(channels_dir: str, vm_id: str, name: str) -> str:
    """Return the path of the socket of a guest's channel."""
    return f"{channels_dir}/{vm_id}.{name}"


def no_room(channels_dir: str) -> str:
    """Say why sockets of guests' channels cannot be made there, '' when they can: every machine's id is as long."""
    longest = max(len(channel(channels_dir, "-" * 36, name).encode()) for name in AGENT_CHANNELS)
    if longest <= LONGEST_SOCKET:
        return ""
    return f"[paths] run_dir is {longest - LONGEST_SOCKET} bytes too long for the sockets of guests in {channels_dir}"


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """What guests are told of their host. Empty where it is not known."""

    host_uuid: str = ""
    os_name: str = ""
    os_version: str = ""


class Virt(msgspec.Struct, kw_only=True, frozen=True):
    """What guests can be run here. Empty until libvirt has been asked."""

    kvm: bool = False
    machines: list[str] = []
    models: list[str] = []
    versions: dict[str, str] = {}
    """By the package names of the wire: 'libvirt', 'qemu-kvm'."""


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """The part of the configuration that virtual machines depend on. Seconds and MiB where not said otherwise."""

    uri: str = "auto"
    virt_type: str = "auto"
    sample_interval: float = 15.0
    command_timeout: float = 60.0
    """How long libvirt may take over one call before what was asked is said not to respond."""
    sys_shutdown_timeout: int = 120
    """How long a guest may take to heed the power button."""
    console_max_mb: float = 16
    console_keep: int = 5
    nic_model: str = "rtl8139,pv"
    bridge: str = "engine"
    drive_cache: str = "none"


def settings(config: Any) -> Settings:
    """Return what the daemon's configuration (sections `vars` and `libvirt`) says about virtual machines."""
    return Settings(
        uri=config.libvirt.uri,
        virt_type=config.libvirt.virt_type,
        sample_interval=config.vars.vm_sample_interval,
        command_timeout=config.vars.vm_command_timeout,
        sys_shutdown_timeout=config.vars.sys_shutdown_timeout,
        console_max_mb=config.vars.console_max_mb,
        console_keep=config.vars.console_keep,
        nic_model=config.vars.nic_model,
        bridge=config.vars.default_bridge,
        drive_cache=config.vars.qemu_drive_cache,
    )
