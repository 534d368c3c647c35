"""Members: which domains are in a pool, which of them are active, and which one is its master.

It promises that the pool's list and what a domain says of itself are changed in an order in which an end in the middle leaves
nothing that cannot be done again, and that only the SPM does so. For worker threads.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from drivers.base import Host
from drivers.errors import DriverError
from drivers.storage.contract import BLANK, Class, Role
from drivers.storage.domains import metadata
from drivers.storage.domains.domains import Domains, Found, checked_id
from drivers.storage.domains.metadata import Fields
from drivers.storage.errors import InvalidParameter, StorageTypeUnsupported
from drivers.storage.leases.leasing import SANLOCK, Leasing
from drivers.storage.pools import fields as pool_fields
from drivers.storage.pools.errors import (
    MasterCopyFailed,
    MasterStays,
    MixedVersions,
    NotAttached,
    NotInPool,
    PotentialMaster,
    TooManyDomains,
)
from drivers.storage.pools.fields import ACTIVE, ATTACHED, DOMAINS, NAME, SPM_ID, SPM_LVER, VERSION
from drivers.storage.pools.making import check_free, check_master
from drivers.storage.pools.pools import Pools
from drivers.storage.pools.spm import Spm
from drivers.storage.pools.spools import Spools
from drivers.storage.pools.trees import copy_tree
from drivers.storage.record import Pool
from drivers.storage.tasks.errors import TasksRunning

log = logging.getLogger("storage.pools")


class Members:
    def __init__(
        self,
        host: Host,
        domains: Domains,
        pools: Pools,
        spm: Spm,
        leasing: Leasing,
        spools: Spools,
        limit: Callable[[], int],
    ) -> None:
        self._host = host
        self._domains = domains
        self._pools = pools
        self._spm = spm
        self._leasing = leasing
        self._spools = spools
        self._limit = limit

    def attach(self, uuid: str, pool_id: str) -> None:
        """Take a domain into the pool. That it is in there already is no error. Raises AlreadyAttached, MixedVersions,
        TooManyDomains."""
        uuid = checked_id(uuid)
        with self._pools.lock:
            pool = self._spm.need(pool_id)
            found = self._domains.look(uuid)
            if uuid in pool.members and pool.uuid in metadata.pools(found.fields):
                return
            check_free(found, pool.uuid, or_in_it=True)
            if len(pool.members) >= self._limit():
                raise TooManyDomains(what=uuid, reason="", pool=pool.uuid, limit=self._limit())
            self._match_version(found, pool)
            self._leasing.initialise(self._domains.get(uuid))
            self._domains.change(
                uuid, lambda fields: pool_fields.attached({**fields, "ROLE": str(Role.REGULAR)}, pool.uuid)
            )
            self._save(pool, {**pool.members, uuid: ATTACHED})
        self._told("attached", uuid, pool)

    def activate(self, uuid: str, pool_id: str) -> None:
        """Have a domain of the pool used. Raises NotInPool, NotAttached, and what is wrong with the domain."""
        uuid = checked_id(uuid)
        with self._pools.lock:
            pool = self._spm.need(pool_id)
            self._check_member(uuid, pool)
            found = self._domains.look(uuid)
            if pool.uuid not in metadata.pools(found.fields):
                raise NotAttached(kind="domain", name=uuid, domain=uuid, pool=pool.uuid)
            self._domains.validate(uuid)
            self._match_version(found, pool)
            if uuid != pool.master and metadata.role(found.fields) == Role.MASTER:
                self._domains.change(uuid, pool_fields.regular)  # it was the master once, and could not be told
            self._save(pool, {**pool.members, uuid: ACTIVE})
        self._told("activated", uuid, pool)

    def deactivate(self, uuid: str, pool_id: str, new_master: str = BLANK, version: int = 0) -> None:
        """Have a domain used no more. If it is the master, another one (`new_master`) becomes that, in a higher version; a
        master stays one when no other domain is active. Raises NotInPool, PotentialMaster, TasksRunning."""
        uuid, new_master = checked_id(uuid), checked_id(new_master, "msdUUID")
        with self._pools.lock:
            pool = self._spm.need(pool_id)
            self._check_member(uuid, pool)
            self._refuse_busy(uuid, pool)
            if pool.master == uuid and new_master not in (BLANK, uuid):
                pool = self._move_master(pool, new_master, version)
            elif pool.master == uuid and (others := self._potential(pool)):
                raise PotentialMaster(what=uuid, reason="", domain=uuid, pool=pool.uuid, others=", ".join(others))
            self._save(pool, {**pool.members, uuid: ATTACHED})
        self._told("deactivated", uuid, pool)

    def detach(self, uuid: str, pool_id: str, new_master: str = BLANK, version: int = 0) -> None:
        """Take a domain out of the pool, which it is told. Raises NotInPool, MasterStays, and what keeps it from being told."""
        uuid, new_master = checked_id(uuid), checked_id(new_master, "msdUUID")
        with self._pools.lock:
            pool = self._spm.need(pool_id)
            self._check_member(uuid, pool)
            self._refuse_busy(uuid, pool)
            if pool.master == uuid and new_master not in (BLANK, uuid):
                pool = self._move_master(pool, new_master, version)
            self._refuse_master(uuid, pool)
            self._domains.change(uuid, lambda fields: pool_fields.detached(fields, pool.uuid))
            self._drop(uuid, pool)
        self._told("detached", uuid, pool)

    def detach_by_force(self, uuid: str, pool_id: str) -> None:
        """Take a domain out of the pool; that it cannot be told so does not matter. Raises NotInPool, MasterStays."""
        uuid = checked_id(uuid)
        with self._pools.lock:
            pool = self._spm.need(pool_id)
            self._check_member(uuid, pool)
            self._refuse_master(uuid, pool)
            try:
                self._domains.change(uuid, lambda fields: pool_fields.detached(fields, pool.uuid))
            except (OSError, DriverError) as error:
                log.warning(
                    "A domain still says that it is in a pool domain=%s pool=%s error=%s", uuid, pool.uuid, error
                )
            self._drop(uuid, pool)
        self._told("detached", uuid, pool)

    def extend(self, uuid: str, pool_id: str) -> None:
        """Refuse: only domains on block storage have devices. Raises StorageTypeUnsupported."""
        self._spm.need(pool_id)
        domain = self._domains.get(uuid)
        raise StorageTypeUnsupported(what=domain.uuid, type=domain.type.name, reason="files grow by themselves")

    def upgrade(self, pool_id: str, version: int) -> None:
        """Bring the pool's data domains to a version, the master first. Others that are not active, or cannot be reached,
        follow when they are activated. Raises VersionTooAdvanced, UnsupportedVersion."""
        with self._pools.lock:
            pool = self._spm.need(pool_id)
            self._spm.upgrade_master(pool, version)
            for uuid, state in pool.members.items():
                if state == ACTIVE and uuid != pool.master:
                    try:
                        self._match_version(self._domains.look(uuid), pool)
                    except (OSError, DriverError) as error:
                        log.warning("A domain is upgraded later domain=%s error=%s", uuid, error)

    def describe(self, pool_id: str, name: str) -> None:
        """Set the pool's name. Raises PoolNameTooLong."""
        pool = self._spm.need(pool_id)
        spelled = pool_fields.name(name)
        self._domains.change(pool.master, lambda fields: {**fields, NAME: spelled})

    def describe_domain(self, uuid: str, text: str) -> None:
        """Set the name of a domain. Whoever is not the SPM of its pool must not write there: its SPM may just be doing so.
        Raises DescriptionTooLong, NoSuchPool for a domain that is in no pool which is connected, NotSpm."""
        spelled = metadata.description(text)
        with self._pools.lock:
            pools = metadata.pools(self._domains.look(uuid).fields)
            known = [one for one in pools if self._pools.find(one) is not None]
            self._spm.need((known or pools or [BLANK])[0])
            self._domains.change(uuid, lambda fields: {**fields, "DESCRIPTION": spelled})

    # Help

    def _check_member(self, uuid: str, pool: Pool) -> None:
        if uuid not in pool.members:
            raise NotInPool(kind="domain", name=uuid, domain=uuid, pool=pool.uuid)

    def _refuse_busy(self, uuid: str, pool: Pool) -> None:
        """Raise TasksRunning when tasks on the domain have not ended."""
        unfinished = self._spm.work.unfinished(pool.uuid)
        busy = [task.task_id for task in unfinished if any(lock.name.startswith(uuid) for lock in task.locks)]
        if busy:
            raise TasksRunning(pool=pool.uuid, tasks=", ".join(busy))

    def _refuse_master(self, uuid: str, pool: Pool) -> None:
        if uuid == pool.master:
            raise MasterStays(what=uuid, reason="", domain=uuid, pool=pool.uuid)

    def _match_version(self, found: Found, pool: Pool) -> None:
        """Have a data domain in the version of its pool. Raises MixedVersions for one that is ahead of it."""
        wanted = self._domains.get(pool.master).version
        if found.domain.cls is not Class.DATA or found.domain.version == wanted:
            return
        if found.domain.version > wanted:
            uuid, version = found.domain.uuid, found.domain.version
            raise MixedVersions(what=uuid, reason="", domain=uuid, version=version, wanted=wanted)
        self._spm.upgrade(found.domain, wanted)

    def _save(self, pool: Pool, members: dict[str, str]) -> Pool:
        """Write the list down where other hosts read it, unless a client keeps it."""
        if not pool.told:
            text = pool_fields.members_text(members)
            self._domains.change(pool.master, lambda fields: {**fields, DOMAINS: text})
        kept = self._pools.change(pool.uuid, members=members)
        self._pools.follow(kept)
        return kept

    def _drop(self, uuid: str, pool: Pool) -> None:
        self._save(pool, {one: state for one, state in pool.members.items() if one != uuid})

    def _told(self, what: str, uuid: str, pool: Pool) -> None:
        log.info("A domain of a pool was %s domain=%s pool=%s", what, uuid, pool.uuid)
        self._host.event(f"storage.domain.{what}", domain=uuid, pool=pool.uuid)

    def _potential(self, pool: Pool) -> list[str]:
        """Return the other active domains that could be the master."""
        others = [uuid for uuid, state in pool.members.items() if state == ACTIVE and uuid != pool.master]
        return [uuid for uuid in others if self._domains.get(uuid).cls is Class.DATA]

    def _move_master(self, pool: Pool, uuid: str, version: int) -> Pool:
        """Have another active data domain be the master, with all that the old one knew. Its lease is had before the old one's
        is given back."""
        if pool.members.get(uuid) != ACTIVE:
            raise InvalidParameter(what="msdUUID", reason=f"{uuid} is no active domain of the pool")
        if version <= pool.version:
            raise InvalidParameter(what="masterVersion", reason=f"the master has version {pool.version} already")
        found = self._domains.look(uuid)
        check_master(found)
        with self._spools.resting():
            self._copy(pool, found)
            way = self._leasing.acquire(found.domain, pool.host_id)
            old = self._domains.look(pool.master).fields
            try:
                self._domains.change(uuid, _promoted(old, pool, version))
            except (OSError, DriverError):
                self._leasing.release(uuid)
                raise
            lver = self._leasing.owner(found.domain)[1] if pool.told and way == SANLOCK else pool.lver
            moved = self._pools.change(pool.uuid, master=uuid, version=version, way=way, lver=lver)
        try:
            self._domains.change(pool.master, pool_fields.regular)
        except (OSError, DriverError) as error:
            log.warning("The old master cannot be told domain=%s pool=%s error=%s", pool.master, pool.uuid, error)
        self._leasing.release(pool.master)
        log.info("The master is another domain pool=%s from=%s to=%s", pool.uuid, pool.master, uuid)
        return moved

    def _copy(self, pool: Pool, found: Found) -> None:
        source, target = self._domains.files(self._domains.get(pool.master)), self._domains.files(found.domain)
        try:
            target.remove_tree("master")
            copy_tree(source, target, "master")
        except OSError as error:
            raise MasterCopyFailed(action=f"copying the master to {found.domain.uuid}", reason=error) from error


def _promoted(old: Fields, pool: Pool, version: int) -> Callable[[Fields], Fields]:
    kept = {key: old[key] for key in (NAME, DOMAINS, SPM_ID, SPM_LVER) if key in old}
    return lambda fields: {
        **pool_fields.attached(fields, pool.uuid),
        **kept,
        "ROLE": str(Role.MASTER),
        VERSION: str(version),
    }
