"""Verbs about images."""

from __future__ import annotations

from typing import TYPE_CHECKING

from drivers.storage.contract import BLANK, is_uuid
from drivers.storage.edge import failing
from drivers.storage.errors import InvalidParameter
from drivers.storage.images.errors import (
    CopyFailed,
    ImageActionFailed,
    ImageDeletionFailed,
    MergeFailed,
    MoveFailed,
    MovesFailed,
)
from vdsmd.api.table import Reply, verb
from vdsmd.api.volume import TIMEOUT, images, spm_of
from vdsmd.api.wire import BoolLike, Ignored, Number, Struct, Truthy, Uuid

if TYPE_CHECKING:
    from vdsmd.daemon import Daemon


@verb("getImagesList", gated=False, message="OK", timeout=TIMEOUT, cli="image list")
def get_images_list(daemon: Daemon, sdUUID: Uuid) -> Reply:
    """Return the images of a storage domain, as `imageslist`."""
    from drivers.storage.images import volumes  # imported by now (vdsmd.deferred)

    with failing(ImageActionFailed, "listing images", sdUUID):
        return {"imageslist": volumes.images(daemon.storage.domains, sdUUID)}


@verb("prepareImage", gated=False, key="imgUUID", message="OK", timeout=TIMEOUT, cli="image prepare")
def prepare_image(
    daemon: Daemon,
    spUUID: Uuid,
    sdUUID: Uuid,
    imgUUID: Uuid,
    volUUID: Uuid = "",
    allowIllegal: BoolLike = False,
) -> Reply:
    """Have an image ready to be used by a guest. `volUUID`: up to that volume (left out: the last).

    Returns `path`, the volume's data on this host; `info`, that volume, and `imgVolumesInfo`, all of its chain, base first.
    """
    # Of no pool is anything asked: the engine's own machine is started by agents that name none, before any is connected.
    from drivers.storage.images import volumes  # imported by now (vdsmd.deferred)

    run_dir = daemon.config.paths.run_dir
    with failing(ImageActionFailed, f"preparing image {imgUUID}", sdUUID):
        return volumes.prepare(daemon.storage.domains, sdUUID, imgUUID, volUUID, run_dir, allow_illegal=allowIllegal)


@verb("teardownImage", gated=False, key="imgUUID", message="OK", timeout=TIMEOUT, cli="image teardown")
def teardown_image(daemon: Daemon, spUUID: Uuid, sdUUID: Uuid, imgUUID: Uuid, volUUID: Uuid = "") -> Reply:
    """A guest does not need the image any more."""
    from drivers.storage.images import volumes  # imported by now (vdsmd.deferred)

    if volUUID and not is_uuid(volUUID):
        raise InvalidParameter(what="volUUID", reason=f"{volUUID[:100]!r} is not a UUID")
    with failing(ImageActionFailed, f"tearing down image {imgUUID}", sdUUID):
        volumes.teardown(daemon.storage.domains, sdUUID, imgUUID, daemon.config.paths.run_dir)
    return {}


@verb("deleteImage", gated=False, message="OK", timeout=TIMEOUT, cli="image delete")
def delete_image(
    daemon: Daemon, sdUUID: Uuid, spUUID: Uuid, imgUUID: Uuid, postZero: BoolLike = False, force: Truthy = False
) -> Reply:
    """Delete an image with all its volumes; `postZero`: overwrite them first. `force`: also one whose metadata are damaged.
    Returns the task, as `uuid`.
    """
    with failing(ImageDeletionFailed, f"deleting image {imgUUID}", sdUUID):
        return {"uuid": images(daemon).delete(spm_of(daemon, spUUID), sdUUID, imgUUID, post_zero=postZero, force=force)}


@verb("copyImage", gated=False, message="OK", timeout=TIMEOUT, cli="image copy")
def copy_image(
    daemon: Daemon,
    sdUUID: Uuid,
    spUUID: Uuid,
    vmUUID: Ignored,
    srcImgUUID: Uuid,
    srcVolUUID: Uuid,
    dstImgUUID: Uuid,
    dstVolUUID: Uuid,
    description: str = "",
    dstSdUUID: Uuid = BLANK,
    volType: Number = 6,
    volFormat: Number = 3,
    preallocate: Number = 0,
    postZero: BoolLike = False,
    force: BoolLike = False,
) -> Reply:
    """Copy a volume, with what its parents say, into a new image: a template (`volType` 6), or a disk (8).

    `dstSdUUID`: the domain to copy to, when it is another. `volFormat` 3 and `preallocate` 0 mean: as the source is. `force`:
    replace an image that is there. Returns the task, as `uuid`.
    """
    source, target = (sdUUID, srcImgUUID, srcVolUUID), (dstSdUUID, dstImgUUID, dstVolUUID)
    with failing(CopyFailed, f"copying volume {srcVolUUID}", sdUUID):
        task = images(daemon).copy(
            spm_of(daemon, spUUID),
            source,
            target,
            description=description,
            role=volType,
            form=volFormat,
            allocation=preallocate,
            force=force,
        )
    return {"uuid": task}


@verb("moveImage", gated=False, message="OK", timeout=TIMEOUT, cli="image move")
def move_image(
    daemon: Daemon,
    spUUID: Uuid,
    srcDomUUID: Uuid,
    dstDomUUID: Uuid,
    imgUUID: Uuid,
    vmUUID: Ignored,
    op: Number,
    postZero: BoolLike = False,
    force: BoolLike = False,
) -> Reply:
    """Copy an image to another domain with all its volumes (`op` 1), or move it (2). `force`: replace one that is
    there. Returns the task, as `uuid`."""
    pool = spm_of(daemon, spUUID)
    with failing(MoveFailed, f"moving image {imgUUID}", srcDomUUID):
        task = images(daemon).move(pool, srcDomUUID, dstDomUUID, imgUUID, op, post_zero=postZero, force=force)
    return {"uuid": task}


@verb("moveMultipleImages", gated=False, message="OK", timeout=TIMEOUT)
def move_multiple_images(
    daemon: Daemon,
    spUUID: Uuid,
    srcDomUUID: Uuid,
    dstDomUUID: Uuid,
    imgDict: Struct,
    vmUUID: Ignored,
    force: BoolLike = False,
) -> Reply:
    """Move images to another domain; none is deleted before all are copied. `imgDict` says of each, by id, whether it is to be
    overwritten with zeroes. Returns the task, as `uuid`."""
    pool, chosen = spm_of(daemon, spUUID), {image: _zeroed(image, zero) for image, zero in imgDict.items()}
    with failing(MovesFailed, "moving images", srcDomUUID):
        return {"uuid": images(daemon).move_many(pool, srcDomUUID, dstDomUUID, chosen, force=force)}


def _zeroed(image: str, given: object) -> bool:
    if isinstance(given, str):
        return given.lower() == "true"
    if not isinstance(given, bool):
        raise InvalidParameter(what="imgDict", reason=f"whether {image[:100]!r} is to be zeroed is no boolean")
    return given


@verb("cloneImageStructure", gated=False, message="OK", timeout=TIMEOUT)
def clone_image_structure(daemon: Daemon, spUUID: Uuid, sdUUID: Uuid, imgUUID: Uuid, dstSdUUID: Uuid) -> Reply:
    """Make an image of the same volumes on another domain, without their data: for a disk that is moved while its guest runs.
    Returns the task, as `uuid`."""
    with failing(ImageActionFailed, f"cloning image {imgUUID}", sdUUID):
        return {"uuid": images(daemon).clone_structure(spm_of(daemon, spUUID), sdUUID, dstSdUUID, imgUUID)}


@verb("syncImageData", gated=False, message="OK", timeout=TIMEOUT)
def sync_image_data(daemon: Daemon, spUUID: Uuid, sdUUID: Uuid, imgUUID: Uuid, dstSdUUID: Uuid, syncType: str) -> Reply:
    """Copy data into the volumes that cloneImageStructure made: ALL, INTERNAL (all but the last), or LEAF. Returns the task,
    as `uuid`."""
    with failing(ImageActionFailed, f"copying image {imgUUID}", sdUUID):
        return {"uuid": images(daemon).sync_data(spm_of(daemon, spUUID), sdUUID, dstSdUUID, imgUUID, syncType)}


@verb("mergeSnapshots", gated=False, message="OK", timeout=TIMEOUT, cli="image merge")
def merge_snapshots(
    daemon: Daemon,
    sdUUID: Uuid,
    spUUID: Uuid,
    vmUUID: Ignored,
    imgUUID: Uuid,
    ancestor: Uuid,
    successor: Uuid,
    postZero: BoolLike = False,
) -> Reply:
    """Merge volumes of an image: those from `ancestor` to `successor` into the latter. The others are deleted. Returns the
    task, as `uuid`."""
    with failing(MergeFailed, f"merging volumes of image {imgUUID}", sdUUID):
        pool = spm_of(daemon, spUUID)
        task = images(daemon).merge(pool, sdUUID, imgUUID, ancestor, successor, post_zero=postZero)
    return {"uuid": task}


@verb("reconcileVolumeChain", gated=False, key="imgUUID", message="OK", timeout=TIMEOUT)
def reconcile_volume_chain(daemon: Daemon, spUUID: Uuid, sdUUID: Uuid, imgUUID: Uuid, leafUUID: Uuid) -> Reply:
    """Correct the metadata of volumes that a guest has merged, by their data. Returns the chain, as `volumes`, base
    first."""
    from drivers.storage.images import volumes  # imported by now (vdsmd.deferred)

    spm_of(daemon, spUUID)
    with failing(ImageActionFailed, f"reading the chain of image {imgUUID}", sdUUID):
        return {"volumes": volumes.reconcile(daemon.storage.domains, sdUUID, imgUUID, leafUUID)}


@verb("sparsifyImage", gated=False, message="OK", timeout=TIMEOUT)
def sparsify_image(
    daemon: Daemon,
    spUUID: Uuid,
    sdUUID: Uuid,
    imgUUID: Uuid,
    tmpVolUUID: Uuid,
    dstSdUUID: Uuid,
    dstImgUUID: Uuid,
    dstVolUUID: Uuid,
) -> Reply:
    """Copy a volume, with what its parents say, into one that is there, leaving out what is all zeroes. What a guest's file
    systems have freed and not overwritten is not seen. Returns the task, as `uuid`."""
    with failing(ImageActionFailed, f"sparsifying image {imgUUID}", sdUUID):
        pool = spm_of(daemon, spUUID)
        task = images(daemon).sparsify(pool, sdUUID, imgUUID, tmpVolUUID, dstSdUUID, dstImgUUID, dstVolUUID)
    return {"uuid": task}


@verb("uploadImage", gated=False, message="OK", timeout=TIMEOUT)
def upload_image(
    daemon: Daemon, methodArgs: Struct, spUUID: Uuid, sdUUID: Uuid, imgUUID: Uuid, volUUID: Uuid = ""
) -> Reply:
    """Send a volume (left out: the last) to a URL, by PUT. `methodArgs`: `method` "http", `url`, `headers`. Returns the task,
    as `uuid`."""
    with failing(ImageActionFailed, f"sending image {imgUUID}", sdUUID):
        return {"uuid": images(daemon).upload(spm_of(daemon, spUUID), sdUUID, imgUUID, volUUID, methodArgs)}


@verb("downloadImage", gated=False, message="OK", timeout=TIMEOUT)
def download_image(
    daemon: Daemon, methodArgs: Struct, spUUID: Uuid, sdUUID: Uuid, imgUUID: Uuid, volUUID: Uuid = ""
) -> Reply:
    """Fetch into a volume (left out: the last) what a URL gives. `methodArgs`: `method` "http", `url`, `headers`. Returns the
    task, as `uuid`."""
    with failing(ImageActionFailed, f"fetching image {imgUUID}", sdUUID):
        return {"uuid": images(daemon).download(spm_of(daemon, spUUID), sdUUID, imgUUID, volUUID, methodArgs)}
