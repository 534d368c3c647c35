"""What a virtual machine is to this daemon: its states, the moves between them, its ends, and the driver's settings.

It promises that a life cycle is only ever what `TABLE` says. The words and numbers are the wire's own.
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
    RESTORE = "be restored"
    SAVE = "be saved"
    LEAVE = "leave for another host"
    STAY = "stay where it is"
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
    (Status.WAIT_FOR_LAUNCH, Move.RESTORE): Status.RESTORING,
    (Status.RESTORING, Move.RUN): Status.UP,
    (Status.RESTORING, Move.PAUSE): Status.PAUSED,
    (Status.RESTORING, Move.END): Status.DOWN,
    # On its way a guest runs, and is paused near the end: that says nothing about whether it gets there.
    **{
        (status, move): status
        for status in (Status.SAVING, Status.MIGRATION_SOURCE)
        for move in (Move.RUN, Move.PAUSE, Move.REBOOTED)
    },
    **{
        (before, move): after
        for move, after in ((Move.SAVE, Status.SAVING), (Move.LEAVE, Status.MIGRATION_SOURCE))
        for before in (Status.UP, Status.PAUSED, Status.POWERING_DOWN, Status.REBOOTING)
    },
    (Status.SAVING, Move.STAY): Status.UP,
    (Status.SAVING, Move.END): Status.DOWN,
    (Status.MIGRATION_SOURCE, Move.STAY): Status.UP,
    (Status.MIGRATION_SOURCE, Move.END): Status.DOWN,
    # Seen to run, or paused otherwise than for its journey, it has arrived.
    (Status.MIGRATION_DESTINATION, Move.RUN): Status.UP,
    (Status.MIGRATION_DESTINATION, Move.PAUSE): Status.PAUSED,
    (Status.MIGRATION_DESTINATION, Move.END): Status.DOWN,
}

UNBORN = frozenset({Status.WAIT_FOR_LAUNCH, Status.POWERING_UP, Status.RESTORING})
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
NEVER_CAME = Ending(ExitCode.ERROR, ExitReason.MIGRATION_FAILED, "Migration failed: it did not arrive here")
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


QEMU, CARRIER, AGENT, CONSOLE = "qemu", "carrier", "agent", "console"
"""What of a machine is watched (its QEMU, who carries it away) or held (the connection to the agent in it, its console)."""


def name_of(vm_id: str, what: str) -> str:
    """Return the name by which something of a machine is watched or held, over an exec, too."""
    return f"vm/{vm_id}/{what}"


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
    user_shutdown_timeout: int = 30
    """How long before a shutdown the users in a guest are warned."""
    guest_agent_timeout: float = 30.0
    """How long a guest's agent may be silent before what it said of the moment does not hold any more."""
    hotunplug_timeout: float = 30.0
    """How long a guest may take to let go of a device."""
    replication_bandwidth: int = 0
    """The most MiB a second that a disk is replicated with, 0 for no limit."""
    max_outgoing_migrations: int = 2
    migration_max_bandwidth: int = 52
    """MiB a second of one migration, 0 for no limit."""
    migration_downtime: int = 500
    """Milliseconds for which a guest may stand still at the end of its migration."""
    migration_downtime_steps: int = 5
    migration_downtime_delay: float = 100.0
    """Seconds for each GiB of the guest's memory, until it may stand still for that long."""
    migration_progress_timeout: float = 240.0
    """How long a migration may come no nearer to its end. 0 for ever."""
    migration_max_time_per_gib_mem: float = 64.0
    """Seconds that a migration may take for each GiB of the guest's memory. 0 for no limit."""
    migration_monitor_interval: float = 10.0
    migration_destination_timeout: float = 21600.0
    migration_listener_timeout: float = 30.0
    """How long the other side may take to get ready."""
    secure: bool = True
    """Whether daemons, and their libvirts, speak with one another under TLS."""
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
        user_shutdown_timeout=config.vars.user_shutdown_timeout,
        guest_agent_timeout=config.vars.guest_agent_timeout,
        hotunplug_timeout=config.vars.hotunplug_timeout,
        replication_bandwidth=config.vars.replication_bandwidth,
        max_outgoing_migrations=config.vars.max_outgoing_migrations,
        migration_max_bandwidth=config.vars.migration_max_bandwidth,
        migration_downtime=config.vars.migration_downtime,
        migration_downtime_steps=config.vars.migration_downtime_steps,
        migration_downtime_delay=config.vars.migration_downtime_delay,
        migration_progress_timeout=config.vars.migration_progress_timeout,
        migration_max_time_per_gib_mem=config.vars.migration_max_time_per_gib_mem,
        migration_monitor_interval=config.vars.migration_monitor_interval,
        migration_destination_timeout=config.vars.migration_destination_timeout,
        migration_listener_timeout=config.vars.migration_listener_timeout,
        secure=config.vars.ssl,
        console_max_mb=config.vars.console_max_mb,
        console_keep=config.vars.console_keep,
        nic_model=config.vars.nic_model,
        bridge=config.vars.default_bridge,
        drive_cache=config.vars.qemu_drive_cache,
    )
