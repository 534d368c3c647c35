"""Leasing: which way a domain's lease is held, and what the keeper is asked for it.

It promises that nothing is written for sanlock where it is not known to be a domain's own file, and that no host becomes the
SPM on storage that others may reach without a lease that keeps them out.
"""

from __future__ import annotations

import errno
import logging
import time
from collections.abc import Callable
from typing import Any

from drivers.errors import DriverError
from drivers.storage.contract import Class, Domain, Type
from drivers.storage.domains.domains import Domains
from drivers.storage.errors import HelperLost, StorageHangs
from drivers.storage.leases.keeping import Keeping
from drivers.storage.leases.promises import NOT_PROMISED
from drivers.storage.pools.errors import (
    HostIdRefused,
    LeaseRefused,
    LeasesUnmade,
    LeaseUnreadable,
    SpmStartFailed,
)

log = logging.getLogger("storage.leases")

SANLOCK, LOCAL = "sanlock", "local"
SANLOCK_FROM = 3
"""The version of domains from which leases are sanlock's."""
JOIN_TIMEOUT = 400.0
"""Seconds for getting a host id. One that was not given back is waited for until its last owner is dead for sure."""
CRASH_PATIENCE = 5.0
"""Seconds for the keeper of a daemon that crashed a moment ago to end what worked under its leases."""
_GLANCE = 0.1
IDS, LEASES = "dom_md/ids", "dom_md/leases"


class Leasing:
    """For worker threads."""

    def __init__(self, keeping: Keeping, domains: Domains, work: str, io_timeout: Callable[[], int]) -> None:
        """`work`: the directory in which tasks keep track of their children."""
        self._keeping = keeping
        self._domains = domains
        self._work = work
        self._io_timeout = io_timeout
        self._acquired: set[str] = set()
        self._told = False

    def missing(self) -> str:
        """Return why sanlock cannot be used, '' when it can."""
        missing = str(self._keeping.call("available"))
        if missing and not self._told:
            self._told = True
            log.warning("%s reason=%s", NOT_PROMISED, missing)
        return missing

    def way(self, domain: Domain) -> str:
        """Return how the domain's lease is to be held. Raises SpmStartFailed when it cannot be."""
        missing = (
            self.missing() if domain.version >= SANLOCK_FROM else "domains of its version have no lease of sanlock"
        )
        if not missing:
            return SANLOCK
        if domain.type is not Type.LOCALFS:
            action = f"becoming the SPM on {domain.type.name} domain {domain.uuid}"
            raise SpmStartFailed(action=action, reason=f"other hosts could not be kept out: {missing}")
        log.warning(
            "Only this machine is kept from being the SPM too, by a local lock: other hosts must not reach this directory "
            "domain=%s reason=%s",
            domain.uuid,
            missing,
        )
        return LOCAL

    def initialise(self, domain: Domain) -> None:
        """Have leases on a data domain that has none yet, if sanlock is here. Only where no other host may do so at once.
        Raises LeasesUnmade."""
        if not self.is_leased(domain) or self.missing():
            return
        files = self._domains.files(domain)
        ids, leases = files.stat(IDS), files.stat(LEASES)
        if not (ids.is_file and leases.is_file):
            raise LeasesUnmade(action="initialise", domain=domain.uuid, reason="ids and leases are not files")
        wanted = {
            "ids": "" if ids.size else f"{domain.path}/{IDS}",
            "leases": "" if leases.size > domain.alignment else f"{domain.path}/{LEASES}",
        }
        if any(wanted.values()):
            times = {"io_timeout": self._io_timeout()}
            self._ask(LeasesUnmade, domain, "initialise", lockspace=domain.uuid, **wanted, **_place(domain), **times)

    def make(self, domain: Domain, path: str, name: str) -> None:
        """Write a lease that nobody holds into a file of the domain, if sanlock is here: a new volume's, which nobody can have
        in use. Raises LeasesUnmade."""
        if self.is_leased(domain) and not self.missing():
            place = {**_place(domain), "offset": 0, "ids": "", "leases": f"{domain.path}/{path}", "resource": name}
            self._ask(LeasesUnmade, domain, "initialise", lockspace=domain.uuid, io_timeout=self._io_timeout(), **place)

    @staticmethod
    def is_leased(domain: Domain) -> bool:
        """Whether sanlock's leases are on domains like this one."""
        return domain.version >= SANLOCK_FROM and domain.cls is not Class.ISO

    def join(self, domain: Domain, host_id: int) -> None:
        """Have this host's id on the domain, waiting for it. Raises HostIdRefused."""
        arguments = {"ids": f"{domain.path}/{IDS}", "io_timeout": self._io_timeout()}
        self._ask(HostIdRefused, domain, "join", JOIN_TIMEOUT, lockspace=domain.uuid, host_id=host_id, **arguments)

    def leave(self, uuid: str) -> None:
        """Give this host's id back. Raises OSError."""
        self._keeping.call("leave", lockspace=uuid)

    def joined(self) -> dict[str, int]:
        """Return this host's ids, by domain. Where there is no sanlock, there are none."""
        if self.missing():
            return {}
        return dict(self._keeping.call("joined"))

    def acquire(self, domain: Domain, host_id: int) -> str:
        """Get the domain's lease, and return which way. Raises SpmStartFailed, HostIdRefused, LeaseRefused."""
        way = self.way(domain)
        if way == SANLOCK:
            self.initialise(domain)
            self.join(domain, host_id)
        place = f"{domain.path}/{LEASES}"
        arguments = {
            "domain": domain.uuid,
            "path": place,
            "offset": domain.alignment,
            "sanlock": way == SANLOCK,
            "work": self._work,
        }
        began = time.monotonic()
        known = domain.uuid in self._acquired
        self._acquired.add(domain.uuid)
        try:
            self._insist(arguments, began + CRASH_PATIENCE)
        except OSError as error:
            if not known:
                self._acquired.discard(domain.uuid)
            raise LeaseRefused(what=domain.uuid, domain=domain.uuid, reason=error.strerror) from error
        log.info("Got the lease domain=%s way=%s seconds=%.1f", domain.uuid, way, time.monotonic() - began)
        return way

    def _insist(self, arguments: dict[str, Any], deadline: float) -> None:
        while True:
            try:
                self._keeping.call("acquire", timeout=JOIN_TIMEOUT, **arguments)
                return
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise
            time.sleep(_GLANCE)

    def release(self, uuid: str) -> None:
        """Give the lease back, whatever stands in the way: what works under it has ended. Other leases stay, unless the
        keeper does not answer."""
        self._acquired.discard(uuid)
        self._let_go("release", domain=uuid)

    def drop(self) -> None:
        """Have no lease any more. Touches no storage: it is for when that is lost."""
        self._acquired.clear()
        self._let_go("drop")

    def _let_go(self, op: str, **arguments: Any) -> None:
        if not self._keeping.is_there:
            return
        try:
            self._keeping.call(op, **arguments)
        except OSError as error:
            domain = arguments.get("domain", "all")
            log.warning("A lease is dropped that could not be given back domain=%s error=%s", domain, error)
        except HelperLost:
            return  # it ended, and holds nothing any more
        except StorageHangs as error:
            # It must not be held for nobody. sanlock gives back, as far as it can, what a process held that has ended.
            log.warning("The keeper of leases does not give them back, and is ended error=%s", error)
            self._keeping.kill()

    def rest(self) -> None:
        """No pool is connected, and no host id wanted: end the keeper, if nothing else needs it. The loop's thread."""
        if not self._acquired:
            self._keeping.end()

    def held(self) -> list[str]:
        """Return the domains whose leases this host has."""
        return list(self._keeping.call("held")) if self._keeping.is_there else []

    def owner(self, domain: Domain) -> tuple[int, int]:
        """Return which host has the lease (-1: none) and how often it has been had. Raises LeaseUnreadable."""
        place = {"path": f"{domain.path}/{LEASES}", **_place(domain)}
        host, version = self._ask(LeaseUnreadable, domain, "owner", lockspace=domain.uuid, **place)
        return int(host), int(version)

    def lives(self, uuid: str, host_id: int) -> bool | None:
        """Return whether the host renews its id on the domain, None if that cannot be seen."""
        try:
            alive = self._keeping.call("lives", lockspace=uuid, host_id=host_id)
        except (OSError, StorageHangs):
            return None
        return None if alive is None else bool(alive)

    def _ask(self, kind: type[DriverError], domain: Domain, op: str, wait: float = 30.0, /, **arguments: Any) -> Any:
        try:
            return self._keeping.call(op, timeout=wait, **arguments)
        except OSError as error:
            hint = " (is the id another host's?)" if error.errno == errno.EINVAL else ""
            fields = {"action": op, "what": domain.uuid, "domain": domain.uuid, "host": arguments.get("host_id", "")}
            raise kind(**fields, reason=f"{error.strerror}{hint}") from error


def _place(domain: Domain) -> dict[str, int]:
    return {"offset": domain.alignment, "sector": domain.block_size, "align": domain.alignment}
