"""Making pools, taking them apart, and giving them another master where the old one is lost.

It promises that a pool is there whole or not at all: the master's metadata are what makes it one, and they are written last.
For worker threads.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from drivers.base import Host
from drivers.errors import DriverError
from drivers.storage.contract import Class, Role
from drivers.storage.domains import metadata
from drivers.storage.domains.domains import Domains, Found, checked_id
from drivers.storage.domains.metadata import Fields
from drivers.storage.errors import InvalidParameter
from drivers.storage.leases.leasing import Leasing
from drivers.storage.pools import fields as pool_fields
from drivers.storage.pools.errors import (
    AlreadyAttached,
    BackupMaster,
    HostIdMismatch,
    IsoMaster,
    MixedVersions,
    PoolConnected,
    TooManyDomains,
)
from drivers.storage.pools.fields import ACTIVE, ATTACHED
from drivers.storage.pools.pools import Pools, check_host_id
from drivers.storage.pools.spm import MASTER_DIRECTORIES, Spm
from drivers.storage.record import Pool

log = logging.getLogger("storage.pools")


class Timing:
    """The lock's times in seconds, as they stand in the metadata for implementations that use them."""

    def __init__(self, renewal: int | None, lease: int | None, io: int | None, retries: int | None) -> None:
        given = {
            "LOCKRENEWALINTERVALSEC": 5 if renewal is None else renewal,
            "LEASETIMESEC": 60 if lease is None else lease,
            "IOOPTIMEOUTSEC": 10 if io is None else io,
            "LEASERETRIES": 3 if retries is None else retries,
        }
        for name, value in given.items():
            if not 0 <= value < 1 << 31:
                raise InvalidParameter(what=name, reason=f"{value} is no number of seconds")
        self.fields = {name: str(value) for name, value in given.items()}


class PoolMaker:
    def __init__(
        self, host: Host, domains: Domains, pools: Pools, spm: Spm, leasing: Leasing, limit: Callable[[], int]
    ) -> None:
        self._host = host
        self._domains = domains
        self._pools = pools
        self._spm = spm
        self._leasing = leasing
        self._limit = limit

    def create(self, uuid: str, name: str, master: str, domains: Sequence[str], version: int, timing: Timing) -> None:
        """Make a pool of domains that are in none. Raises, and then nothing has changed."""
        uuid, master = checked_id(uuid, "spUUID"), checked_id(master, "masterDom")
        members = list(dict.fromkeys(checked_id(one, "domList") for one in domains))
        spelled = pool_fields.name(name)
        _check_version(version)
        if master not in members:
            raise InvalidParameter(what="masterDom", reason="it is not in domList")
        with self._pools.lock:
            self._refuse_connected(uuid)
            if len(members) > self._limit():
                raise TooManyDomains(what="domList", reason="", pool=uuid, limit=self._limit())
            found = {one: self._domains.look(one) for one in members}
            check_master(found[master])
            for one in found.values():
                check_free(one, uuid)
                check_same_version(one, found[master])
            states = {one: ACTIVE if one == master else ATTACHED for one in members}
            fields = {"pool_name": spelled, "states": states, "timing": timing.fields}
            self._make(uuid, master, list(found.values()), version, fields)
        log.info("Created pool=%s master=%s domains=%d", uuid, master, len(members))
        self._host.event("storage.pool.created", pool=uuid)

    def destroy(self, uuid: str, host_id: int) -> None:
        """Take the pool apart: its domains are in no pool then. What cannot be reached is left as it is, and can be formatted
        with force. Raises NotSpm, HostIdMismatch, TasksRunning."""
        pool = self._spm.need(uuid)
        if pool.host_id != host_id:
            raise HostIdMismatch(what="hostID", reason="", pool=uuid, host=pool.host_id, given=host_id)
        with self._pools.lock:
            self._spm.work.refuse_while_running(pool.uuid)
            for one in pool.members:
                if one != pool.master:
                    self._free(one, pool.uuid)
            self._spm.retire(pool, lambda: self._clear(pool))
            self._pools.disconnect(pool.uuid, directory=True)
        log.info("Destroyed pool=%s", pool.uuid)
        self._host.event("storage.pool.destroyed", pool=pool.uuid)

    def reconstruct(
        self,
        uuid: str,
        name: str,
        master: str,
        states: Mapping[str, object],
        version: int,
        timing: Timing,
        host_id: int | None,
    ) -> None:
        """Have another domain be the master of a pool that is not connected here. With a host id, only while no other host
        has the lease of that domain. Raises, and then nothing has changed."""
        uuid, master = checked_id(uuid, "spUUID"), checked_id(master, "masterDom")
        members = pool_fields.asked(states, "domDict")
        spelled = pool_fields.name(name)
        _check_version(version)
        if host_id is not None:
            check_host_id(host_id)
        if members.get(master) != ACTIVE:
            raise InvalidParameter(what="masterDom", reason="it is not among the active domains of domDict")
        with self._pools.lock:
            self._refuse_connected(uuid)
            found = self._domains.look(master)
            check_master(found)
            check_free(found, uuid, or_in_it=True)
            with self._leased(found, host_id):
                self._prepare(found)
                fields = {"pool_name": spelled, "states": members, "timing": timing.fields}
                self._domains.change(master, _master(uuid, version, fields))
            for one in members:
                if one != master:
                    self._demote(one, uuid)
        log.info("Reconstructed pool=%s master=%s version=%d", uuid, master, version)
        self._host.event("storage.pool.reconstructed", pool=uuid, master=master)

    # Help

    def _clear(self, pool: Pool) -> None:
        """Have the master domain be in no pool, and know of none."""
        files = self._domains.files(self._domains.get(pool.master))
        self._domains.change(
            pool.master, lambda fields: pool_fields.unmastered(pool_fields.detached(fields, pool.uuid))
        )
        files.remove_tree("master")

    def _refuse_connected(self, uuid: str) -> None:
        if self._pools.find(uuid) is not None:
            raise PoolConnected(what=uuid, reason="", pool=uuid)

    def _make(self, uuid: str, master: str, found: list[Found], version: int, fields: dict[str, Any]) -> None:
        done: list[str] = []
        try:
            for one in found:
                self._leasing.initialise(one.domain)
                if one.domain.uuid != master:
                    done.append(one.domain.uuid)
                    self._domains.change(one.domain.uuid, lambda old: pool_fields.attached(old, uuid))
                else:
                    self._prepare(one)
            self._domains.change(master, _master(uuid, version, fields))
        except (OSError, DriverError):
            for attached in reversed(done):
                self._free(attached, uuid)
            raise

    def _prepare(self, found: Found) -> None:
        files = self._domains.files(found.domain)
        for name in MASTER_DIRECTORIES:
            files.make_directory(name, parents=True)

    def _free(self, uuid: str, pool: str) -> None:
        try:
            self._domains.change(uuid, lambda fields: pool_fields.detached(fields, pool))
        except (OSError, DriverError) as error:
            log.warning("A domain still says that it is in a pool domain=%s pool=%s error=%s", uuid, pool, error)

    def _demote(self, uuid: str, pool: str) -> None:
        """Have a domain that was the master say so no more. The higher version of the new one counts in any case."""
        try:
            found = self._domains.look(uuid)
            if metadata.role(found.fields) == Role.MASTER and pool in metadata.pools(found.fields):
                self._domains.change(uuid, pool_fields.regular)
        except (OSError, DriverError) as error:
            log.warning("The old master cannot be told domain=%s pool=%s error=%s", uuid, pool, error)

    @contextlib.contextmanager
    def _leased(self, found: Found, host_id: int | None) -> Any:
        if host_id is None:
            yield
            return
        self._leasing.acquire(found.domain, host_id)
        try:
            yield
        finally:
            self._leasing.release(found.domain.uuid)


def _master(uuid: str, version: int, fields: dict[str, Any]) -> Callable[[Fields], Fields]:
    return lambda old: pool_fields.mastered(pool_fields.attached(old, uuid), version, **fields)


def _check_version(version: int) -> None:
    if not 0 <= version < 1 << 31:
        raise InvalidParameter(what="masterVersion", reason=f"{version} is no version")


def check_master(found: Found) -> None:
    """Raise unless the domain can be a master: IsoMaster, BackupMaster."""
    if found.domain.cls is not Class.DATA:
        kind = IsoMaster if found.domain.cls is Class.ISO else BackupMaster
        raise kind(what=found.domain.uuid, reason="", domain=found.domain.uuid)


def check_free(found: Found, pool: str, *, or_in_it: bool = False) -> None:
    """Raise AlreadyAttached for a domain of another pool. One for ISO images may be in several."""
    pools = [one for one in metadata.pools(found.fields) if not (or_in_it and one == pool)]
    if found.domain.cls is Class.ISO and pool not in pools:
        return
    if pools:
        uuid = found.domain.uuid
        raise AlreadyAttached(kind="domain", name=uuid, domain=uuid, pool=", ".join(pools))


def check_same_version(found: Found, master: Found) -> None:
    """Raise MixedVersions for a data domain of another version than the master's."""
    if found.domain.cls is Class.DATA and found.domain.version != master.domain.version:
        uuid, version = found.domain.uuid, found.domain.version
        raise MixedVersions(what=uuid, reason="", domain=uuid, version=version, wanted=master.domain.version)
