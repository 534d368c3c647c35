"""Verbs about volumes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from drivers.storage.contract import BLANK, is_uuid
from drivers.storage.edge import failing
from drivers.storage.errors import InvalidParameter
from drivers.storage.images.errors import (
    ImageActionFailed,
    VolumeAccessFailed,
    VolumeCreationFailed,
    VolumeDeletionFailed,
    VolumeExtensionFailed,
    VolumeReadFailed,
    VolumeWriteFailed,
)
from drivers.storage.tasks.errors import NotSpm
from vdsmd.api.table import Reply, verb
from vdsmd.api.wire import BoolLike, Ignored, Number, Size, Truthy, Uuid

if TYPE_CHECKING:
    from drivers.storage.images.images import Images
    from vdsmd.daemon import Daemon

# Longer than what the storage gets to answer, so that it is said that it does not.
TIMEOUT = 150.0
WAIT = 3600.0
"""Seconds for what has no task that clients could ask after."""
SECTOR = 512


def images(daemon: Daemon) -> Images:
    """Return what begins tasks on images and volumes."""
    from drivers.storage.images.images import Images  # imported by now (vdsmd.deferred); not for the first answer

    return Images(daemon.tasks)


def spm_of(daemon: Daemon, pool: str) -> str:
    """Return the pool's id as it is known here. Raises InvalidParameter, NoSuchPool, NotSpm."""
    uuid = daemon.storage.pools.get(pool).uuid
    if not daemon.tasks.is_spm(uuid):
        raise NotSpm(pool=uuid)
    return uuid


@verb("createVolume", gated=False, message="OK", timeout=TIMEOUT, cli="volume create")
def create_volume(
    daemon: Daemon,
    sdUUID: Uuid,
    spUUID: Uuid,
    imgUUID: Uuid,
    size: Ignored,
    volFormat: Number,
    preallocate: Number,
    diskType: Number,
    volUUID: Uuid,
    desc: str,
    srcImgUUID: Uuid = BLANK,
    srcVolUUID: Uuid = BLANK,
    initialSize: Ignored = 0,
) -> Reply:
    """Make a volume. `size` is a number of sectors of 512 bytes when an int, and of bytes when a string. `volFormat`: 4 cow,
    5 raw; `preallocate`: 1 preallocated, 2 sparse. `srcVolUUID`: its parent; with another image in `srcImgUUID`, that
    parent is a template. Returns the task, as `uuid`.
    """
    pool = spm_of(daemon, spUUID)
    if initialSize not in (None, 0, "", "0"):
        raise InvalidParameter(what="initialSize", reason="it is for volumes on block storage alone")
    with failing(VolumeCreationFailed, f"creating volume {volUUID}", sdUUID):
        task = images(daemon).create_volume(
            pool,
            sdUUID,
            imgUUID,
            volUUID,
            size=_bytes(size),
            form=volFormat,
            allocation=preallocate,
            disk_type=diskType,
            description=desc,
            parent_image=srcImgUUID,
            parent=srcVolUUID,
        )
    return {"uuid": task}


def _bytes(size: Any) -> int:
    """Return a size in bytes: an int counts sectors, a string has bytes."""
    if type(size) is int:
        return size * SECTOR
    if isinstance(size, str) and size.isascii() and size.isdigit() and len(size) <= 30:
        return int(size)
    raise InvalidParameter(what="size", reason="expected an int (sectors), or a string of digits (bytes)")


@verb("deleteVolume", gated=False, message="OK", timeout=TIMEOUT, cli="volume delete")
def delete_volume(
    daemon: Daemon,
    sdUUID: Uuid,
    spUUID: Uuid,
    imgUUID: Uuid,
    volumes: list[str],
    postZero: BoolLike = False,
    force: BoolLike = False,
) -> Reply:
    """Delete volumes of an image: the last of its chain, or with `force` any. Returns the task, as `uuid`."""
    pool = spm_of(daemon, spUUID)
    with failing(VolumeDeletionFailed, f"deleting volumes of image {imgUUID}", sdUUID):
        task = images(daemon).delete_volumes(pool, sdUUID, imgUUID, volumes, post_zero=postZero, force=force)
    return {"uuid": task}


@verb("extendVolumeSize", gated=False, message="OK", timeout=TIMEOUT, cli="volume extend")
def extend_volume_size(
    daemon: Daemon, spUUID: Uuid, sdUUID: Uuid, imgUUID: Uuid, volUUID: Uuid, newSize: Size
) -> Reply:
    """Make a volume larger, for its guest to see: `newSize` bytes. Returns the task, as `uuid`."""
    pool = spm_of(daemon, spUUID)
    with failing(VolumeExtensionFailed, f"extending volume {volUUID}", sdUUID):
        return {"uuid": images(daemon).extend(pool, sdUUID, imgUUID, volUUID, newSize)}


@verb("extendVolume", gated=False, message="OK", timeout=TIMEOUT)
def extend_volume(
    daemon: Daemon,
    sdUUID: Uuid,
    spUUID: Uuid,
    imgUUID: Uuid,
    volUUID: Uuid,
    size: Number,
    isShuttingDown: Ignored = False,
) -> Reply:
    """Give a thin volume more room on block storage. Files take room as they need it: nothing is to be done for them."""
    from drivers.storage.images import volumes  # imported by now (vdsmd.deferred)

    spm_of(daemon, spUUID)
    with failing(VolumeExtensionFailed, f"extending volume {volUUID}", sdUUID):
        volumes.find_volume(daemon.storage.domains, sdUUID, imgUUID, volUUID)
    return {}


@verb("getVolumeInfo", gated=False, message="OK", timeout=TIMEOUT, cli="volume info")
def get_volume_info(daemon: Daemon, sdUUID: Uuid, spUUID: Uuid, imgUUID: Uuid, volUUID: Uuid) -> Reply:
    """Return what a volume is, as `info`: sizes in bytes as strings, its parent, children, legality and status."""
    from drivers.storage.images import volumes  # imported by now (vdsmd.deferred)

    with failing(VolumeReadFailed, f"reading volume {volUUID}", sdUUID):
        return {"info": volumes.info(daemon.storage.domains, sdUUID, imgUUID, volUUID)}


@verb("getVolumePath", gated=False, message="OK", timeout=TIMEOUT, cli="volume path")
def get_volume_path(daemon: Daemon, sdUUID: Uuid, spUUID: Uuid, imgUUID: Uuid, volUUID: Uuid) -> Reply:
    """Return where a volume's data are on this host, as `path`."""
    from drivers.storage.images import volumes  # imported by now (vdsmd.deferred)

    with failing(VolumeReadFailed, f"finding volume {volUUID}", sdUUID):
        there, _volume = volumes.find_volume(daemon.storage.domains, sdUUID, imgUUID, volUUID)
    return {"path": there.path(volUUID)}


@verb("getVolumeSize", gated=False, message="OK", timeout=TIMEOUT, cli="volume size")
def get_volume_size(daemon: Daemon, sdUUID: Uuid, spUUID: Uuid, imgUUID: Uuid, volUUID: Uuid) -> Reply:
    """Return the size of a volume: how long its data are (`apparentsize`), and what room they take (`truesize`). Strings, in
    bytes."""
    from drivers.storage.images import volumes  # imported by now (vdsmd.deferred)

    with failing(VolumeReadFailed, f"measuring volume {volUUID}", sdUUID):
        return volumes.size(daemon.storage.domains, sdUUID, imgUUID, volUUID)


@verb("volumeSetSize", gated=False, key="imgUUID", message="OK", timeout=TIMEOUT)
def volume_set_size(daemon: Daemon, sdUUID: Uuid, spUUID: Uuid, imgUUID: Uuid, volUUID: Uuid, newSize: Number) -> Reply:
    """Note the size of a volume, after its guest's disk was resized: `newSize` bytes. Less than 1: as long as its data are."""
    from drivers.storage.images import volumes  # imported by now (vdsmd.deferred)

    with failing(VolumeWriteFailed, f"changing volume {volUUID}", sdUUID):
        volumes.set_size(daemon.storage.domains, sdUUID, imgUUID, volUUID, newSize)
    return {}


@verb("refreshVolume", gated=False, message="OK", timeout=TIMEOUT)
def refresh_volume(daemon: Daemon, sdUUID: Uuid, spUUID: Uuid, imgUUID: Uuid, volUUID: Uuid) -> Reply:
    """See a volume as it is now. Files are never seen otherwise: that it is there is all that is checked."""
    from drivers.storage.images import volumes  # imported by now (vdsmd.deferred)

    with failing(VolumeReadFailed, f"refreshing volume {volUUID}", sdUUID):
        volumes.find_volume(daemon.storage.domains, sdUUID, imgUUID, volUUID)
    return {}


@verb("setVolumeDescription", gated=False, key="imgUUID", message="OK", timeout=TIMEOUT, cli="volume describe")
def set_volume_description(
    daemon: Daemon, sdUUID: Uuid, spUUID: Uuid, imgUUID: Uuid, volUUID: Uuid, description: str
) -> Reply:
    """Change the description of a volume: one line."""
    from drivers.storage.images import volumes  # imported by now (vdsmd.deferred)

    spm_of(daemon, spUUID)
    with failing(VolumeWriteFailed, f"changing volume {volUUID}", sdUUID):
        volumes.set_description(daemon.storage.domains, sdUUID, imgUUID, volUUID, description)
    return {}


@verb("setVolumeLegality", gated=False, key="imgUUID", message="OK", timeout=TIMEOUT, cli="volume legality")
def set_volume_legality(
    daemon: Daemon, sdUUID: Uuid, spUUID: Uuid, imgUUID: Uuid, volUUID: Uuid, legality: str
) -> Reply:
    """Say whether a volume may be used: LEGAL, ILLEGAL or FAKE."""
    from drivers.storage.images import volumes  # imported by now (vdsmd.deferred)

    spm_of(daemon, spUUID)
    with failing(VolumeWriteFailed, f"changing volume {volUUID}", sdUUID):
        volumes.set_legality(daemon.storage.domains, sdUUID, imgUUID, volUUID, legality)
    return {}


@verb("prepareVolume", gated=False, key="imgUUID", message="OK", timeout=TIMEOUT)
def prepare_volume(
    daemon: Daemon, sdUUID: Uuid, spUUID: Uuid, imgUUID: Uuid, volUUID: Uuid, rw: Truthy = True
) -> Reply:
    """Have a volume ready to be used by a guest. Newer: prepareImage."""
    from drivers.storage.images import volumes  # imported by now (vdsmd.deferred)

    if not is_uuid(volUUID):  # the empty one would mean the last of the chain
        raise InvalidParameter(what="volUUID", reason=f"{volUUID[:100]!r} is not a UUID")
    with failing(VolumeAccessFailed, f"preparing volume {volUUID}", sdUUID):
        volumes.prepare(daemon.storage.domains, sdUUID, imgUUID, volUUID, daemon.config.paths.run_dir)
    return {}


@verb("teardownVolume", gated=False, key="imgUUID", message="OK", timeout=TIMEOUT)
def teardown_volume(daemon: Daemon, sdUUID: Uuid, spUUID: Uuid, imgUUID: Uuid, volUUID: Uuid) -> Reply:
    """A guest does not need the volume any more, which must have been prepared. Newer: teardownImage."""
    from drivers.storage.images import volumes  # imported by now (vdsmd.deferred)

    run_dir = daemon.config.paths.run_dir
    with failing(VolumeAccessFailed, f"tearing down volume {volUUID}", sdUUID):
        volumes.check_prepared(daemon.storage.domains, sdUUID, imgUUID, volUUID, run_dir)
        volumes.teardown(daemon.storage.domains, sdUUID, imgUUID, run_dir)
    return {}


@verb("uploadVolume", gated=False, message="OK", timeout=WAIT + 60)
def upload_volume(
    daemon: Daemon,
    sdUUID: Uuid,
    spUUID: Uuid,
    imgUUID: Uuid,
    volUUID: Uuid,
    srcPath: str,
    size: Number,
    method: str = "rsync",
) -> Reply:
    """Put into a volume what a file of this host has, one that everybody here may read (`method` rsync), or what a URL gives
    (wget). Answers when that is done; 8 may be on their way at a time. `size` is of no use for files. Newer: PUT."""
    from drivers.storage.images import waiting  # imported by now (vdsmd.deferred)

    pool = spm_of(daemon, spUUID)
    if size < 0:
        raise InvalidParameter(what="size", reason=f"{size} is impossible")
    with failing(ImageActionFailed, f"uploading into volume {volUUID}", sdUUID):
        waiting.wait_for(
            daemon.tasks,
            WAIT,
            lambda attendance: images(daemon).upload_volume(
                pool, sdUUID, imgUUID, volUUID, srcPath, method, attendance
            ),
        )
    return {}


@verb("getVolumesList", gated=False, message="OK", timeout=TIMEOUT, cli="volume list")
def get_volumes_list(daemon: Daemon, sdUUID: Uuid, spUUID: Uuid, imgUUID: Uuid = BLANK) -> Reply:
    """Return the volumes of a storage domain, or of one image, as `uuidlist`."""
    from drivers.storage.images import volumes  # imported by now (vdsmd.deferred)

    with failing(VolumeReadFailed, "listing volumes", sdUUID):
        return {"uuidlist": volumes.names(daemon.storage.domains, sdUUID, imgUUID)}
