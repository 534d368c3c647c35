"""Verbs that limit what running virtual machines take of their host, and those about the policies behind the limits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vdsmd.api.table import Reply, verb
from vdsmd.api.wire import Number, Struct, Uuid

if TYPE_CHECKING:
    from vdsmd.daemon import Daemon


@verb("setIoTune", key="vmId", cli="vm set-io-tune")
def set_io_tune(daemon: Daemon, vmId: Uuid, tunables: list[dict[str, Any]]) -> Reply:
    """Limit what disks of a running virtual machine transfer.

    All that are named are limited, or none. Each of `tunables` names a disk by `name` or `path`, and has `ioTune`:
    total_bytes_sec, read_bytes_sec, write_bytes_sec, total_iops_sec, read_iops_sec, write_iops_sec; what is left out has
    no limit.
    """
    daemon.vms.changes.tuning.set_io(vmId, tunables)
    return {}


@verb("getIoTune", key="vmId", cli="vm io-tune")
def get_io_tune(daemon: Daemon, vmId: Uuid) -> Reply:
    """Return the limits of all disks of a running virtual machine.

    They come as `ioTune`: name, path and ioTune of each."""
    return {"ioTune": daemon.vms.changes.tuning.io(vmId)}


@verb("getIoTunePolicy", key="vmId", cli="vm io-tune-policy")
def get_io_tune_policy(daemon: Daemon, vmId: Uuid) -> Reply:
    """Return between what limits the disks of a virtual machine may be tuned.

    They come as `ioTunePolicy`: name, path, guaranteed and maximum of each that updateVmPolicy named."""
    return {"ioTunePolicy": daemon.vms.changes.tuning.io_policy(vmId)}


@verb("updateVmPolicy", key="params.vmId", cli="vm update-policy")
def update_vm_policy(daemon: Daemon, params: Struct) -> Reply:
    """Say what a running virtual machine may be given.

    `vmId`; `vcpuLimit` in percent; `ioTune`, a list of disks (by `name`, `path` or the ids of the volume) with `guaranteed`
    and `maximum` limits. It is kept for whoever tunes."""
    daemon.vms.changes.tuning.update_policy(params)
    return {}


@verb("vmSetCpuTuneQuota", key="vmId", cli="vm set-cpu-quota")
def vm_set_cpu_tune_quota(daemon: Daemon, vmId: Uuid, quota: Number) -> Reply:
    """Limit the processor time of a virtual machine.

    Each processor may run for `quota` microseconds of every period, with -1 for all of it."""
    daemon.vms.changes.tuning.set_cpu_quota(vmId, quota)
    return {}


@verb("vmSetCpuTunePeriod", key="vmId", cli="vm set-cpu-period")
def vm_set_cpu_tune_period(daemon: Daemon, vmId: Uuid, period: Number) -> Reply:
    """Set the `period`, in microseconds, that vmSetCpuTuneQuota counts in."""
    daemon.vms.changes.tuning.set_cpu_period(vmId, period)
    return {}
