"""Verbs about storage domains themselves, and how they fare."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from drivers.storage.contract import BLANK, Class, Type, is_uuid
from drivers.storage.edge import failing
from drivers.storage.errors import (
    DomainActionFailed,
    DomainCreationFailed,
    DomainFormatFailed,
    FileStatsFailed,
    FloppyListFailed,
    InvalidParameter,
    IsoListFailed,
)
from vdsmd.api import codes
from vdsmd.api.table import Reply, verb
from vdsmd.api.wire import BoolLike, Number, Truthy, Uuid

if TYPE_CHECKING:
    from vdsmd.daemon import Daemon

# Longer than what the storage gets to answer, so that it is said that it does not.
TIMEOUT = 150.0
REMOVAL_TIMEOUT = 2000.0

Kind = TypeVar("Kind", Class, Type)


@verb("createStorageDomain", gated=False, key="sdUUID", message="OK", timeout=TIMEOUT, cli="domain create")
def create_storage_domain(
    daemon: Daemon,
    storageType: Number,
    sdUUID: Uuid,
    domainName: str,
    typeSpecificArg: str,
    domClass: Number,
    domVersion: Number | None = None,
) -> Reply:
    """Make a storage domain on storage that is connected (`typeSpecificArg`, its remote path). It is in no pool yet.

    `domClass` is 1 (data), 2 (ISO) or 3 (backup); `domVersion` 0, 3, 4 or 5.
    """
    with failing(DomainCreationFailed, f"creating domain {sdUUID}", sdUUID):
        daemon.storage.maker.create(storageType, sdUUID, domainName, typeSpecificArg, domClass, domVersion)
    return {}


@verb("formatStorageDomain", gated=False, key="sdUUID", message="OK", timeout=REMOVAL_TIMEOUT, cli="domain format")
def format_storage_domain(daemon: Daemon, sdUUID: Uuid, autoDetach: BoolLike = False) -> Reply:
    """Remove a storage domain with all that is in it. One that is attached to a pool stays, unless `autoDetach`; one in a
    connected pool stays in any case.
    """
    with failing(DomainFormatFailed, f"formatting domain {sdUUID}", sdUUID):
        daemon.storage.maker.format(sdUUID, detach=autoDetach)
    return {}


@verb("validateStorageDomain", gated=False, message="OK", timeout=TIMEOUT, cli="domain validate")
def validate_storage_domain(daemon: Daemon, sdUUID: Uuid) -> Reply:
    """Check that a storage domain is whole and can be used."""
    with failing(DomainCreationFailed, f"validating domain {sdUUID}", sdUUID):
        daemon.storage.domains.validate(sdUUID)
    return {}


@verb("getStorageDomainInfo", gated=False, message="OK", timeout=TIMEOUT, cli="domain info")
def get_storage_domain_info(daemon: Daemon, sdUUID: Uuid) -> Reply:
    """Return what a storage domain is, as `info`: type, class, name, role, pools, version, remote path."""
    with failing(DomainActionFailed, f"reading domain {sdUUID}", sdUUID):
        return {"info": daemon.storage.domains.info(sdUUID)}


@verb("getStorageDomainStats", gated=False, message="OK", timeout=TIMEOUT, cli="domain stats")
def get_storage_domain_stats(daemon: Daemon, sdUUID: Uuid) -> Reply:
    """Return how full a storage domain is, as `stats`: `disktotal` and `diskfree` in bytes, as strings of digits."""
    with failing(DomainActionFailed, f"measuring domain {sdUUID}", sdUUID):
        return {"stats": daemon.storage.domains.stats(sdUUID)}


@verb("getStorageDomainsList", gated=False, message="OK", timeout=TIMEOUT, cli="domain list")
def get_storage_domains_list(
    daemon: Daemon,
    spUUID: str = "",
    domainClass: int | str = 0,
    storageType: int | str = 0,
    remotePath: str = "",
) -> Reply:
    """Return the ids of the storage domains that can be reached, as `domlist`: all, or those that match what is given.

    What is empty, or 0, matches all; `domainClass` and `storageType` are numbers."""
    if spUUID and not is_uuid(spUUID):
        raise InvalidParameter(what="spUUID", reason=f"{spUUID[:60]!a} is no UUID")
    cls, type_ = _filter(Class, domainClass, "domainClass"), _filter(Type, storageType, "storageType")
    pool = "" if spUUID == BLANK else spUUID.lower()
    with failing(DomainActionFailed, "listing domains"):
        found = daemon.storage.domains.all(pool=pool, cls=cls, type_=type_, remote=remotePath)
    return {"domlist": sorted(one.domain.uuid for one in found)}


@verb("setStorageDomainDescription", gated=False, key="sdUUID", message="OK", timeout=TIMEOUT, cli="domain describe")
def set_storage_domain_description(daemon: Daemon, sdUUID: Uuid, description: str) -> Reply:
    """Set the name of a storage domain of a storage pool: up to 50 characters. Only the SPM can."""
    with failing(DomainActionFailed, f"describing domain {sdUUID}", sdUUID):
        daemon.storage.parts.members.describe_domain(sdUUID, description)
    return {}


@verb("getFileStats", gated=False, message="OK", timeout=TIMEOUT, cli="domain files")
def get_file_stats(daemon: Daemon, sdUUID: Uuid, pattern: str = "*", caseSensitive: Truthy = False) -> Reply:
    """Return the files of an ISO domain that match a shell pattern, as `fileStats`, by path.

    Each has `size` in bytes, `ctime` in seconds since the epoch, and `status`: 0, or 469 for one that cannot be read.
    """
    with failing(FileStatsFailed, f"listing the files of {sdUUID}", sdUUID):
        return {"fileStats": daemon.storage.isos.stats(sdUUID, pattern, case=caseSensitive)}


@verb("getFileList", gated=False, message="OK", timeout=TIMEOUT)
def get_file_list(daemon: Daemon, sdUUID: Uuid, pattern: str = "*") -> Reply:
    """Return the files of an ISO domain as `files`: what getFileStats was called before."""
    with failing(FileStatsFailed, f"listing the files of {sdUUID}", sdUUID):
        return {"files": daemon.storage.isos.stats(sdUUID, pattern, case=False)}


@verb("getIsoList", gated=False, message="OK", timeout=TIMEOUT, cli="domain isos")
def get_iso_list(daemon: Daemon, spUUID: Uuid, extension: str = "iso") -> Reply:
    """Return the files with this extension in the ISO domain of a storage pool, as `isolist`."""
    return {"isolist": daemon.storage.isos.list(spUUID, extension, IsoListFailed)}


@verb("getFloppyList", gated=False, message="OK", timeout=TIMEOUT, cli="domain floppies")
def get_floppy_list(daemon: Daemon, spUUID: Uuid) -> Reply:
    """Return the floppy images in the ISO domain of a storage pool, as `isolist`."""
    return {"isolist": daemon.storage.isos.list(spUUID, "vfd", FloppyListFailed)}


@verb("startMonitoringDomain", gated=False, quick=True, message="OK", cli="domain monitor")
def start_monitoring_domain(daemon: Daemon, sdUUID: Uuid, hostID: Number) -> Reply:
    """Watch a storage domain, whether or not it is in a pool. repoStats tells how it fares. It need not be connected yet."""
    if not 0 < hostID <= 250:
        raise InvalidParameter(what="hostID", reason="expected 1 to 250")
    daemon.storage.monitors.watch(_id(sdUUID), alone=True, host_id=hostID)
    return {}


@verb("stopMonitoringDomain", gated=False, quick=True, message="OK", cli="domain unmonitor")
def stop_monitoring_domain(daemon: Daemon, sdUUID: Uuid) -> Reply:
    """Watch a storage domain no more. One that is watched for its pool stays so."""
    daemon.storage.monitors.unwatch(_id(sdUUID))
    return {}


@verb("repoStats", gated=False, quick=True, message="OK", cli="domain vitals")
def repo_stats(daemon: Daemon) -> Reply:
    """Return how the watched storage domains fare, each under its id, beside `status`.

    `valid`, and `code` if not; `lastCheck`, seconds since it was last looked at; `delay`, seconds that this took; `version`;
    `acquired`, whether this host holds its id there; `actual`, whether it has been looked at.
    """
    return dict(daemon.storage.vitals(codes.number))


def _id(uuid: str) -> str:
    if not is_uuid(uuid):
        raise InvalidParameter(what="sdUUID", reason=f"{uuid[:60]!a} is no UUID")
    return uuid.lower()


def _filter(kind: type[Kind], given: int | str, what: str) -> Kind | None:
    """Return what a filter asks for; None for one that is left empty, as callers write it who have none."""
    if given in ("", 0, "0"):
        return None
    try:
        return kind(int(given))
    except ValueError:
        raise InvalidParameter(what=what, reason=f"{str(given)[:60]!a} is none of {_numbers(kind)}") from None


def _numbers(kind: type[Kind]) -> str:
    return ", ".join(str(one.value) for one in kind)
