"""Verbs that have virtual machines go to other hosts and come from there, and into files."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vdsmd.api.table import Reply, verb
from vdsmd.api.wire import Number, Struct, Uuid

if TYPE_CHECKING:
    from vdsmd.daemon import Daemon

STARTED = {"status": {"code": 0, "message": "Migration in progress"}, "progress": 0}


@verb("hibernate", key="vmId", cli="vm hibernate")
def hibernate(daemon: Daemon, vmId: Uuid, hiberVolHandle: str) -> Reply:
    """Save the memory of a virtual machine, which is Down then; `create` with the same `hiberVolHandle` has it go on.

    `hiberVolHandle` is an absolute path, or six ids with commas between them: storage domain, pool, image and volume of
    the memory, image and volume of its configuration. Answers at once, with status Saving State; migrateStatus and
    getVmStats tell how it ends. When it fails, the guest runs on.
    """
    daemon.vms.moving.hibernate(vmId, hiberVolHandle)
    return {}


@verb("migrate", key="params.vmId", cli="vm migrate")
def migrate(daemon: Daemon, params: Struct) -> Reply:
    """Have a virtual machine go on at another host. Answers at once; migrateStatus and getVmStats tell how it goes.

    `params`: `vmId`; `dst`, the other daemon as host or host:port; `mode` ('remote', or 'file' for hibernate, with the
    handle as `dst`); `dstqemu`, the address for the data, if it is another; `downtime` (ms) that the guest may stand still
    at the end; `maxBandwidth` (MiB/s); `abortOnError` (true), `tunneled`, `compressed`, `autoConverge` (false);
    `consoleAddress`, where clients of its display find it then. Where libvirt works inside of the daemon, it answers code 12.
    """
    daemon.vms.moving.migrate(params)
    return dict(STARTED)


@verb("migrationCreate", key="params.vmId", timeout=120, secret=("params",))
def migration_create(daemon: Daemon, params: Struct, incomingLimit: Number = 0) -> Reply:
    """Expect a virtual machine from another host. For its daemon, which has libvirt bring it as soon as this has answered.

    `params` is its configuration, with `_srcDomXML`, the definition of its domain, and `elapsedTimeOffset`, the seconds for
    which it has run. Returns `params`, its configuration here, with `_dstDomXML`, its definition for this host, and
    `migrationPort`, which is always 0.
    """
    conf, xml = daemon.vms.expect(params)
    return {"migrationPort": 0, "params": {**conf, "_dstDomXML": xml} if xml else conf}


@verb("migrateStatus", quick=True, cli="vm migrate-status")
def migrate_status(daemon: Daemon, vmId: Uuid) -> Reply:
    """Return how the last migration, or hibernation, of a virtual machine goes, or how it ended: `progress` in percent. When
    it has failed, the status of the answer says why. `migrationStats` has both in one struct.
    """
    told = daemon.vms.migration(vmId)
    status = {"code": _number(told["code"]), "message": told["message"]}
    progress = told["progress"]
    return {"status": status, "progress": progress, "migrationStats": {"status": dict(status), "progress": progress}}


@verb("migrateCancel", cli="vm migrate-cancel")
def migrate_cancel(daemon: Daemon, vmId: Uuid) -> Reply:
    """Have a virtual machine that is on its way to another host, or into a file, stay. Code 47 when it is not."""
    daemon.vms.moving.cancel(vmId)
    return {}


def _number(name: str) -> int:
    from vdsmd.api.codes import number

    return number(name) if name else 0
