"""Spools: where a pool's tasks are written down, on whichever domain is its master at that moment.

It promises that nothing is written to a domain that is about to be the master no more.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator

from drivers.storage.domains.domains import Domains
from drivers.storage.pools.pools import Pools
from drivers.storage.tasks.dump import Spool
from drivers.storage.tasks.record import Task


class PoolSpool:
    """What `drivers.storage.tasks.runner.Spool` asks for. Raises NoSuchPool when the pool is not connected any more."""

    def __init__(self, spools: Spools, pool: str) -> None:
        self._spools = spools
        self._pool = pool

    def write(self, task: Task) -> None:
        with self._spools.lock:
            self._spools.of(self._pool).write(task)

    def remove(self, task_id: str) -> None:
        with self._spools.lock:
            self._spools.of(self._pool).remove(task_id)

    def load(self) -> list[Task]:
        with self._spools.lock:
            return self._spools.of(self._pool).load()


class Spools:
    """For worker threads."""

    def __init__(self, domains: Domains, pools: Pools) -> None:
        self.number: Callable[[str], int] = lambda name: 0
        """Returns the number of a status code by its name."""
        self.lock = threading.RLock()
        self._domains = domains
        self._pools = pools

    def spool(self, pool: str) -> PoolSpool | None:
        """Return where the pool's tasks are written down, None when it is not connected."""
        return PoolSpool(self, pool) if self._pools.find(pool) is not None else None

    def of(self, pool: str) -> Spool:
        domain = self._domains.get(self._pools.get(pool).master)
        return Spool(self._domains.files(domain), self.number)

    @contextlib.contextmanager
    def resting(self) -> Iterator[None]:
        """Have nothing written meanwhile."""
        with self.lock:
            yield
