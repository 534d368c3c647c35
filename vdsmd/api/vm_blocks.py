"""Verbs about what the disks of running virtual machines are made of: layers, their sizes, and work on them that lasts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from drivers.errors import MissingParameter, NotBuilt
from drivers.storage.edge import failing
from drivers.storage.errors import DomainActionFailed
from vdsmd.api.table import Reply, verb
from vdsmd.api.wire import Number, Size, Struct, Truthy, Uuid

if TYPE_CHECKING:
    from vdsmd.daemon import Daemon

# Keeping a large guest's memory is written at the speed of a disk.
SNAPSHOT_TIMEOUT = 1800.0
ALIGNMENT_TIMEOUT = 150.0
EXTENSION_TIMEOUT = 150.0
NO_MACHINE = "00000000-0000-0000-0000-000000000000"


@verb("diskSizeExtend", key="vmId", timeout=EXTENSION_TIMEOUT, cli="vm extend-disk")
def disk_size_extend(daemon: Daemon, vmId: Uuid, driveSpecs: Struct, newSize: Size) -> Reply:
    """Make a disk of a running virtual machine larger.

    It has `newSize` bytes then, as the guest sees it. `driveSpecs` names the disk: by `path`, `name`, or the ids of its
    volume. With the blank id as `vmId` it is a volume that no virtual machine uses: one of format cow is made to say that
    size, and a raw one stays as it is (extendVolumeSize is for both). Returns `size`, its size in bytes, as text.
    """
    if vmId == NO_MACHINE:
        return {"size": str(_grow(daemon, driveSpecs, newSize))}
    return {"size": str(daemon.vms.changes.drives.extend(vmId, driveSpecs, newSize))}


def _grow(daemon: Daemon, volume: dict[str, Any], size: int) -> int:
    from drivers.storage.images import growing  # imported by now (vdsmd.deferred)

    for name in ("domainID", "imageID", "volumeID"):
        if not volume.get(name):
            raise MissingParameter(name=f"driveSpecs.{name}")
    domain, image, leaf = (str(volume[name]) for name in ("domainID", "imageID", "volumeID"))
    with failing(DomainActionFailed, f"extending volume {leaf}", domain):
        return growing.grow(daemon.storage.domains, domain, image, leaf, size)


@verb("getDiskAlignment", timeout=ALIGNMENT_TIMEOUT, cli="volume alignment")
def get_disk_alignment(daemon: Daemon, vmId: Uuid, driveSpecs: Struct) -> Reply:
    """Return for each partition in a volume whether it begins at a good place, as `alignment`: a struct of booleans by name.

    Only for what no virtual machine uses: `vmId` is the blank id. `driveSpecs` has `poolID`, `domainID`, `imageID` and
    `volumeID` of a volume, or the `GUID` of a device.
    """
    from drivers.storage.images import alignment  # imported by now (vdsmd.deferred)

    if vmId != NO_MACHINE:
        raise NotBuilt(verb="Looking at a disk that a virtual machine uses")
    if driveSpecs.get("GUID"):
        return {"alignment": alignment.of_device(str(driveSpecs["GUID"]))}
    domain, image, volume = (str(driveSpecs.get(name, "")) for name in ("domainID", "imageID", "volumeID"))
    return {"alignment": alignment.alignment(daemon.storage.domains, domain, image, volume)}


@verb("snapshot", key="vmId", timeout=SNAPSHOT_TIMEOUT, cli="vm snapshot")
def snapshot(
    daemon: Daemon,
    vmId: Uuid,
    snapDrives: list[dict[str, Any]],
    snapMemVolHandle: str = "",
    frozen: Truthy = False,
) -> Reply:
    """Take a snapshot of disks of a running virtual machine.

    All get a new leaf at one moment; the layers below stay as they are then. Each of `snapDrives` names a disk by its
    present leaf (`baseVolumeID` with `domainID` and `imageID`, `baseGUID`, `basePath`) or by `name`, and the new leaf,
    which exists already (`volumeID`, `GUID`, `path`). With `snapMemVolHandle` (ids separated by commas, or a path) the
    memory is kept, too. Unless the caller says that the guest's file systems are `frozen`, its agent is asked to keep
    them at rest. Returns `quiesce`: whether it did.
    """
    return {"quiesce": daemon.vms.changes.snapshots.take(vmId, snapDrives, snapMemVolHandle, frozen=frozen)}


@verb("freeze", key="vmId", cli="vm freeze")
def freeze(daemon: Daemon, vmId: Uuid) -> Reply:
    """Have the guest's agent keep its file systems at rest until `thaw`."""
    daemon.vms.changes.snapshots.freeze(vmId)
    return {}


@verb("thaw", key="vmId", cli="vm thaw")
def thaw(daemon: Daemon, vmId: Uuid) -> Reply:
    """Have the guest's agent let its file systems be written to again."""
    daemon.vms.changes.snapshots.thaw(vmId)
    return {}


@verb("merge", key="vmId", cli="vm merge")
def merge(
    daemon: Daemon,
    vmId: Uuid,
    drive: dict[str, Any] | list[dict[str, Any]],
    baseVolUUID: Uuid = "",
    topVolUUID: Uuid = "",
    bandwidth: Number = 0,
    jobUUID: Uuid = "",
) -> Reply:
    """Begin to merge layers of a disk while the virtual machine runs.

    Those above `baseVolUUID`, up to `topVolUUID`, go into it. When the leaf is among them the disk moves to the base in
    the end. `getVmStats` tells of it among `vmJobs`. `drive` names the disk, volumes are named by their id, or path.
    `bandwidth` in MiB a second, 0 for no limit; `jobUUID`: what the job is to be called. An older form takes two
    arguments, the second a list of disks with their base (`volumeID`): what lies above it goes into the leaf, and
    `mergeStatus` tells of it.
    """
    changes = daemon.vms.changes
    if isinstance(drive, list):
        changes.pulls.begin(vmId, drive)
        return {}
    for name, given in (("baseVolUUID", baseVolUUID), ("topVolUUID", topVolUUID)):
        if not given:
            raise MissingParameter(name=name)
    changes.merges.begin(vmId, drive, baseVolUUID, topVolUUID, bandwidth, jobUUID)
    return {}


@verb("mergeStatus", key="vmId", cli="vm merge-status")
def merge_status(daemon: Daemon, vmId: Uuid) -> Reply:
    """Return the disks on which a merge of the older form runs.

    Of each, `mergeStatus` has domainID, imageID and volumeID."""
    return {"mergeStatus": daemon.vms.changes.pulls.status(vmId)}


@verb("diskReplicateStart", key="vmId", cli="vm replicate-start")
def disk_replicate_start(daemon: Daemon, vmId: Uuid, srcDisk: Struct, dstDisk: Struct) -> Reply:
    """Begin to mirror the leaf of a disk to another place.

    That place exists already, and has the same layers below it. Both are named by `path`, or the ids of a volume; `dstDisk`
    may say its `format` and `diskType`. It goes on until diskReplicateFinish.
    """
    daemon.vms.changes.replicas.begin(vmId, srcDisk, dstDisk)
    return {}


@verb("diskReplicateFinish", key="vmId", cli="vm replicate-finish")
def disk_replicate_finish(daemon: Daemon, vmId: Uuid, srcDisk: Struct, dstDisk: Struct) -> Reply:
    """End what diskReplicateStart began.

    The disk has moved to `dstDisk` then, or stays where it was when both are the same. Code 40 says that not everything
    has been mirrored yet: it goes on.
    """
    daemon.vms.changes.replicas.end(vmId, srcDisk, dstDisk)
    return {}
