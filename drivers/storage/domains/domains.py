"""Domains: finding storage domains wherever they are connected, and what can be asked of one.

It promises that a domain is told apart by its metadata and not by where it was last seen, that metadata which its checksum does
not match is never acted on, and that storage which does not answer is not mistaken for storage that is empty.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

from drivers.base import Host
from drivers.errors import DriverError
from drivers.storage.connections.connections import Connections
from drivers.storage.contract import METADATA, Class, Domain, Type, is_uuid
from drivers.storage.domains import metadata
from drivers.storage.domains.metadata import Fields
from drivers.storage.errors import (
    DomainAccess,
    InvalidParameter,
    LayoutBroken,
    MetadataMissing,
    NoSuchDomain,
    StorageHangs,
)
from drivers.storage.helpers.files import Files
from drivers.storage.helpers.remotes import Remotes
from drivers.storage.outside.frames import LONGEST
from drivers.storage.together import together

log = logging.getLogger("storage.domains")

SEARCH_TIMEOUT = 20.0
"""Seconds that each connection gets when a domain is searched for."""
_PARTS = ("dom_md/ids", "dom_md/leases", "dom_md/inbox", "dom_md/outbox")


class Found:
    """A domain with the metadata that it had when it was looked at."""

    __slots__ = ("domain", "fields")

    def __init__(self, domain: Domain, fields: Fields) -> None:
        self.domain = domain
        self.fields = fields


class Domains:
    """All domains that can be reached. Its deeds are for worker threads."""

    def __init__(self, host: Host, remotes: Remotes, connections: Connections) -> None:
        self._host = host
        self._remotes = remotes
        self._connections = connections
        self._paths: dict[str, str] = {}
        self._locks: dict[str, threading.RLock] = {}
        self._guard = threading.Lock()

    def get(self, uuid: str) -> Domain:
        """Return the domain. Raises InvalidParameter for what is no id, NoSuchDomain, what its metadata is wrong with, and
        StorageHangs when it, or storage that it may be on, does not answer."""
        return self.look(uuid).domain

    def look(self, uuid: str) -> Found:
        """Return the domain with its metadata as it is now. Raises as `get`."""
        uuid = checked_id(uuid)
        known = self._paths.get(uuid)
        data = self._read(uuid, known) if known else None
        if data is None:
            self._paths.pop(uuid, None)
            known = self._search(uuid)
            data = self._read(uuid, known)
            if data is None:
                raise NoSuchDomain(domain=uuid)
        fields = metadata.decode(data, uuid)
        found = Found(metadata.domain(fields, uuid, known or ""), fields)
        self._paths[uuid] = found.domain.path
        return found

    def files(self, domain: Domain, timeout: float | None = None) -> Files:
        """Return the files of the domain, by its helper."""
        return Files(self._remotes.get(domain.uuid, f"domain {domain.uuid}", domain.path), timeout)

    def path(self, uuid: str) -> str:
        """Return where the domain was seen last, '' when it never was. Any thread."""
        return self._paths.get(uuid.lower(), "")

    def remember(self, paths: dict[str, str]) -> None:
        """Take over where domains were seen by the previous run."""
        self._paths |= paths

    def lock(self, uuid: str) -> threading.RLock:
        """Return what lets one at a time of this host change the domain itself. Never held over what may take long."""
        with self._guard:
            return self._locks.setdefault(uuid.lower(), threading.RLock())

    def change(self, uuid: str, change: Callable[[Fields], Fields]) -> Fields:
        """Replace the metadata by what `change` makes of them, atomically; return them. Who else may do so, on this host and on
        others, is a matter of the lock and of the SPM. Raises as `get`, and OSError."""
        with self.lock(uuid):
            found = self.look(uuid)
            fields = change(dict(found.fields))
            if fields != found.fields:
                self.files(found.domain).write(METADATA, metadata.encode(fields))
            return fields

    def forget(self, uuid: str) -> None:
        """The domain is gone from where it was: end its helper."""
        self._paths.pop(uuid, None)
        self._remotes.drop(uuid)

    # Questions

    def info(self, uuid: str) -> dict[str, Any]:
        found = self.look(uuid)
        return metadata.info(found.fields, found.domain)

    def stats(self, uuid: str) -> dict[str, Any]:
        """Return sizes in bytes, as strings of digits."""
        domain = self.get(uuid)
        space = self.files(domain).space()
        return {
            "disktotal": str(space.total),
            "diskfree": str(space.free),
            "mdasize": "0",
            "mdafree": "0",
            "mdavalid": True,
            "mdathreshold": True,
            "alerts": [],
        }

    def validate(self, uuid: str) -> None:
        """Raise unless the domain is whole: metadata, the special files, the directory of images."""
        domain = self.get(uuid)
        files = self.files(domain)
        missing = [part for part in _PARTS if not files.exists(part)]
        if missing:
            raise LayoutBroken(action="validate", domain=domain.uuid, reason=f"it lacks {', '.join(missing)}")
        if not files.stat("images").is_directory or not files.may("images", "rwx"):
            raise DomainAccess(action="validate", domain=domain.uuid, reason="its images cannot be read and written")

    def all(
        self, *, pool: str = "", cls: Class | None = None, type_: Type | None = None, remote: str = ""
    ) -> list[Found]:
        """Return the domains that match all that is given. What cannot be read is passed over, and said in the log."""
        places = self._connections.places()
        outcomes = together(self._host, [lambda k=k, p=p: self._on(k, p) for k, p in places.items()])  # type: ignore[misc]
        found: dict[str, Found] = {}
        for (_, place), outcome in zip(places.items(), outcomes, strict=True):
            if isinstance(outcome, Exception):
                log.warning("Domains cannot be listed at=%s error=%s", place, outcome)
            else:
                found |= {one.domain.uuid: one for one in outcome}
        for uuid, one in found.items():
            self._paths.setdefault(uuid, one.domain.path)
        return [one for one in found.values() if _matches(one, pool, cls, type_, remote)]

    # Help

    def _read(self, uuid: str, path: str) -> bytes | None:
        """Return the metadata's bytes, None when there is no such domain any more."""
        files = Files(self._remotes.get(uuid, f"domain {uuid}", path))
        try:
            return files.read(METADATA, length=LONGEST)
        except FileNotFoundError:
            if path and self._is_there(files):
                raise MetadataMissing(kind="metadata", name=uuid, domain=uuid) from None
            return None
        except NotADirectoryError:
            return None
        except OSError as error:
            raise DomainAccess(action="reading the metadata", domain=uuid, reason=error) from error

    def _is_there(self, files: Files) -> bool:
        try:
            return files.stat("dom_md").is_directory
        except OSError:
            return False

    def _search(self, uuid: str) -> str:
        """Return the path of the domain, from all connections at once."""
        places = self._connections.places()
        outcomes = together(self._host, [lambda k=k, p=p: self._has(k, p, uuid) for k, p in places.items()])  # type: ignore[misc]
        hits = [place for place, there in zip(places.values(), outcomes, strict=True) if there is True]
        if hits:
            if len(hits) > 1:
                log.warning("A domain is seen in several places domain=%s at=%s", uuid, ", ".join(hits))
            return f"{hits[0]}/{uuid}"
        silent = [
            place for place, there in zip(places.values(), outcomes, strict=True) if isinstance(there, StorageHangs)
        ]
        if silent:
            raise StorageHangs(what=f"domain {uuid}", reason=f"it may be at {', '.join(silent)}, which is silent")
        raise NoSuchDomain(domain=uuid, kind="storage domain", name=uuid)

    def _place(self, key: str, place: str) -> Files:
        return Files(self._remotes.get(key, place, place), min(SEARCH_TIMEOUT, self._remotes.settings.timeout))

    def _has(self, key: str, place: str, uuid: str) -> bool:
        files = self._place(key, place)
        try:
            return files.stat(f"{uuid}/dom_md").is_directory
        except OSError:
            return False

    def _on(self, key: str, place: str) -> list[Found]:
        """Return the domains in one place."""
        files = self._place(key, place)
        uuids = [name for name in files.names() if is_uuid(name)]
        texts = _texts(files, [f"{uuid}/{METADATA}" for uuid in uuids])
        return [one for uuid, text in zip(uuids, texts, strict=True) if (one := _parsed(uuid, text, place)) is not None]


def checked_id(uuid: str, what: str = "sdUUID") -> str:
    """Return an id in the one form that it has on disk. Raises InvalidParameter."""
    if not is_uuid(uuid):
        raise InvalidParameter(what=what, reason=f"{uuid[:60]!a} is no UUID")
    return uuid.lower()


def _texts(files: Files, paths: list[str]) -> list[bytes | None]:
    """Return the files' bytes, in one call if none of them makes trouble; what cannot be read is None, and said in the log."""
    try:
        return files.read_many(paths, LONGEST) if paths else []
    except OSError:
        return [_text(files, path) for path in paths]


def _text(files: Files, path: str) -> bytes | None:
    try:
        return files.read(path, length=LONGEST)
    except FileNotFoundError:
        return None
    except OSError as error:
        log.warning("Metadata cannot be read file=%s/%s error=%s", files.remote.root, path, error)
        return None


def _parsed(uuid: str, text: bytes | None, place: str) -> Found | None:
    if text is None:
        return None
    try:
        fields = metadata.decode(text, uuid)
        return Found(metadata.domain(fields, uuid.lower(), f"{place}/{uuid}"), fields)
    except DriverError as error:
        log.warning("A domain cannot be read domain=%s at=%s error=%s", uuid, place, error)
        return None


def _matches(one: Found, pool: str, cls: Class | None, type_: Type | None, remote: str) -> bool:
    domain = one.domain
    return (
        (not pool or pool in metadata.pools(one.fields))
        and (cls is None or domain.cls is cls)
        and (type_ is None or domain.type is type_)
        and (not remote or domain.remote_path.rstrip("/") == remote.rstrip("/"))
    )
