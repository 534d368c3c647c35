"""Verbs about what is in storage pools: their storage domains, and configurations of virtual machines."""

from __future__ import annotations

from typing import TYPE_CHECKING

from drivers.storage.edge import failing
from drivers.storage.errors import DomainActionFailed
from vdsmd.api.storage_pool import LONG_TIMEOUT, TIMEOUT, parts
from vdsmd.api.table import Reply, verb
from vdsmd.api.wire import Ignored, Number, Struct, Truthy, Uuid

if TYPE_CHECKING:
    from vdsmd.daemon import Daemon


@verb("attachStorageDomain", gated=False, key="spUUID", message="OK", timeout=TIMEOUT, cli="domain attach")
def attach_storage_domain(daemon: Daemon, sdUUID: Uuid, spUUID: Uuid) -> Reply:
    """Take a storage domain into a storage pool. It is used once it is activated. Only the SPM can."""
    with failing(DomainActionFailed, f"attaching domain {sdUUID}", sdUUID):
        parts(daemon).members.attach(sdUUID, spUUID)
    return {}


@verb("activateStorageDomain", gated=False, key="spUUID", message="OK", timeout=TIMEOUT, cli="domain activate")
def activate_storage_domain(daemon: Daemon, sdUUID: Uuid, spUUID: Uuid) -> Reply:
    """Have a storage domain of a storage pool used, and watched. Only the SPM can."""
    with failing(DomainActionFailed, f"activating domain {sdUUID}", sdUUID):
        parts(daemon).members.activate(sdUUID, spUUID)
    return {}


@verb("deactivateStorageDomain", gated=False, key="spUUID", message="OK", timeout=LONG_TIMEOUT, cli="domain deactivate")
def deactivate_storage_domain(
    daemon: Daemon, sdUUID: Uuid, spUUID: Uuid, msdUUID: Uuid, masterVersion: Number
) -> Reply:
    """Have a storage domain of a storage pool used no more. If it is the master, `msdUUID` becomes that, in `masterVersion`,
    which must be higher than before. Only the SPM can."""
    with failing(DomainActionFailed, f"deactivating domain {sdUUID}", sdUUID):
        parts(daemon).members.deactivate(sdUUID, spUUID, msdUUID, masterVersion)
    return {}


@verb("detachStorageDomain", gated=False, key="spUUID", message="OK", timeout=LONG_TIMEOUT, cli="domain detach")
def detach_storage_domain(daemon: Daemon, sdUUID: Uuid, spUUID: Uuid, msdUUID: Uuid, masterVersion: Number) -> Reply:
    """Take a storage domain out of a storage pool, with all that is on it. The master stays. Only the SPM can."""
    with failing(DomainActionFailed, f"detaching domain {sdUUID}", sdUUID):
        parts(daemon).members.detach(sdUUID, spUUID, msdUUID, masterVersion)
    return {}


@verb("forcedDetachStorageDomain", gated=False, key="spUUID", message="OK", timeout=TIMEOUT)
def forced_detach_storage_domain(daemon: Daemon, sdUUID: Uuid, spUUID: Uuid) -> Reply:
    """Take a storage domain out of a storage pool by force.

    It need not be reached, and then goes on to say that it is in the pool. Only the SPM can."""
    with failing(DomainActionFailed, f"detaching domain {sdUUID}", sdUUID):
        parts(daemon).members.detach_by_force(sdUUID, spUUID)
    return {}


@verb("extendStorageDomain", gated=False, key="spUUID", message="OK", timeout=TIMEOUT)
def extend_storage_domain(
    daemon: Daemon, sdUUID: Uuid, spUUID: Uuid, devlist: list[str], force: Truthy = False
) -> Reply:
    """Add devices to a storage domain on block storage, which is not built. Files grow by themselves: always refused."""
    with failing(DomainActionFailed, f"extending domain {sdUUID}", sdUUID):
        parts(daemon).members.extend(sdUUID, spUUID)
    return {}


# What a pool keeps of virtual machines


@verb("getVmsList", gated=False, message="OK", timeout=TIMEOUT, cli="pool vms")
def get_vms_list(daemon: Daemon, spUUID: Uuid, sdUUID: Ignored = None) -> Reply:
    """Return the virtual machines whose configurations a pool keeps.

    As `vmlist`: those on its master domain, or on one for backups (`sdUUID`). Only the SPM can."""
    with failing(DomainActionFailed, "listing configurations"):
        return {"vmlist": parts(daemon).ovfs.names(spUUID, str(sdUUID or ""))}


@verb("getVmsInfo", gated=False, message="OK", timeout=TIMEOUT)
def get_vms_info(daemon: Daemon, spUUID: Uuid, sdUUID: Ignored, vmList: list[str] | None = None) -> Reply:
    """Return configurations of virtual machines, as `vmlist`: the texts by id, of those in `vmList`, or of all. Only the SPM
    can."""
    with failing(DomainActionFailed, "reading configurations"):
        return {"vmlist": parts(daemon).ovfs.read(spUUID, str(sdUUID or ""), vmList or [])}


@verb("updateVM", gated=False, key="spUUID", message="OK", timeout=TIMEOUT)
def update_vm(daemon: Daemon, spUUID: Uuid, vmList: list[Struct], sdUUID: Ignored = None) -> Reply:
    """Keep configurations of virtual machines: structs of `vm`, its id, and `ovf`, the text. Only the SPM can."""
    with failing(DomainActionFailed, "writing configurations"):
        parts(daemon).ovfs.write(spUUID, vmList, str(sdUUID or ""))
    return {}


@verb("removeVM", gated=False, key="spUUID", message="OK", timeout=TIMEOUT)
def remove_vm(daemon: Daemon, spUUID: Uuid, vmUUID: Uuid, sdUUID: Ignored = None) -> Reply:
    """Keep the configuration of a virtual machine no more. Only the SPM can."""
    with failing(DomainActionFailed, "removing a configuration"):
        parts(daemon).ovfs.remove(spUUID, vmUUID, str(sdUUID or ""))
    return {}
