"""Verbs about storage pools, and about who is their SPM."""

from __future__ import annotations

from typing import TYPE_CHECKING

from drivers.storage.edge import failing
from vdsmd.api.table import Reply, verb
from vdsmd.api.wire import Ignored, Number, Struct, Truthy, Uuid

if TYPE_CHECKING:
    from drivers.storage.parts import Parts
    from vdsmd.daemon import Daemon

# Longer than what the storage gets to answer, so that it is said that it does not.
TIMEOUT = 150.0
LONG_TIMEOUT = 600.0


def parts(daemon: Daemon) -> Parts:
    return daemon.storage.parts


@verb("connectStoragePool", gated=False, key="spUUID", message="OK", timeout=TIMEOUT, cli="pool connect")
def connect_storage_pool(
    daemon: Daemon,
    spUUID: Uuid,
    hostID: Number,
    scsiKey: Ignored,
    msdUUID: Uuid,
    masterVersion: Number,
    domainsMap: Ignored = None,
) -> Reply:
    """Connect this host to a storage pool.

    `hostID`, 1 to 250, tells the hosts of a pool apart; `msdUUID` is its master domain, in `masterVersion`. A pool that is
    connected already is looked at anew.

    `domainsMap`: the states (active, attached, locked, unknown) of the pool's domains by id, where the client keeps the list;
    left out, the list on the master domain counts. The connection outlives a restart of this daemon.
    """
    from drivers.storage.pools.errors import PoolConnectionFailed  # imported by now (vdsmd.deferred)

    told = domainsMap if isinstance(domainsMap, dict) and domainsMap else None
    with failing(PoolConnectionFailed, f"connecting pool {spUUID}"):
        parts(daemon).pools.connect(spUUID, hostID, msdUUID, masterVersion, told)
    return {}


@verb("disconnectStoragePool", gated=False, key="spUUID", message="OK", timeout=TIMEOUT, cli="pool disconnect")
def disconnect_storage_pool(
    daemon: Daemon, spUUID: Uuid, hostID: Number, scsiKey: Ignored, remove: Truthy = False
) -> Reply:
    """Let go of a storage pool; `remove`: of its directory in the repository too. The SPM of the pool cannot."""
    from drivers.storage.pools.errors import PoolDisconnectionFailed  # imported by now (vdsmd.deferred)
    from drivers.storage.pools.pools import check_host_id

    check_host_id(hostID)
    with failing(PoolDisconnectionFailed, f"disconnecting pool {spUUID}"):
        parts(daemon).pools.disconnect(spUUID, directory=remove)
    return {}


@verb("createStoragePool", gated=False, key="spUUID", message="OK", timeout=LONG_TIMEOUT, cli="pool create")
def create_storage_pool(
    daemon: Daemon,
    poolType: Ignored,
    spUUID: Uuid,
    poolName: str,
    masterDom: Uuid,
    domList: list[str],
    masterVersion: Number,
    lockPolicy: Ignored = None,
    lockRenewalIntervalSec: Number | None = None,
    leaseTimeSec: Number | None = None,
    ioOpTimeoutSec: Number | None = None,
    leaseRetries: Number | None = None,
) -> Reply:
    """Make a storage pool of storage domains that are in none.

    `masterDom`, one of them, keeps what is known of the pool. It is active then, and the others are attached. This host does
    not connect to it."""
    from drivers.storage.pools.errors import PoolCreationFailed  # imported by now (vdsmd.deferred)
    from drivers.storage.pools.making import Timing

    timing = Timing(lockRenewalIntervalSec, leaseTimeSec, ioOpTimeoutSec, leaseRetries)
    with failing(PoolCreationFailed, f"creating pool {spUUID}", masterDom):
        parts(daemon).pool_maker.create(spUUID, poolName, masterDom, domList, masterVersion, timing)
    return {}


@verb("destroyStoragePool", gated=False, key="spUUID", message="OK", timeout=LONG_TIMEOUT, cli="pool destroy")
def destroy_storage_pool(daemon: Daemon, spUUID: Uuid, hostID: Number, scsiKey: Ignored) -> Reply:
    """Take a storage pool apart: its domains are in none then, with all their images. Only the SPM can, under its own id."""
    from drivers.storage.pools.errors import PoolDestroyFailed  # imported by now (vdsmd.deferred)

    with failing(PoolDestroyFailed, f"destroying pool {spUUID}"):
        parts(daemon).pool_maker.destroy(spUUID, hostID)
    return {}


@verb("reconstructMaster", gated=False, key="spUUID", message="OK", timeout=LONG_TIMEOUT, cli="pool reconstruct")
def reconstruct_master(
    daemon: Daemon,
    spUUID: Uuid,
    poolName: str,
    masterDom: Uuid,
    domDict: Struct,
    masterVersion: Number,
    lockPolicy: Ignored = None,
    lockRenewalIntervalSec: Number | None = None,
    leaseTimeSec: Number | None = None,
    ioOpTimeoutSec: Number | None = None,
    leaseRetries: Number | None = None,
    hostId: Number | None = None,
) -> Reply:
    """Have another domain be the master of a storage pool.

    The pool must not be connected on this host. `domDict` has the states of its domains by id; `masterVersion` must be higher
    than that of the master that was lost."""
    from drivers.storage.pools.errors import ReconstructFailed  # imported by now (vdsmd.deferred)
    from drivers.storage.pools.making import Timing

    timing = Timing(lockRenewalIntervalSec, leaseTimeSec, ioOpTimeoutSec, leaseRetries)
    with failing(ReconstructFailed, f"reconstructing the master of pool {spUUID}", masterDom):
        parts(daemon).pool_maker.reconstruct(spUUID, poolName, masterDom, domDict, masterVersion, timing, hostId)
    return {}


@verb("refreshStoragePool", gated=False, key="spUUID", message="OK", timeout=TIMEOUT, cli="pool refresh")
def refresh_storage_pool(daemon: Daemon, spUUID: Uuid, msdUUID: Uuid, masterVersion: Number) -> Reply:
    """See anew which domains are in a storage pool. One of which `msdUUID` is not the master in `masterVersion` is
    disconnected. The SPM knows already, and does nothing."""
    from drivers.storage.pools.errors import PoolActionFailed  # imported by now (vdsmd.deferred)

    with failing(PoolActionFailed, f"refreshing pool {spUUID}", msdUUID):
        parts(daemon).pools.refresh(spUUID, msdUUID, masterVersion)
    return {}


@verb("getStoragePoolInfo", gated=False, message="OK", timeout=TIMEOUT, cli="pool info")
def get_storage_pool_info(daemon: Daemon, spUUID: Uuid) -> Reply:
    """Return what a storage pool is, as `info`.

    And what each of its domains is, as `dominfo`, by id: `status`, and sizes in bytes as strings for those that are active and
    can be reached."""
    from drivers.storage.pools.errors import PoolActionFailed  # imported by now (vdsmd.deferred)

    with failing(PoolActionFailed, f"reading pool {spUUID}"):
        spm = parts(daemon).spm.status(spUUID)
        info, domains = parts(daemon).pools.info(spUUID, spm)
    return {"info": info, "dominfo": domains}


@verb("getConnectedStoragePoolsList", gated=False, quick=True, message="OK", cli="pool list")
def get_connected_storage_pools_list(daemon: Daemon) -> Reply:
    """Return the storage pools that this host is connected to, as `poollist`."""
    return {"poollist": [pool.uuid for pool in daemon.storage.pools.all()]}


@verb("setStoragePoolDescription", gated=False, key="spUUID", message="OK", timeout=TIMEOUT, cli="pool describe")
def set_storage_pool_description(daemon: Daemon, spUUID: Uuid, description: str) -> Reply:
    """Set the name of a storage pool: up to 50 characters. Only the SPM can."""
    from drivers.storage.pools.errors import PoolActionFailed  # imported by now (vdsmd.deferred)

    with failing(PoolActionFailed, f"describing pool {spUUID}"):
        parts(daemon).members.describe(spUUID, description)
    return {}


@verb("upgradeStoragePool", gated=False, key="spUUID", message="OK", timeout=LONG_TIMEOUT, cli="pool upgrade")
def upgrade_storage_pool(daemon: Daemon, spUUID: Uuid, targetDomVersion: Number) -> Reply:
    """Bring the data domains of a storage pool to a version: 3, 4 or 5. Those that are not active, or cannot be reached, follow
    when they are activated. Only the SPM can. Returns `upgradeStatus`, "started"."""
    from drivers.storage.pools.errors import PoolActionFailed  # imported by now (vdsmd.deferred)

    with failing(PoolActionFailed, f"upgrading pool {spUUID}"):
        parts(daemon).members.upgrade(spUUID, targetDomVersion)
    return {"upgradeStatus": "started"}


@verb("getImageDomainsList", gated=False, message="OK", timeout=TIMEOUT, cli="image domains")
def get_image_domains_list(daemon: Daemon, spUUID: Uuid, imgUUID: Uuid) -> Reply:
    """Return the domains of a storage pool that an image is on.

    As `domainslist`; only active ones are looked at."""
    from drivers.storage.pools.errors import DomainListFailed  # imported by now (vdsmd.deferred)

    with failing(DomainListFailed, f"looking for image {imgUUID}"):
        return {"domainslist": parts(daemon).pools.domains_with(spUUID, imgUUID)}


# Who may change it


@verb("spmStart", gated=False, key="spUUID", message="OK", timeout=TIMEOUT, cli="spm start")
def spm_start(
    daemon: Daemon,
    spUUID: Uuid,
    prevID: Number,
    prevLVER: Number,
    recoveryMode: Ignored,
    scsiFencing: Ignored,
    maxHostID: Number | None = None,
    domVersion: Number | None = None,
) -> Reply:
    """Have this host become the SPM of a storage pool: the one host that changes its images. `domVersion`: have the master
    domain upgraded to it. Returns the task, as `uuid`.

    sanlock's lease on the master domain keeps other hosts out. Where sanlock does not run, or the domain has version 0, a
    local directory is locked for this machine alone, and storage that others may reach is refused.
    """
    from drivers.storage.pools import spm_tasks  # imported by now (vdsmd.deferred)
    from drivers.storage.pools.errors import SpmStartFailed

    with failing(SpmStartFailed, f"becoming the SPM of pool {spUUID}"):
        return {"uuid": spm_tasks.submit(daemon.tasks, spUUID, None if domVersion in (None, -1) else domVersion)}


@verb("spmStop", gated=False, key="spUUID", message="OK", timeout=TIMEOUT, cli="spm stop")
def spm_stop(daemon: Daemon, spUUID: Uuid) -> Reply:
    """Be the SPM of a storage pool no more. Refused while one of its tasks has not ended."""
    from drivers.storage.pools.errors import SpmStopFailed  # imported by now (vdsmd.deferred)

    with failing(SpmStopFailed, f"giving up the SPM of pool {spUUID}"):
        parts(daemon).spm.end(spUUID)
    return {}


@verb("getSpmStatus", gated=False, message="OK", timeout=TIMEOUT, cli="spm status")
def get_spm_status(daemon: Daemon, spUUID: Uuid) -> Reply:
    """Return who is the SPM of a storage pool, as `spm_st`: this host's role as `spmStatus` (SPM, Contend or Free), the id of
    the host that is it as `spmId` (-1: none), and how often there has been one as `spmLver`."""
    from drivers.storage.pools.errors import MasterUnreadable  # imported by now (vdsmd.deferred)

    with failing(MasterUnreadable, f"reading the SPM of pool {spUUID}"):
        return {"spm_st": parts(daemon).spm.status(spUUID)}


@verb("fenceSpmStorage", gated=False, key="spUUID", message="OK", timeout=TIMEOUT, cli="spm fence")
def fence_spm_storage(daemon: Daemon, spUUID: Uuid, lastOwner: Number, lastLver: Number) -> Reply:
    """Note that the SPM of a storage pool is dead.

    A host that lives keeps its lease all the same. Returns what getSpmStatus does."""
    from drivers.storage.pools.errors import SpmFenceFailed  # imported by now (vdsmd.deferred)

    with failing(SpmFenceFailed, f"fencing the SPM of pool {spUUID}"):
        return {"spm_st": parts(daemon).spm.fence(spUUID)}
