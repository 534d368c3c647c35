"""Who may go now: tasks on the same image one after the other, in the order in which they came.

It promises that no two tasks of which one wants something for itself are at work on it at once, that nobody is overtaken by
one who wants the same, and that those who want different things never wait for each other.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from drivers.storage.tasks.contract import UNDOING
from drivers.storage.tasks.record import Lock, Task


def ready(
    tasks: Iterable[Task], active: Collection[str], resting: Collection[str], at_once: int
) -> tuple[list[Task], list[Task], list[Task]]:
    """Return which of the unfinished tasks (oldest first) may go now, which wait for an older one, and which for room."""
    taken: dict[str, bool] = {}
    room = at_once - len(active)
    free: list[Task] = []
    blocked: list[Task] = []
    crowded: list[Task] = []
    for task in tasks:
        locks = _needed(task)
        fits = all(_fits(lock, taken) for lock in locks)
        for lock in locks:
            taken[lock.name] = taken.get(lock.name, True) and lock.shared
        if task.task_id in active or task.task_id in resting:
            continue
        if not fits:
            blocked.append(task)
        elif room > 0:
            free.append(task)
            room -= 1
        else:
            crowded.append(task)
    return free, blocked, crowded


def _needed(task: Task) -> list[Lock]:
    """Return what must be the task's: nothing, for one that turns back before it was planned."""
    return [] if task.steps is None and task.state in UNDOING else task.locks


def _fits(lock: Lock, taken: dict[str, bool]) -> bool:
    return lock.name not in taken or (lock.shared and taken[lock.name])
