"""HostIds: this host's id on the domains that are watched with one, so that others can see whether this host lives.

It promises to have it wherever that is wanted, as soon as that can be, and to give back what is wanted no more. In the loop's
thread, but for `leave`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Any

from drivers.base import Host
from drivers.errors import DriverError
from drivers.storage.contract import Settings
from drivers.storage.domains.domains import Domains
from drivers.storage.domains.monitors import Monitors
from drivers.storage.leases.leasing import Leasing

log = logging.getLogger("storage.leases")


class HostIds:
    def __init__(
        self, host: Host, settings: Callable[[], Settings], monitors: Monitors, domains: Domains, leasing: Leasing
    ) -> None:
        self._host = host
        self._settings = settings
        self._monitors = monitors
        self._domains = domains
        self._leasing = leasing
        self._joined: dict[str, int] = {}
        self._ours: set[str] = set()
        """Where it is for us to give it back: those were wanted once."""
        self._refused: dict[str, str] = {}
        self._busy: set[str] = set()
        self._timer: Any = None
        self._looking = False

    def has(self, uuid: str) -> bool:
        return uuid in self._joined

    def start(self) -> None:
        if self._timer is None:
            self._tick()

    def quiesce(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def look(self) -> None:
        """See where it is, and have it where it should be."""
        if self._looking:
            return
        if not (self._wanted() or self._ours):
            self._leasing.rest()
            return
        self._looking = True
        self._host.submit(self._leasing.joined, self._seen, timeout=0)

    def leave(self, uuids: Iterable[str]) -> None:
        """Give it back at once: the storage is to be let go of. In a worker; what fails is tried again later."""
        for uuid in uuids:
            if uuid in self._joined:
                try:
                    self._leasing.leave(uuid)
                except (OSError, DriverError) as error:
                    log.warning("The host's id is not given back domain=%s error=%s", uuid, error)
                    continue
                self._joined.pop(uuid, None)

    def _tick(self) -> None:
        self.look()
        self._timer = self._host.later(max(0.5, self._settings().check_delay), self._tick)

    def _wanted(self) -> dict[str, int]:
        return {one.uuid: one.host_id for one in self._monitors.all() if one.host_id}

    def _seen(self, joined: dict[str, int] | None, error: Exception | None) -> None:
        self._looking = False
        if joined is None:
            log.warning("Host ids cannot be looked at error=%s", error)
            return
        wanted = self._wanted()
        self._joined = joined
        self._ours |= wanted.keys() & joined.keys()
        for uuid, host_id in wanted.items():
            if uuid not in joined and self._monitors.vitals(uuid).valid:
                self._submit(uuid, lambda uuid=uuid, host_id=host_id: self._join(uuid, host_id))  # type: ignore[misc]
        for uuid in self._ours - wanted.keys():
            if uuid in joined:
                self._submit(uuid, lambda uuid=uuid: self.leave([uuid]))  # type: ignore[misc]
            else:
                self._ours.discard(uuid)

    def _submit(self, uuid: str, work: Callable[[], None]) -> None:
        if uuid in self._busy:
            return
        self._busy.add(uuid)
        self._host.submit(work, lambda _none, error: self._told(uuid, error), key=f"hostid/{uuid}", timeout=0)

    def _join(self, uuid: str, host_id: int) -> None:
        domain = self._domains.get(uuid)
        if self._leasing.is_leased(domain) and not self._leasing.missing():
            self._leasing.join(domain, host_id)
            self._joined[uuid] = host_id
            log.info("This host has its id domain=%s id=%d", uuid, host_id)

    def _told(self, uuid: str, error: Exception | None) -> None:
        self._busy.discard(uuid)
        text = str(error) if error else ""
        if text and self._refused.get(uuid) != text:
            log.warning("The host's id cannot be had or given back domain=%s error=%s", uuid, text)
        self._refused[uuid] = text
