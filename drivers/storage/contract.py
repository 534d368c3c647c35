"""What storage is to this daemon: the words and numbers of domains, the settings, and how everything reaches a disk.

    verb (worker thread) -> Domains / Images / ... -> Files -> Remote.call ==socket==> helper child -> file system
                                                                    <====== reports of its monitor

It promises that no thread of the daemon ever makes a system call on storage. A *helper* (`drivers.storage.outside`) is a
child process with one directory, its root: a storage domain, or the mount that domains lie in. It makes every call there,
several at a time. A call that does not come back costs its caller the time-out and no more; a helper of which all threads
hang is given up and replaced; it, its socket and its monitor outlive a re-exec of the daemon.

For who builds on it:

- `driver.domains.get(sd_uuid)` (in a worker) finds a domain wherever it is connected, and returns a `Domain`.
- `driver.domains.files(domain)` returns the `Files` (drivers/storage/files.py) of its helper, typed and with paths relative to
  the domain's directory ("images/<imgUUID>/<volUUID>.meta"). A path that leads out of it, by `..` or by a link, is an OSError
  with EXDEV. OSErrors of the other side are raised as OSErrors here (FileNotFoundError, ...), what hangs as `StorageHangs`.
- `driver.pools.get(sp_uuid)` and `driver.spm.need(sp_uuid)` return a pool that is connected, and one of which we are the SPM.
- Children that do work (qemu-img, ...) are given `Domain.path`; the daemon itself only passes it on.
- What must survive beside this is an owner of its own (tasks, pools), with a record of its own.
"""

from __future__ import annotations

import re
from enum import IntEnum, StrEnum
from typing import Any, Protocol

import msgspec

from state.records import Part

BLANK = "00000000-0000-0000-0000-000000000000"
"""The id of nothing: no pool, no parent, all images."""
ISO_IMAGE = "11111111-1111-1111-1111-111111111111"
"""The one image directory of an ISO domain."""
MOUNTS = "mnt"
"""Directory in the repository where everything is connected."""
GLUSTER_MOUNTS = "glusterSD"
METADATA = "dom_md/metadata"
LONGEST_DESCRIPTION = 50

_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII | re.IGNORECASE)


def is_uuid(text: str) -> bool:
    """Whether it is an id: of this form, it is also a name without any power as a part of a path."""
    return _UUID.fullmatch(text) is not None


class Type(IntEnum):
    """The types of storage, by the numbers of requests. Replies and metadata have their names."""

    NFS = 1
    FCP = 2
    ISCSI = 3
    LOCALFS = 4
    CIFS = 5
    POSIXFS = 6
    SHAREDFS = 6
    """What it was called once."""
    GLUSTERFS = 7

    @property
    def is_file(self) -> bool:
        return self not in (Type.FCP, Type.ISCSI)


class Class(IntEnum):
    """What a domain is for, by the numbers of requests."""

    DATA = 1
    ISO = 2
    BACKUP = 3

    @property
    def label(self) -> str:
        """The name on disk and in replies."""
        return self.name.capitalize()


class Role(StrEnum):
    MASTER = "Master"
    REGULAR = "Regular"


VERSIONS = (0, 3, 4, 5)
"""Of file domains. 3: leases by sanlock; 4: external leases; 5: other block sizes."""
READABLE = (0, 2, *VERSIONS[1:])
"""2 differs from 0 on block storage alone: nobody needs it on files, and where it stands it means the same."""
DEFAULT_VERSION = 0


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """The part of the configuration that storage depends on. Seconds where not said otherwise."""

    repository: str
    nfs_options: str = "soft,nosharecache"
    mount_timeout: float = 60.0
    timeout: float = 60.0
    """How long one call to a helper may take."""
    slots: int = 10
    """How many calls a helper makes at a time."""
    queue: int = 10
    """How many more may wait."""
    idle: float = 60.0
    """After how long a helper that nobody needs is ended."""
    check_delay: float = 10.0
    """Between two checks of a monitored domain."""
    most_domains: int = 100
    """How many domains a pool may have."""
    sanlock_io_timeout: int = 0
    """Of one I/O of sanlock, from which all its other times follow; 0 as sanlock likes."""

    @property
    def mounts(self) -> str:
        return f"{self.repository}/{MOUNTS}"


def settings(config: Any) -> Settings:
    """Return what the daemon's configuration (sections `irs` and `paths`) says about storage."""
    irs = config.irs
    return Settings(
        repository=config.paths.repository,
        nfs_options=irs.nfs_mount_options,
        mount_timeout=irs.mount_timeout,
        timeout=irs.process_pool_timeout,
        slots=irs.process_pool_max_slots_per_domain,
        queue=irs.process_pool_max_queued_slots_per_domain,
        idle=irs.max_ioprocess_idle_time,
        check_delay=irs.sd_health_check_delay,
        most_domains=irs.maximum_domains_in_pool,
        sanlock_io_timeout=irs.sanlock_io_timeout,
    )


class Domain(msgspec.Struct, frozen=True, kw_only=True):
    """A storage domain as it was found: what does not change over its life, but for an upgrade of its version."""

    uuid: str
    path: str
    """Its directory, <repository>/mnt/<connection>/<uuid>. For children; the daemon itself never looks there."""
    type: Type
    cls: Class
    version: int
    remote_path: str
    block_size: int = 512
    alignment: int = 1 << 20

    @property
    def is_iso(self) -> bool:
        return self.cls is Class.ISO


class Vitals(Part, frozen=True, kw_only=True):
    """How a monitored domain fares. `wire`: the name of its error, '' when it is well; `checked`: when its last check began
    (monotonic clock), 0.0 for never; `delay`: seconds that reading its metadata took."""

    wire: str = "StorageException"
    reason: str = "it has not been checked yet"
    delay: float = 0.0
    checked: float = 0.0
    version: int = -1

    @property
    def valid(self) -> bool:
        return not self.wire


class Remote(Protocol):
    """A helper, from this side. Any worker thread may call; nothing is ever asked of it by the loop's thread."""

    @property
    def what(self) -> str:
        """What its storage is called in errors."""

    @property
    def root(self) -> str:
        """The directory that all paths are relative to."""

    def call(self, op: str, *, timeout: float | None = None, **arguments: Any) -> Any:
        """Have the helper do `op` (a function of `drivers.storage.outside.deeds`) and return its value.

        Values are those of msgpack: str, bytes, int, float, bool, None, lists, dicts. A helper that is not there is started.
        Raises OSError as the helper met it; StorageHangs after `timeout` seconds (None: as configured), or sooner when the
        storage is known to hang or the daemon wants to re-exec; HelperLost when the helper ended meanwhile. After the
        last two nothing is known about the outcome, and deeds must be such that doing them again does no harm.
        """
