"""The task by which a host becomes the SPM: it may take as long as the leases of a host that died, and outlives a re-exec."""

from __future__ import annotations

from typing import Protocol

from drivers.storage.pools.spm import Spm
from drivers.storage.tasks.owner import Tasks
from drivers.storage.tasks.record import Lock, Step, Undo
from drivers.storage.tasks.registry import deed, plan, undo


class Context(Protocol):
    """What the steps of tasks are given."""

    @property
    def spm(self) -> Spm: ...


def submit(tasks: Tasks, pool: str, version: int | None) -> str:
    """Have this host become the SPM of the pool, and return the task's id. Raises what can be seen to keep it from that."""
    # The pool is not named as the task's: those are what ends with the SPM.
    args = {"pool": pool.lower(), "version": version}
    return tasks.submit("spmStart", args, tag="", locks=[Lock(name=f"spm/{pool.lower()}")])


@deed("spm.start")
def start(context: Context, pool: str, version: int | None) -> None:
    context.spm.begin(pool, version)


@undo("spm.stop")
def stop(context: Context, pool: str) -> None:
    context.spm.abandon(pool)


@plan("spmStart", error="SpmStartError")
def plan_start(context: Context, pool: str, version: int | None) -> list[Step]:
    context.spm.check(pool, version)
    return [
        Step(
            name="spm.start",
            args={"pool": pool, "version": version},
            undo=Undo(name="spm.stop", args=[pool]),
            weight=1.0,
        )
    ]
