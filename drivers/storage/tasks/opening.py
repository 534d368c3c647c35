"""Tasks, put together for a daemon: with its configuration, and with its storage domains, which are imported later."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from drivers.base import Host
from drivers.storage.tasks.engine import Limits
from drivers.storage.tasks.owner import Tasks


class Later:
    """The storage domains of a driver that has not been imported whole yet; it has been when the first task runs."""

    def __init__(self, storage: Any) -> None:
        self._storage = storage

    def get(self, sd_uuid: str) -> Any:
        return self._storage.domains.get(sd_uuid)

    @property
    def spm(self) -> Any:
        return self._storage.spm

    def files(self, domain: Any) -> Any:
        return self._storage.domains.files(domain)


def open_tasks(host: Host, irs: Callable[[], Any], storage: Any) -> Tasks:
    """Return the tasks of a daemon. `irs()` is that section of its configuration, `storage` its storage driver."""
    limits = lambda: Limits(kept=irs().max_tasks, at_once=irs().thread_pool_size)  # noqa: E731
    return Tasks(host, limits, Later(storage))
