"""Monitors: how the domains that matter to this host fare.

It promises answers from memory at any time, that a domain which hangs is told as such by the age of its last check, and that
monitors outlive a re-exec: the looking is done by the domains' helpers. All but `heard` belongs to the loop's thread.
"""

from __future__ import annotations

import errno
import logging
import time
from collections.abc import Callable
from typing import Any

import msgspec

from drivers.base import Host
from drivers.errors import DriverError
from drivers.storage.contract import Domain, Settings, Vitals
from drivers.storage.domains import metadata
from drivers.storage.domains.domains import Domains
from drivers.storage.errors import DomainAccess, MemberOfPool, NoSuchDomain, StaleHandle, StorageHangs
from drivers.storage.helpers.process import Report
from drivers.storage.helpers.remotes import Remotes
from drivers.storage.record import Monitored

log = logging.getLogger("storage.monitors")

LEAST_PATIENCE = 10.0
"""Seconds beyond the delay until a check that has not ended makes a domain invalid."""
_NEVER = Vitals()


class Monitors:
    """All watched domains, by id."""

    def __init__(
        self,
        host: Host,
        settings: Callable[[], Settings],
        remotes: Remotes,
        domains: Domains,
        changed: Callable[[], None],
    ) -> None:
        self.on_change: Callable[[str, bool], None] = lambda uuid, valid: None
        """Called when a domain has become valid, or is so no more. In the loop's thread."""
        self.has_host_id: Callable[[str], bool] = lambda uuid: False
        """Whether this host holds its id in the domain's lockspace."""
        self._host = host
        self._settings = settings
        self._remotes = remotes
        self._domains = domains
        self._changed = changed
        self._all: dict[str, Monitored] = {}
        self._heard: dict[str, float] = {}
        self._seen: dict[str, tuple[bytes, Vitals]] = {}
        self._looking: set[str] = set()
        self._timer: Any = None

    def all(self) -> list[Monitored]:
        return list(self._all.values())

    def now(self) -> list[Monitored]:
        """Return all with how they fare at this moment: that one has been silent for too long must not be forgotten."""
        return [
            msgspec.structs.replace(one, vitals=self.vitals(one.uuid)) for one in self.all() if one.uuid in self._all
        ]

    def find(self, uuid: str) -> Monitored | None:
        return self._all.get(uuid)

    def restore(self, monitored: list[Monitored]) -> None:
        self._all = {one.uuid: one for one in monitored}

    def watch(self, uuid: str, *, alone: bool = False, host_id: int = 0, pool: str = "") -> None:
        """Watch the domain from now on. It need not be there yet."""
        before = self._all.get(uuid) or Monitored(uuid=uuid)
        self._all[uuid] = msgspec.structs.replace(
            before, alone=alone or before.alone, host_id=host_id or before.host_id, pool=pool or before.pool
        )
        self._changed()
        self._locate(uuid)

    def unwatch(self, uuid: str, *, pool: str = "") -> None:
        """Watch it no more for the pool or, without one, for itself. Raises MemberOfPool when its pool wants it watched."""
        one = self._all.get(uuid)
        if one is None:
            return
        if not pool and one.pool:
            raise MemberOfPool(what=uuid, reason=one.pool)
        kept = msgspec.structs.replace(one, pool="" if pool else one.pool, alone=one.alone and bool(pool))
        if kept.pool or kept.alone:
            self._all[uuid] = kept
        else:
            self._drop(uuid)
        self._changed()

    def vitals(self, uuid: str) -> Vitals:
        """Return how it fares now. Silence counts."""
        one = self._all[uuid]
        vitals = one.vitals
        if vitals.checked and self._silence(uuid) > self._patience():
            wire, reason = StorageHangs.wire, f"its last check began {time.monotonic() - vitals.checked:.0f} s ago"
            return msgspec.structs.replace(vitals, wire=wire, reason=reason)
        return vitals

    def told(self, number: Callable[[str], int]) -> dict[str, dict[str, Any]]:
        """Return how all of them fare, as the wire has it; `number` gives the status code of a name."""
        now = time.monotonic()
        return {uuid: self._told(uuid, number, now) for uuid in self._all}

    def heard(self, uuid: str, report: dict[str, Any]) -> None:
        """A helper has looked. Any thread."""
        try:
            told = msgspec.convert(report, Report)
        except msgspec.ValidationError as error:
            log.error("A report makes no sense domain=%s error=%s", uuid, error)
            return
        vitals = self._judged(uuid, told)
        self._host.in_loop(lambda: self._note(uuid, vitals, told.errno))

    def start(self) -> None:
        if self._timer is None:
            for uuid in self._all:
                self._locate(uuid)
            self._tick()

    def quiesce(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def reload(self) -> None:
        """The delay may be another one."""
        for uuid in self._all:
            directory = self._remotes.find(uuid)
            if directory is not None and directory.watch_delay:
                directory.watch(self._settings().check_delay)

    # Help

    def _told(self, uuid: str, number: Callable[[str], int], now: float) -> dict[str, Any]:
        vitals = self.vitals(uuid)
        age = now - vitals.checked if vitals.checked else 0.0
        return {
            "code": number(vitals.wire) if vitals.wire else 0,
            "lastCheck": f"{max(0.0, age):.1f}",
            "delay": f"{vitals.delay:.6f}" if vitals.checked else "0",
            "valid": vitals.valid,
            "version": vitals.version,
            "acquired": self.has_host_id(uuid),
            "actual": bool(vitals.checked),
        }

    def _judged(self, uuid: str, told: Report) -> Vitals:
        if told.errno:
            kind = _MEANINGS.get(told.errno, DomainAccess)
            return Vitals(wire=kind.wire, reason=told.error, delay=told.delay, checked=told.began)
        data, vitals = self._seen.get(uuid, (b"", _NEVER))
        if data != told.metadata or vitals is _NEVER:
            vitals = _read(uuid, told.metadata)
            self._seen[uuid] = (told.metadata, vitals)
        return msgspec.structs.replace(vitals, delay=told.delay, checked=told.began)

    def _note(self, uuid: str, vitals: Vitals, number: int) -> None:
        one = self._all.get(uuid)
        if one is None:
            return
        before = self.vitals(uuid)
        self._heard[uuid] = time.monotonic()
        if vitals.version < 0:
            vitals = msgspec.structs.replace(vitals, version=one.vitals.version)
        self._all[uuid] = msgspec.structs.replace(one, vitals=vitals)
        self._tell(uuid, before, vitals)
        if number in (errno.ENOENT, errno.ESTALE):
            self._locate(uuid)

    def _tell(self, uuid: str, before: Vitals, now: Vitals) -> None:
        if before.valid == now.valid and before.checked:
            return
        if now.valid:
            log.info("A domain is well domain=%s delay=%.3f", uuid, now.delay)
        else:
            log.error("A domain is not well domain=%s reason=%s", uuid, now.reason)
        self._host.event(
            "storage.domain.valid" if now.valid else "storage.domain.invalid", domain=uuid, reason=now.reason
        )
        self.on_change(uuid, now.valid)

    def _silence(self, uuid: str) -> float:
        return time.monotonic() - self._heard.setdefault(uuid, time.monotonic())

    def _patience(self) -> float:
        delay = self._settings().check_delay
        return delay + max(delay, LEAST_PATIENCE)

    def _tick(self) -> None:
        for uuid, one in list(self._all.items()):
            self._look_after(uuid, one)
        self._timer = self._host.later(max(0.5, self._settings().check_delay), self._tick)

    def _look_after(self, uuid: str, one: Monitored) -> None:
        now = self.vitals(uuid)
        if one.vitals.valid and not now.valid:
            # Kept as what was told last, so that its return is news again.
            self._all[uuid] = msgspec.structs.replace(one, vitals=now)
            self._tell(uuid, one.vitals, now)
        directory = self._remotes.find(uuid)
        if directory is None or not directory.watch_delay:
            self._locate(uuid)
        elif directory.process is not None and self._silence(uuid) > self._patience() + self._settings().timeout:
            self._heard[uuid] = time.monotonic()
            directory.abandon("its monitor has not come back")

    def _locate(self, uuid: str) -> None:
        """Find where the domain is, and have its helper look at it there."""
        if uuid in self._looking:
            return
        self._looking.add(uuid)
        path = self._domains.path(uuid)
        # Where it was before is as good as found: the helper says whether it is so.
        self._host.submit(
            lambda: self._domains.get(uuid), lambda d, e: self._located(uuid, d, e), key=f"monitor/{uuid}"
        )
        if path and self._remotes.find(uuid) is not None:
            self._watch(uuid, path)

    def _located(self, uuid: str, domain: Domain | None, error: Exception | None) -> None:
        self._looking.discard(uuid)
        one = self._all.get(uuid)
        if one is None:
            return
        if domain is not None:
            self._watch(uuid, domain.path)
        elif isinstance(error, DriverError):
            before = self.vitals(uuid)
            wire = type(error).wire or DomainAccess.wire
            vitals = msgspec.structs.replace(one.vitals, wire=wire, reason=str(error), checked=time.monotonic())
            self._all[uuid] = msgspec.structs.replace(one, vitals=vitals)
            self._heard[uuid] = time.monotonic()
            self._tell(uuid, before, vitals)
        elif error is not None:
            log.error("A domain cannot be looked for domain=%s", uuid, exc_info=error)

    def _watch(self, uuid: str, path: str) -> None:
        delay = self._settings().check_delay
        directory = self._remotes.get(uuid, f"domain {uuid}", path)
        if directory.watch_delay != delay:
            directory.watch(delay)

    def _drop(self, uuid: str) -> None:
        for kept in (self._all, self._heard, self._seen):
            kept.pop(uuid, None)
        directory = self._remotes.find(uuid)
        if directory is not None:
            directory.watch(0.0)


_MEANINGS: dict[int, type[DriverError]] = {errno.ENOENT: NoSuchDomain, errno.ESTALE: StaleHandle}


def _read(uuid: str, data: bytes) -> Vitals:
    try:
        domain = metadata.domain(metadata.decode(data, uuid), uuid, "")
    except DriverError as error:
        return Vitals(wire=type(error).wire, reason=str(error))
    return Vitals(wire="", reason="", version=domain.version)
