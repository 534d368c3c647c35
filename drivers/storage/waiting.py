"""Waiting for a task, for verbs that answer when all is done and have no task that a client could ask after.

It promises that the task is at its end when the call has answered, and that nothing is left of it in the lists.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable

from drivers.errors import DriverError, Failed
from drivers.storage.errors import StorageHangs
from drivers.storage.tasks.contract import State
from drivers.storage.tasks.engine import Attendance
from drivers.storage.tasks.owner import Tasks
from drivers.storage.tasks.record import Task


def wait_for(tasks: Tasks, patience: float, begin: Callable[[Attendance], str]) -> None:
    """Begin a task and wait for its end. In a worker. Raises what `begin` does, and what the task failed for."""
    ended = threading.Event()
    outcome: list[Task] = []

    def note(task: Task) -> None:
        outcome.append(task)
        ended.set()

    task_id = begin(Attendance(fds=(), ended=note))
    if not ended.wait(patience):
        tasks.stop(task_id)
        raise StorageHangs(what="the task", reason=f"it did not end within {patience:.0f} s, and was stopped")
    with contextlib.suppress(DriverError, OSError):  # then it is in the lists for a while; how it ended is what counts
        tasks.clear(task_id)
    if outcome[0].state is not State.FINISHED:
        raise failure(outcome[0])


def failure(task: Task) -> DriverError:
    """Return what a task failed for as an error, with its code."""
    kind = type("TaskFailed", (Failed,), {"wire": task.error, "message": "{reason}"})
    error: DriverError = kind(reason=task.message)
    return error
