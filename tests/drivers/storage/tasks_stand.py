"""A stand for tasks without the daemon: a real loop and workers, real files, real qemu-img, and domains in this process.

It promises that what runs on it runs as in the daemon, that a re-exec and a crash leave of it what they leave of the daemon,
and that no child outlives `close`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from drivers.storage.contract import Class, Domain, Type
from drivers.storage.errors import NoSuchDomain
from drivers.storage.helpers.files import Files
from drivers.storage.images import images as planning
from drivers.storage.images.images import Images
from drivers.storage.images.notes import Notes
from drivers.storage.outside.deeds import DEEDS
from drivers.storage.tasks.dump import Spool
from drivers.storage.tasks.engine import Limits
from drivers.storage.tasks.owner import Tasks
from drivers.storage.tasks.record import Lock, Task
from tests.drivers.storage.stand import Ground
from tests.until import until
from vdsmd.api.contract import numbers

assert planning.PLANNING

POOL = "00000002-0002-0002-0002-000000000001"
SD = "5d000000-0000-4000-8000-000000000001"
OTHER = "5d000000-0000-4000-8000-000000000002"
PATIENCE = 120.0


class Here:
    """A helper (`drivers.storage.contract.Remote`) that makes its calls in this process. `before(op, arguments)` may raise."""

    def __init__(self, root: str) -> None:
        self.root = root
        self.what = root
        self.before: Callable[[str, dict[str, Any]], None] = lambda op, arguments: None

    def call(self, op: str, *, timeout: float | None = None, **arguments: Any) -> Any:
        self.before(op, arguments)
        return DEEDS[op](self.root, **arguments)


class Local:
    """Domains in directories; the context of all steps."""

    qcow2_compat = "0.10"

    def __init__(self, base: Path, version: int = 3) -> None:
        self.notes = Notes(str(base / "lib"))
        self.remotes: dict[str, Here] = {}
        self.domains: dict[str, Domain] = {}
        for sd in (SD, OTHER):
            path = base / "repo" / "mnt" / "local" / sd
            for name in ("images", "dom_md", "master"):
                (path / name).mkdir(parents=True, exist_ok=True)
            self.remotes[sd] = Here(str(path))
            self.domains[sd] = Domain(
                uuid=sd, path=str(path), type=Type.LOCALFS, cls=Class.DATA, version=version, remote_path="/local"
            )

    def get(self, sd_uuid: str) -> Domain:
        if sd_uuid not in self.domains:
            raise NoSuchDomain(domain=sd_uuid)
        return self.domains[sd_uuid]

    def make_lease(self, domain: Domain, path: str, name: str) -> None:
        """There is no sanlock here."""

    def files(self, domain: Domain) -> Files:
        return Files(self.remotes[domain.uuid])

    def spool(self, pool: str) -> Spool:
        return Spool(self.files(self.get(SD)), lambda name: numbers()[name])


class Farm:
    """`Tasks` of a host that is the SPM, with two domains."""

    def __init__(self, base: Path, *, version: int = 3, limits: Limits = Limits()) -> None:  # noqa: B008
        self.base = base
        self.limits = limits
        self.local = Local(base, version)
        self._begin(Ground(base))
        self.tasks.recover()
        self.ground.inside(self.tasks.start)
        self.tasks.spm_started(POOL)

    def _begin(self, ground: Ground) -> None:
        self.ground = ground
        self.tasks = Tasks(ground.host, lambda: self.limits, self.local)
        self.tasks.spools = lambda pool: self.local.spool(pool)
        self.images = Images(self.tasks)

    def reexec(self) -> None:
        """Settle, quiesce, hand over, and take over."""
        self.ground.inside(self.tasks.settle)
        until(lambda: self.ground.inside(self.tasks.unsafe) is None, PATIENCE)
        self.ground.inside(lambda: self.tasks.quiesce(time.monotonic() + PATIENCE))
        self.ground.stop()
        record = self.tasks.snapshot()
        self._begin(Ground(self.base, self.ground.fds.snapshot(), self.ground.children.snapshot()))
        self.ground.inside(lambda: self.tasks.restore(record))
        self.ground.inside(lambda: (self.ground.fds.close_unclaimed(), self.ground.children.drop_unclaimed()))
        self.ground.inside(self.tasks.start)

    def crash(self, *, spm: bool = True) -> None:
        """Lose all that is in memory, and every descriptor; children live on. Then start cold."""
        self.end()
        self._begin(Ground(self.base))
        self.ground.inside(self.tasks.recover)
        self.ground.inside(self.tasks.start)
        if spm:
            self.tasks.spm_started(POOL)

    def end(self) -> None:
        self.ground.inside(self.tasks.settle)
        self.ground.stop()
        for held in self.ground.fds.snapshot():
            os.close(held.number)

    def close(self) -> None:
        self.ground.inside(self.tasks.settle)
        for task in self.tasks.all():
            self.ground.inside(lambda task=task: self.tasks._engine.works.stop(task.task_id, task.run))  # type: ignore[misc]
        until(lambda: not self.ground.pids("task/"), PATIENCE, "children to end")
        self.end()

    def submit(self, verb: str, locks: Sequence[str] = (), **args: Any) -> str:
        return self.tasks.submit(verb, args, pool=POOL, locks=[Lock(name=name) for name in locks])

    def ended(self, task_id: str) -> Task:
        until(lambda: self.tasks.get(task_id).is_final, PATIENCE, "the task to end")
        until(lambda: task_id not in self.tasks._engine.active, PATIENCE)
        return self.tasks.get(task_id)

    def done(self, task_id: str) -> Task:
        """Wait for a task, which must succeed."""
        task = self.ended(task_id)
        assert (task.state, task.error) == ("finished", ""), task
        return task

    def workers_of(self, task_id: str) -> list[int]:
        """Return the pids of what works for a task: the shell and the command."""
        task = self.tasks.get(task_id)
        return self.tasks._engine.works._pids(task_id, task.run)
