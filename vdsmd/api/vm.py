"""Verbs about virtual machines."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vdsmd.api.table import Reply, verb
from vdsmd.api.wire import Number, StringMap, Struct, Truthy, Uuid

if TYPE_CHECKING:
    from vdsmd.daemon import Daemon

# Ending a guest politely takes libvirt up to 15 seconds, then by force as long again.
DESTROY_TIMEOUT = 120.0

_OUTPUT = {"output": [""]}
"""What clients have always been told by verbs that once ran a command."""


@verb("create", cli="vm create")
def create(daemon: Daemon, vmParams: Struct) -> Reply:
    """Take in a new virtual machine and launch it. Answers at once, with status WaitForLaunch; whether it started is
    told by getVmStats.

    `vmParams` needs `vmId` (a UUID) and `memSize` (MiB); devices come as a list `devices`, or as the older parameters
    (drives, hda to hdd, cdrom, bridge, display, ...). Returns `vmList`, one struct: the machine with all defaults.
    """
    return {"vmList": daemon.vms.deeds.create(vmParams)}


def _hasten(daemon: Daemon, vmId: Uuid) -> None:
    daemon.vms.hasten(vmId, DESTROY_TIMEOUT)


@verb("destroy", key="vmId", timeout=DESTROY_TIMEOUT, ahead=_hasten, cli="vm destroy")
def destroy(daemon: Daemon, vmId: Uuid) -> Reply:
    """End a virtual machine at once, if it still runs, and forget it. Also how one that is Down is acknowledged."""
    daemon.vms.deeds.destroy(vmId)
    return {}


@verb("list", quick=True, alive=True, cli="vm list")
def list_(daemon: Daemon, fullStatus: Truthy = False, vmList: list[str] = []) -> Reply:  # noqa: B006 (only read)
    """Return the virtual machines as `vmList`: `vmId` and `status` of each, or with `fullStatus` all that is known of
    their configuration and devices.

    `vmList` limits it to these ids; unknown ones are passed over. Beware: any string, even 'false', counts as true.
    """
    vms = daemon.vms
    return {"vmList": vms.list_full(vmList) if fullStatus else vms.list_short(vmList)}


@verb("getVmStats", quick=True, cli="vm stats", hook="get_vm_stats")
def get_vm_stats(daemon: Daemon, vmId: Uuid) -> Reply:
    """Return the statistics of one virtual machine, as the one element of `statsList`. Sampled every 15 seconds.

    Of one that is Down, `exitCode`, `exitReason` and `exitMessage` say why.
    """
    return {"statsList": [daemon.vms.stats(vmId)]}


@verb("getAllVmStats", quick=True, cli="vm stats", hook="get_all_vm_stats")
def get_all_vm_stats(daemon: Daemon) -> Reply:
    """Return the statistics of all virtual machines, as `statsList`."""
    return {"statsList": daemon.vms.all_stats()}


@verb("pause", key="vmId", cli="vm pause")
def pause(daemon: Daemon, vmId: Uuid) -> Reply:
    """Stop the processors of a virtual machine. `cont` has them go on. Returns `output`, a list of one empty string."""
    daemon.vms.deeds.pause(vmId)
    return dict(_OUTPUT)


@verb("cont", key="vmId", cli="vm cont")
def cont(daemon: Daemon, vmId: Uuid) -> Reply:
    """Have a paused virtual machine go on. Returns `output`, a list of one empty string."""
    daemon.vms.deeds.cont(vmId)
    return dict(_OUTPUT)


@verb("shutdown", key="vmId", timeout=DESTROY_TIMEOUT, cli="vm shutdown")
def shutdown(
    daemon: Daemon,
    vmId: Uuid,
    delay: Number = -1,
    message: str = "",
    reboot: Truthy = False,
    timeout: Number = -1,
    force: Truthy = False,
) -> Reply:
    """Have the guest shut down, or with `reboot` start anew, `delay` seconds from now: by the agent in it, then by its power
    button, then, if `force` says so, by force.

    Each gets `timeout` seconds (-1: as the setting sys_shutdown_timeout says) before the next; without `force` a guest that
    heeds none is left running. The oVirt agent shows users `message`, and waits for them: when `delay` is not given, as
    long as the setting user_shutdown_timeout says. Where nobody can be told, it is then done at once.
    """
    daemon.vms.deeds.shutdown(
        vmId,
        delay=None if delay < 0 else delay,
        message=message,
        patience=None if timeout < 0 else timeout,
        reboot=reboot,
        force=force,
    )
    return {}


@verb("setVmTicket", key="vmId", cli="vm ticket")
def set_vm_ticket(
    daemon: Daemon,
    vmId: Uuid,
    password: str,
    ttl: Number,
    existingConnAction: str = "disconnect",
    params: StringMap = {},  # noqa: B006 (only read)
) -> Reply:
    """Set the password of the first display of a virtual machine. It is valid for `ttl` seconds; with 0 or less its end
    stays as it was. `existingConnAction` says what becomes of a SPICE client that is connected: disconnect, keep or fail.
    `params` is for the hooks.
    """
    daemon.vms.deeds.set_ticket(vmId, password, ttl, existingConnAction, params)
    return {}
