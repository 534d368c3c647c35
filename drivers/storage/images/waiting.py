"""Waiting for a task, for verbs that answer when all is done and have no task that a client could ask after.

It promises that the task is at its end when the call has answered well, and that nothing is left of it in the lists then.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable

from drivers.errors import DriverError, Failed
from drivers.storage.errors import StorageHangs
from drivers.storage.tasks.contract import State
from drivers.storage.tasks.engine import Attendance
from drivers.storage.tasks.errors import TooManyWait
from drivers.storage.tasks.owner import Tasks
from drivers.storage.tasks.record import Task

MOST = 8
"""Calls that may wait at a time: each has a worker, and the others must have some left."""
_room = threading.BoundedSemaphore(MOST)


def wait_for(tasks: Tasks, patience: float, begin: Callable[[Attendance], str]) -> None:
    """Begin a task and wait for its end. In a worker. Raises TooManyWait, what `begin` does, and what the task failed for."""
    if not _room.acquire(blocking=False):
        raise TooManyWait(limit=MOST)
    try:
        _wait(tasks, patience, begin)
    finally:
        _room.release()


def _wait(tasks: Tasks, patience: float, begin: Callable[[Attendance], str]) -> None:
    ended = threading.Event()
    outcome: list[Task] = []

    def note(task: Task) -> None:
        outcome.append(task)
        ended.set()

    task_id = begin(Attendance(fds=(), ended=note))
    if not ended.wait(patience):
        with contextlib.suppress(DriverError):  # it cannot turn back any more, or has just ended
            tasks.stop(task_id)
        raise StorageHangs(
            what=f"task {task_id}", reason=f"it did not end within {patience:.0f} s, and is being stopped"
        )
    if not outcome[0].is_final:
        raise StorageHangs(what=f"task {task_id}", reason=outcome[0].message or "it is being stopped")
    with contextlib.suppress(DriverError, OSError):  # then it is in the lists for a while; how it ended is what counts
        tasks.clear(task_id)
    if outcome[0].state is not State.FINISHED:
        raise failure(outcome[0])


def failure(task: Task) -> DriverError:
    """Return what a task failed for as an error, with its code."""
    kind = type("TaskFailed", (Failed,), {"wire": task.error, "message": "{reason}"})
    error: DriverError = kind(reason=task.message)
    return error
