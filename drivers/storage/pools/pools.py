"""Pools: the storage pool that this host is connected to, the domains in it, and what clients are told of it.

It promises that what is known of a pool outlives a re-exec and a crash, that a domain counts as its master only if its own
metadata say so, and that every active domain is watched and linked.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from drivers.base import Host
from drivers.errors import DriverError
from drivers.storage.contract import ISO_IMAGE, Class, Domain, Role
from drivers.storage.domains import metadata
from drivers.storage.domains.domains import Domains, Found, checked_id
from drivers.storage.domains.monitors import Monitors
from drivers.storage.errors import CannotFormatInConnectedPool, InvalidParameter, NoSuchDomain, NoSuchPool
from drivers.storage.leases.hostids import HostIds
from drivers.storage.pools import fields as pool_fields
from drivers.storage.pools.errors import (
    HigherMaster,
    HostIdMismatch,
    IsSpm,
    MasterNotFound,
    OnePoolOnly,
    WrongMaster,
)
from drivers.storage.pools.fields import ACTIVE, FREE
from drivers.storage.pools.links import Links
from drivers.storage.record import Pool
from drivers.storage.together import together

log = logging.getLogger("storage.pools")

MOST_HOSTS = 250
FREE_ROLE, CONTEND, SPM = "Free", "Contend", "SPM"
_UNKNOWN_SPACE = {"disktotal": "", "diskfree": "", "alerts": []}


class Pools:
    """All pools, by id: at most one. Its deeds are for worker threads."""

    def __init__(
        self,
        host: Host,
        domains: Domains,
        monitors: Monitors,
        host_ids: HostIds,
        links: Links,
        changed: Callable[[], None],
    ) -> None:
        self.lock = threading.RLock()
        """Held by whoever changes which domains are in a pool."""
        self._host = host
        self._domains = domains
        self._monitors = monitors
        self._host_ids = host_ids
        self._links = links
        self._changed = changed
        self._all: dict[str, Pool] = {}
        self._guard = threading.Lock()

    # What there is: any thread

    def all(self) -> list[Pool]:
        return list(self._all.values())

    def find(self, uuid: str) -> Pool | None:
        return self._all.get(uuid.lower())

    def get(self, uuid: str) -> Pool:
        """Return a pool that is connected. Raises InvalidParameter, NoSuchPool."""
        pool = self._all.get(checked_id(uuid, "spUUID"))
        if pool is None:
            raise NoSuchPool(kind="storage pool", name=uuid, pool=uuid)
        return pool

    def put(self, pool: Pool) -> Pool:
        with self._guard:
            self._all[pool.uuid] = pool
        self._changed()
        return pool

    def change(self, uuid: str, **fields: Any) -> Pool:
        """Replace fields of a pool that is connected."""
        with self._guard:
            pool = self._all[uuid] = msgspec.structs.replace(self._all[uuid], **fields)
        self._changed()
        return pool

    def restore(self, pools: list[Pool]) -> None:
        self._all = {pool.uuid: pool for pool in pools}

    # Deeds

    def connect(
        self, uuid: str, host_id: int, master: str, version: int, told: Mapping[str, object] | None = None
    ) -> None:
        """Connect to the pool of which `master` is the master domain in this version; to one that is connected, anew. `told`:
        the states of its domains, where a client keeps the list. Raises, and then nothing has changed."""
        uuid, master = checked_id(uuid, "spUUID"), checked_id(master, "msdUUID")
        check_host_id(host_id)
        states = pool_fields.asked(told, "domainsMap") if told is not None else None
        with self.lock:
            known = self._all.get(uuid)
            if known is not None and known.host_id != host_id:
                raise HostIdMismatch(what="hostID", reason="", pool=uuid, host=known.host_id, given=host_id)
            if known is None and self._all:
                raise OnePoolOnly(what=uuid, reason="", pool=", ".join(self._all))
            if known is not None and known.role != FREE_ROLE:
                _check_same(known, master, version)
                if states is None:
                    self.follow(known)
                    return
            facts = self._read(uuid, master, version, states)
            fresh = Pool(uuid=uuid, host_id=host_id, **facts)
            self.follow(self.put(fresh) if known is None else self.change(uuid, **facts))
        if known is None:
            log.info("Connected pool=%s host=%d master=%s version=%d", uuid, host_id, master, version)
            self._host.event("storage.pool.connected", pool=uuid)

    def refresh(self, uuid: str, master: str, version: int) -> None:
        """See which domains are in the pool, and which one is its master, now. What is no master any more has the pool
        disconnected, and raises. The SPM knows better."""
        pool, master = self.get(uuid), checked_id(master, "msdUUID")
        with self.lock:
            if pool.role != FREE_ROLE:
                return
            states = {master: ACTIVE} | pool.members if pool.told else None
            try:
                self.follow(self.change(pool.uuid, **self._read(pool.uuid, master, version, states)))
            except (WrongMaster, HigherMaster):
                self._forget(pool, directory=False)
                raise

    def disconnect(self, uuid: str, *, directory: bool = False) -> None:
        """Let go of a pool; `directory`: of its directory in the repository too. Raises IsSpm."""
        with self.lock:
            pool = self.get(uuid)
            if pool.role != FREE_ROLE:
                raise IsSpm(what=uuid, reason="", pool=uuid)
            self._forget(pool, directory=directory)

    def follow(self, pool: Pool) -> None:
        """Have exactly its active domains watched and linked."""
        active = {uuid for uuid, state in pool.members.items() if state == ACTIVE}
        self._host.in_loop(lambda: self._watch(pool, active))
        self._links.make(pool.uuid, {uuid: self._domains.path(uuid) for uuid in active}, pool.master)

    def follow_all(self) -> None:
        """Have the active domains of all pools watched and linked, as they are now."""
        with self.lock:
            for pool in self.all():
                self.follow(pool)

    def info(self, uuid: str, spm: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return what clients are told of the pool, and of each of its domains. `spm`: who the SPM is, as `Spm.status` says."""
        pool = self.get(uuid)
        master = self._domains.look(pool.master)
        isos = [one for one in pool.members if pool.members[one] == ACTIVE and self._is_iso(one)]
        told = {
            "type": master.domain.type.name,
            "name": metadata.unspelled(master.fields.get(pool_fields.NAME, "")),
            "domains": pool_fields.members_text(pool.members),
            "master_uuid": pool.master,
            "master_ver": pool.version,
            "lver": spm["spmLver"],
            "spm_id": spm["spmId"],
            "pool_status": "connected",
            "version": str(master.domain.version),
            "isoprefix": f"{self._links.directory(pool.uuid)}/{isos[0]}/images/{ISO_IMAGE}" if isos else "",
        }
        outcomes = together(self._host, [lambda one=one: self._described(pool, one) for one in pool.members])  # type: ignore[misc]
        return told, {
            one: outcome if isinstance(outcome, dict) else self._undescribed(pool, one)
            for one, outcome in zip(pool.members, outcomes, strict=True)
        }

    def domains_with(self, uuid: str, image: str) -> list[str]:
        """Return the active domains of the pool that an image is on."""
        pool = self.get(uuid)
        image = checked_id(image, "imgUUID")
        found = [one for one, state in pool.members.items() if state == ACTIVE and self._has_image(one, image)]
        return sorted(found)

    # Checks for others

    def refuse_format(self, domain: Domain, pools: list[str]) -> None:
        """Raise CannotFormatInConnectedPool for a domain in a pool that is connected."""
        connected = [one for one in pools if self.find(one) is not None]
        if connected:
            raise CannotFormatInConnectedPool(what=domain.uuid, reason=", ".join(connected))

    def master(self, pool: str, uuid: str, version: int) -> Found:
        """Return the domain that is to be the pool's master in this version. Raises MasterNotFound, WrongMaster."""
        try:
            found = self._domains.look(uuid)
        except NoSuchDomain as error:
            raise MasterNotFound(kind="master", name=uuid, domain=uuid, pool=pool) from error
        fields: dict[str, object] = {"domain": uuid, "pool": pool, "version": version, "what": uuid}
        if pool not in metadata.pools(found.fields):
            raise WrongMaster(**fields, reason="it is not attached to it")
        if metadata.role(found.fields) != Role.MASTER:
            raise WrongMaster(**fields, reason="it is no master")
        if (there := metadata.number(found.fields, pool_fields.VERSION, uuid, 0)) != version:
            raise WrongMaster(**fields, reason=f"it is in version {there}")
        return found

    # Help

    def _read(self, pool: str, master: str, version: int, states: dict[str, str] | None) -> dict[str, Any]:
        """Return the facts of the pool that its master domain, or a client, tells."""
        found = self.master(pool, master, version)
        members = states if states is not None else pool_fields.members(found.fields, master)
        members = {master: ACTIVE} | members
        self._check_others(pool, master, version, members)
        return {"master": master, "version": version, "members": members, "told": states is not None}

    def _check_others(self, pool: str, master: str, version: int, members: dict[str, str]) -> None:
        """Raise HigherMaster when another domain that can be seen is the master by now."""
        others = [uuid for uuid, state in members.items() if uuid != master and state == ACTIVE]
        outcomes = together(self._host, [lambda uuid=uuid: self._domains.look(uuid) for uuid in others])  # type: ignore[misc]
        for uuid, found in zip(others, outcomes, strict=True):
            if isinstance(found, Exception):
                log.warning("A domain of a pool cannot be looked at pool=%s domain=%s error=%s", pool, uuid, found)
                continue
            there = metadata.number(found.fields, pool_fields.VERSION, uuid, FREE)
            if metadata.role(found.fields) == Role.MASTER and pool in metadata.pools(found.fields) and there > version:
                raise HigherMaster(what=uuid, reason="", domain=uuid, pool=pool, version=there)

    def _forget(self, pool: Pool, *, directory: bool) -> None:
        with self._guard:
            self._all.pop(pool.uuid, None)
        self._changed()
        self._host.in_loop(lambda: self._watch(pool, set()))
        self._host_ids.leave(pool.members)
        self._links.remove(pool.uuid, directory=directory)
        log.info("Disconnected pool=%s", pool.uuid)
        self._host.event("storage.pool.disconnected", pool=pool.uuid)

    def _watch(self, pool: Pool, active: set[str]) -> None:
        for one in self._monitors.all():
            if one.pool == pool.uuid and one.uuid not in active:
                self._monitors.unwatch(one.uuid, pool=pool.uuid)
        for uuid in active:
            self._monitors.watch(uuid, pool=pool.uuid, host_id=pool.host_id)
        self._host_ids.look()

    def _described(self, pool: Pool, uuid: str) -> dict[str, Any]:
        if pool.members[uuid] != ACTIVE:
            return self._undescribed(pool, uuid)
        stats = self._domains.stats(uuid)
        space = {key: stats[key] for key in ("disktotal", "diskfree", "alerts")}
        domain = self._domains.get(uuid)
        prefix = f"{self._links.directory(pool.uuid)}/{uuid}/images/{ISO_IMAGE}" if domain.is_iso else ""
        return {"status": pool.members[uuid], **space, "version": domain.version, "isoprefix": prefix}

    def _undescribed(self, pool: Pool, uuid: str) -> dict[str, Any]:
        return {"status": pool.members[uuid], **_UNKNOWN_SPACE, "version": -1, "isoprefix": ""}

    def _is_iso(self, uuid: str) -> bool:
        try:
            return self._domains.get(uuid).cls is Class.ISO
        except DriverError as error:
            log.warning("A domain of a pool cannot be looked at domain=%s error=%s", uuid, error)
            return False

    def _has_image(self, uuid: str, image: str) -> bool:
        domain = self._domains.get(uuid)
        return not domain.is_iso and self._domains.files(domain).exists(f"images/{image}")


def _check_same(pool: Pool, master: str, version: int) -> None:
    """Raise WrongMaster when somebody takes another domain for the master of a pool of which this host is the SPM: its lease is
    on the one that is it."""
    if (master, version) != (pool.master, pool.version):
        fields: dict[str, object] = {"domain": master, "pool": pool.uuid, "version": version, "what": master}
        raise WrongMaster(**fields, reason=f"to its SPM, that is {pool.master} in version {pool.version}")


def check_host_id(host_id: int) -> None:
    """Raises InvalidParameter."""
    if not 0 < host_id <= MOST_HOSTS:
        raise InvalidParameter(what="hostID", reason=f"expected 1 to {MOST_HOSTS}")
