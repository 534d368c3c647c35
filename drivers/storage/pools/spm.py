"""Spm: being the one host that may change a pool's images.

It promises that this host counts as the SPM only while it has the lease, that what works for it ends before the lease does, and
that no guest is ever touched for that.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Any, Protocol

from drivers.base import Host
from drivers.errors import DriverError, NotResponding
from drivers.storage.contract import VERSIONS, Domain
from drivers.storage.domains.domains import Domains, Found
from drivers.storage.domains.metadata import Fields
from drivers.storage.errors import UnsupportedVersion
from drivers.storage.helpers.remotes import Remotes
from drivers.storage.leases.leasing import LOCAL, Leasing
from drivers.storage.pools import fields as pool_fields
from drivers.storage.pools.errors import IsSpm, SpmStartFailed, SpmStopFailed, VersionTooAdvanced
from drivers.storage.pools.fields import FREE, SPM_ID, SPM_LVER
from drivers.storage.pools.pools import CONTEND, FREE_ROLE, SPM, Pools
from drivers.storage.record import Pool
from drivers.storage.tasks.errors import NotSpm
from drivers.storage.tasks.record import Task

log = logging.getLogger("storage.spm")

HALT_PATIENCE = 60.0
"""Seconds for what works for the SPM to end."""
_GLANCE = 0.02
MASTER_DIRECTORIES = ("master/vms", "master/tasks")


class Work(Protocol):
    """The tasks of this host, as `drivers.storage.tasks.owner.Tasks` has them."""

    def spm_started(self, pool: str) -> None: ...

    def spm_stopped(self, pool: str) -> None: ...

    def refuse_while_running(self, pool: str) -> None: ...

    def is_halted(self, pool: str) -> bool: ...

    def unfinished(self, pool: str | None = None) -> list[Task]: ...


class NoWork:
    """Stands for tasks where there are none."""

    def spm_started(self, pool: str) -> None:
        """There is nothing to take over."""

    def spm_stopped(self, pool: str) -> None:
        """There is nothing to end."""

    def refuse_while_running(self, pool: str) -> None:
        """Nothing runs."""

    def is_halted(self, pool: str) -> bool:
        return True

    def unfinished(self, pool: str | None = None) -> list[Task]:
        return []


class Spm:
    """Its deeds are for worker threads, unless said otherwise."""

    def __init__(self, host: Host, pools: Pools, domains: Domains, leasing: Leasing, remotes: Remotes) -> None:
        self.work: Work = NoWork()
        self._host = host
        self._pools = pools
        self._domains = domains
        self._leasing = leasing
        self._remotes = remotes
        self._losses = 0
        self._dropping: set[str] = set()
        """Pools of which the lease that was lost is still being given back."""
        self._lock = threading.Lock()

    def need(self, uuid: str) -> Pool:
        """Return the pool, of which this host is the SPM. Raises NoSuchPool, NotSpm."""
        pool = self._pools.get(uuid)
        if pool.role != SPM:
            raise NotSpm(pool=pool.uuid)
        return pool

    def check(self, uuid: str, version: int | None) -> None:
        """Raise what keeps this host from becoming the SPM, as far as that can be seen at once."""
        pool = self._pools.get(uuid)
        if pool.role == SPM:
            raise IsSpm(what=uuid, reason="", pool=uuid)
        if version is not None and version not in VERSIONS:
            raise UnsupportedVersion(what="domVersion", version=version, reason=f"these are: {VERSIONS}")

    def begin(self, uuid: str, version: int | None = None) -> None:
        """Become the SPM; `version`: and have the master upgraded to it. That this host is it already is no error."""
        pool = self._pools.get(uuid)
        if pool.role == SPM:
            return
        self._wait_for_drop(pool)
        losses = self._losses
        self._pools.change(pool.uuid, role=CONTEND)
        try:
            way, lver = self._take(pool, version)
            self._settle(pool, way, lver, losses)
        except Exception as error:
            # Whatever it is: the lease must not stay with a host that is not the SPM. Unless it will be, in a moment: after a
            # re-exec the step is made again.
            if not (isinstance(error, NotResponding) and self._remotes.departing):
                self._give_up(pool)
            raise
        log.info("This host is the SPM pool=%s lver=%d way=%s", pool.uuid, lver, way)
        self._host.event("storage.spm.started", pool=pool.uuid, lver=lver, way=way)

    def end(self, uuid: str) -> None:
        """Be the SPM no more. That this host is not is no error. Raises TasksRunning."""
        pool = self._pools.get(uuid)
        if pool.role == FREE_ROLE:
            return
        if pool.role == CONTEND:
            raise SpmStopFailed(action="spmStop", reason="this host is just becoming the SPM")
        self.work.refuse_while_running(pool.uuid)
        self.retire(pool)
        log.info("This host is the SPM no more pool=%s", pool.uuid)
        self._host.event("storage.spm.stopped", pool=pool.uuid)

    def abandon(self, uuid: str) -> None:
        """Whatever came of becoming the SPM: be it not."""
        pool = self._pools.find(uuid)
        if pool is not None and pool.role == SPM:
            self.retire(pool)
        elif pool is not None and pool.role == CONTEND:
            self._give_up(pool)

    def retire(self, pool: Pool, last: Callable[[], None] | None = None) -> None:
        """Stop all work, say on the master domain that there is no SPM, or do `last` there, and give the lease back."""
        self.work.spm_stopped(pool.uuid)
        self._wait_for_halt(pool)
        if last is not None:
            last()
        elif not pool.told or pool.way == LOCAL:
            self._note_free(pool)
        # Nothing works under the lease any more: how it goes is not of interest to who is the SPM no more.
        self._pools.change(pool.uuid, role=FREE_ROLE, way="")
        self._leasing.release(pool.master)

    def status(self, uuid: str) -> dict[str, Any]:
        """Return this host's role, and who the SPM is: its host's id, and the version of its lease."""
        pool = self._pools.get(uuid)
        if pool.role == SPM:
            host, lver = pool.host_id, pool.lver
        else:
            host, lver = self._owner(pool)
        return {"spmStatus": pool.role, "spmId": host, "spmLver": lver}

    def fence(self, uuid: str) -> dict[str, Any]:
        """Say on the master domain that there is no SPM, as its host is known to be dead. The lease is what protects it: a host
        that lives has it still. Raises IsSpm."""
        pool = self._pools.get(uuid)
        if pool.role != FREE_ROLE:
            raise IsSpm(what=uuid, reason="", pool=uuid)
        if not pool.told:
            self._domains.change(pool.master, lambda fields: {**fields, SPM_ID: str(FREE)})
        return self.status(uuid)

    # The loop's thread

    def lost(self, reason: str) -> None:
        """The lease is lost, or is about to be: stop all work for the pool, at once."""
        self._losses += 1
        for pool in self._pools.all():
            if pool.role == FREE_ROLE:
                continue
            log.error("This host is not the SPM any more pool=%s reason=%s", pool.uuid, reason)
            self.work.spm_stopped(pool.uuid)
            self._pools.change(pool.uuid, role=FREE_ROLE, way="")
            for uuid in pool.members:
                # What hangs in them must not be done when the storage comes back and is another SPM's.
                helper = self._remotes.find(uuid)
                if helper is not None:
                    helper.abandon("this host is not the SPM any more")
            self._host.event("storage.spm.lost", pool=pool.uuid, reason=reason)
            self._dropping.add(pool.uuid)
            self._host.submit(lambda pool=pool: self._drop(pool), timeout=0)

    def verify(self) -> None:
        """A new run of the daemon: be the SPM only of pools of which the lease is held. Any thread."""
        if any(pool.role == SPM for pool in self._pools.all()):
            self._host.submit(self._leasing.held, self._verified, timeout=0)

    def _verified(self, held: list[str] | None, error: Exception | None) -> None:
        if held is None:
            log.warning("Leases cannot be looked at error=%s", error)
            self._host.later(1.0, self.verify)
        elif any(pool.role == SPM and pool.master not in held for pool in self._pools.all()):
            self.lost("its lease is not held")

    # Help

    def _take(self, pool: Pool, version: int | None) -> tuple[str, int]:
        found = self._pools.master(pool.uuid, pool.master, pool.version)
        way = self._leasing.acquire(found.domain, pool.host_id)
        if version is not None:
            self.upgrade(found.domain, version)
            # Now there may be a lease that keeps other hosts out.
            way = self._leasing.acquire(self._domains.get(pool.master), pool.host_id)
        lver = self._claim(pool, found, way)
        files = self._domains.files(found.domain)
        for name in MASTER_DIRECTORIES:
            files.make_directory(name, parents=True)
        return way, lver

    def _claim(self, pool: Pool, found: Found, way: str) -> int:
        """Note that this host is the SPM, and return the version of its lease."""
        if pool.told and way != LOCAL:
            return self._leasing.owner(found.domain)[1]

        def claimed(fields: Fields) -> Fields:
            _, lver = pool_fields.spm(fields, pool.master)
            return {**fields, SPM_ID: str(pool.host_id), SPM_LVER: str(lver + 1)}

        return pool_fields.spm(self._domains.change(pool.master, claimed), pool.master)[1]

    def _settle(self, pool: Pool, way: str, lver: int, losses: int) -> None:
        self.work.spm_started(pool.uuid)
        held = self._leasing.held()
        with self._lock:
            now = self._pools.get(pool.uuid)
            if self._losses != losses or pool.master not in held or now.master != pool.master:
                raise SpmStartFailed(action="spmStart", reason="the lease was lost meanwhile")
            self._pools.change(pool.uuid, role=SPM, way=way, lver=lver)

    def _give_up(self, pool: Pool) -> None:
        self.work.spm_stopped(pool.uuid)
        self._wait_for_halt(pool)
        self._pools.change(pool.uuid, role=FREE_ROLE, way="")
        self._leasing.release(pool.master)

    def _drop(self, pool: Pool) -> None:
        try:
            self._wait_for_halt(pool)
            self._leasing.drop()
        finally:
            self._dropping.discard(pool.uuid)

    def _wait_for_drop(self, pool: Pool) -> None:
        """A lease that is being given back must not be taken for one that was got."""
        deadline = time.monotonic() + HALT_PATIENCE
        while pool.uuid in self._dropping:
            if time.monotonic() > deadline:
                raise SpmStartFailed(action="spmStart", reason="what worked under the lease that was lost still does")
            time.sleep(_GLANCE)

    def _wait_for_halt(self, pool: Pool) -> None:
        deadline = time.monotonic() + HALT_PATIENCE
        while not self.work.is_halted(pool.uuid):
            if time.monotonic() > deadline:
                raise SpmStopFailed(action="stopping the SPM", reason="something of it is still at work")
            time.sleep(_GLANCE)

    def _note_free(self, pool: Pool) -> None:
        try:
            self._domains.change(pool.master, lambda fields: {**fields, SPM_ID: str(FREE)})
        except (DriverError, OSError) as error:
            log.warning("The master domain still names this host as the SPM pool=%s error=%s", pool.uuid, error)

    def _owner(self, pool: Pool) -> tuple[int, int]:
        found = self._domains.look(pool.master)
        if pool.told and self._leasing.is_leased(found.domain) and not self._leasing.missing():
            return self._leasing.owner(found.domain)
        return pool_fields.spm(found.fields, pool.master)

    def upgrade_master(self, pool: Pool, version: int) -> None:
        """Bring the master of a pool of which this host is the SPM to a version, and keep other hosts out as that allows.
        Raises as `upgrade` and, the domain being upgraded, what keeps this host from having the lease."""
        self.upgrade(self._domains.get(pool.master), version)
        self._pools.change(pool.uuid, way=self._leasing.acquire(self._domains.get(pool.master), pool.host_id))

    def upgrade(self, domain: Domain, version: int) -> None:
        """Bring a data domain to a version. Raises VersionTooAdvanced, UnsupportedVersion."""
        if version not in VERSIONS:
            raise UnsupportedVersion(what="version", version=version, reason=f"these are: {VERSIONS}")
        if domain.version > version:
            raise VersionTooAdvanced(what=domain.uuid, domain=domain.uuid, version=domain.version, wanted=version)
        if domain.version == version:
            return
        files = self._domains.files(domain)
        if version >= 4 and not files.exists("dom_md/xleases"):
            files.create("dom_md/xleases")
        self._domains.change(domain.uuid, lambda fields: pool_fields.upgraded(fields, version))
        self._leasing.initialise(self._domains.get(domain.uuid))
        log.info("Upgraded domain=%s from=%d to=%d", domain.uuid, domain.version, version)
