"""Tasks, put together for a daemon: with its configuration, and with its storage domains, which are imported later."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from drivers.base import Host
from drivers.storage.images.notes import Notes
from drivers.storage.tasks.engine import Limits
from drivers.storage.tasks.owner import Tasks


class Later:
    """The storage domains of a driver that has not been imported whole yet; it has been when the first task runs."""

    def __init__(self, storage: Any, compat: Callable[[], str], notes: Notes) -> None:
        self.notes = notes
        self._storage = storage
        self._compat = compat

    @property
    def qcow2_compat(self) -> str:
        return self._compat()

    def get(self, sd_uuid: str) -> Any:
        return self._storage.domains.get(sd_uuid)

    @property
    def spm(self) -> Any:
        return self._storage.spm

    def make_lease(self, domain: Any, path: str, name: str) -> None:
        self._storage.parts.leasing.make(domain, path, name)

    def files(self, domain: Any) -> Any:
        return self._storage.domains.files(domain)


def open_tasks(host: Host, irs: Callable[[], Any], storage: Any) -> Tasks:
    """Return the tasks of a daemon. `irs()` is that section of its configuration, `storage` its storage driver."""

    def limits() -> Limits:
        told = irs()
        patience = told.task_resource_default_timeout / 1000
        return Limits(kept=told.max_tasks, at_once=told.thread_pool_size, patience=patience)

    return Tasks(host, limits, Later(storage, lambda: irs().qcow2_compat, Notes(host.lib_dir)))
