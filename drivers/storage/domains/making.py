"""Making and removing domains.

It promises that a domain is there whole or not at all, also when the daemon or the machine ends in the middle: it is built
under another name and renamed, and before it is removed it is renamed again.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable

from drivers.base import Host
from drivers.errors import DriverError
from drivers.storage.connections.connections import Connections
from drivers.storage.connections.mounts import checked, place
from drivers.storage.contract import (
    DEFAULT_VERSION,
    ISO_IMAGE,
    METADATA,
    VERSIONS,
    Class,
    Domain,
    Settings,
    Type,
    is_uuid,
)
from drivers.storage.domains import metadata
from drivers.storage.domains.domains import Domains, checked_id
from drivers.storage.errors import (
    CannotFormatAttached,
    DomainCreationFailed,
    DomainExists,
    DomainFormatFailed,
    DomainFull,
    NoPermission,
    NoSuchDomain,
    NotMounted,
    TargetUnsupported,
    UnsupportedVersion,
    WrongClass,
    WrongType,
)
from drivers.storage.helpers.files import Files
from drivers.storage.helpers.remotes import Remotes

log = logging.getLogger("storage.domains")

MAILBOX = 16 << 20
BUILDING = ".building-"
REMOVED = ".removed-"
REMOVAL_TIMEOUT = 1800.0


class Maker:
    """For worker threads."""

    def __init__(
        self,
        host: Host,
        settings: Callable[[], Settings],
        remotes: Remotes,
        connections: Connections,
        domains: Domains,
    ) -> None:
        self.refuse_format: Callable[[Domain, list[str]], None] = lambda domain, pools: None
        """Raises when a domain in these pools must not be formatted: a pool of them is connected."""
        self.on_created: Callable[[Domain], None] = lambda domain: None
        """Makes its leases, where they are to be made. What it raises is a warning: they can be made later."""
        self._host = host
        self._settings = settings
        self._remotes = remotes
        self._connections = connections
        self._domains = domains

    def create(self, type_: int, uuid: str, name: str, remote: str, cls: int, version: int | None) -> None:
        """Make a domain on storage that is connected. Raises, and then nothing has changed."""
        wanted = self._wanted(type_, uuid, remote, cls, version)
        fields = metadata.fresh(wanted, name)
        metadata.encode(fields)  # raises for what could not be read again
        with self._domains.lock(wanted.uuid):
            mount = self._mount(wanted)
            self._check_new(wanted.uuid)
            self._check_storage(mount, wanted)
            try:
                self._build(mount, wanted, fields)
            except OSError as error:
                raise _meant(error, wanted) from error
        self._finish(wanted)
        log.info(
            "Created domain=%s type=%s class=%s at=%s", wanted.uuid, wanted.type.name, wanted.cls.label, wanted.path
        )
        self._host.event("storage.domain.created", domain=wanted.uuid)

    def format(self, uuid: str, *, detach: bool) -> None:
        """Remove a domain with all that is in it. Raises, and then it is as before, unless that is DomainFormatFailed."""
        with self._domains.lock(checked_id(uuid)):
            found = self._domains.look(uuid)
            domain, pools = found.domain, metadata.pools(found.fields)
            self.refuse_format(domain, pools)
            if pools and not detach:
                raise CannotFormatAttached(what=domain.uuid, reason=", ".join(pools))
            self._remove(domain)
        log.info("Formatted domain=%s at=%s", domain.uuid, domain.path)
        self._host.event("storage.domain.formatted", domain=domain.uuid)

    # What is wanted

    def _wanted(self, type_: int, uuid: str, remote: str, cls: int, version: int | None) -> Domain:
        kind = _type(type_)
        uuid = checked_id(uuid)
        remote = checked(kind, remote)
        if cls not in list(Class):
            raise WrongClass(what="domClass", given=cls, reason="1 is data, 2 iso, 3 backup")
        number = DEFAULT_VERSION if version is None else version
        if number not in VERSIONS:
            known = ", ".join(map(str, VERSIONS))
            raise UnsupportedVersion(what=f"version {number}", version=number, reason=f"of files there are: {known}")
        path = f"{self._settings().mounts}/{place(kind, remote)}/{uuid}"
        return Domain(uuid=uuid, path=path, type=kind, cls=Class(cls), version=number, remote_path=remote)

    def _mount(self, wanted: Domain) -> Files:
        root = wanted.path.rpartition("/")[0]
        for key, path in self._connections.places().items():
            if path == root:
                return Files(self._remotes.get(key, wanted.remote_path, root))
        raise NotMounted(kind="connection", name=wanted.remote_path, path=wanted.remote_path)

    def _check_new(self, uuid: str) -> None:
        try:
            self._domains.get(uuid)
        except NoSuchDomain:
            return
        raise DomainExists(kind="storage domain", name=uuid, domain=uuid)

    def _check_storage(self, mount: Files, wanted: Domain) -> None:
        try:
            direct = mount.try_direct()
        except OSError as error:
            raise _meant(error, wanted) from error
        if not direct and wanted.cls is Class.DATA:
            raise TargetUnsupported(what=wanted.remote_path, reason="its file system has no direct I/O")

    # Doing it

    def _finish(self, made: Domain) -> None:
        try:
            self.on_created(made)
        except (OSError, DriverError) as error:
            log.warning("A new domain has no leases yet domain=%s error=%s", made.uuid, error)

    def _build(self, mount: Files, wanted: Domain, fields: metadata.Fields) -> None:
        building = f"{BUILDING}{wanted.uuid}"
        mount.remove_tree(building)  # what an attempt left that did not come to its end
        try:
            self._fill(mount, building, wanted, fields)
            mount.rename(building, wanted.uuid, replace=False)
        except OSError:
            mount.within(None).remove_tree(building)
            raise

    def _fill(self, mount: Files, top: str, wanted: Domain, fields: metadata.Fields) -> None:
        mount.make_directory(top)
        mount.make_directory(f"{top}/dom_md")
        mount.make_directory(f"{top}/images")
        if wanted.is_iso:
            mount.make_directory(f"{top}/images/{ISO_IMAGE}")
        for name in ("ids", "leases", *(["xleases"] if wanted.version >= 4 else [])):
            mount.create(f"{top}/dom_md/{name}")
        for name in ("inbox", "outbox"):
            mount.create(f"{top}/dom_md/{name}", size=MAILBOX)
        mount.create(f"{top}/{METADATA}", metadata.encode(fields))

    def _remove(self, domain: Domain) -> None:
        root, _, name = domain.path.rpartition("/")
        self._domains.forget(domain.uuid)
        key = next((key for key, path in self._connections.places().items() if path == root), "")
        mount = Files(self._remotes.get(key or f"mount{root}", root, root), REMOVAL_TIMEOUT)
        removed = f"{REMOVED}{domain.uuid}"
        try:
            mount.remove_tree(removed)
            mount.rename(name, removed)
            mount.remove_tree(removed)
        except OSError as error:
            raise DomainFormatFailed(action=f"formatting {domain.uuid}", reason=error) from error


def _type(number: int) -> Type:
    try:
        kind = Type(number)
    except ValueError:
        raise WrongType(what="storageType", type=number, reason="expected 1 to 7") from None
    if not kind.is_file:
        raise WrongType(what="storageType", type=kind.name, reason="block storage is not built")
    return kind


def _meant(error: OSError, wanted: Domain) -> Exception:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DomainFull(action="create", domain=wanted.uuid, reason=error.strerror)
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return NoPermission(action="create", path=wanted.remote_path, reason=error.strerror)
    return DomainCreationFailed(action=f"creating domain {wanted.uuid}", reason=error)


def is_leftover(name: str) -> bool:
    """Whether a name beside domains is that of one which is being made or removed."""
    start, uuid = name[:-36], name[-36:]
    return start in (BUILDING, REMOVED) and is_uuid(uuid)
