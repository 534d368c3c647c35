"""How long a task waits for what other tasks have.

It promises that one which has waited for too long is told of, once; what waits for its turn alone, or was begun, never is.
A re-exec has it wait anew.
"""

from __future__ import annotations

import time
from collections.abc import Iterable

from drivers.storage.tasks.contract import EARLY
from drivers.storage.tasks.record import Task


class Patience:
    """Lives in the loop's thread."""

    def __init__(self) -> None:
        self._since: dict[str, float] = {}

    def judge(self, blocked: Iterable[Task], patience: float) -> tuple[list[Task], float | None]:
        """Return those of the tasks that wait for others' locks which have done so for `patience` seconds, or more; and in how
        many seconds the next one will have, None when there is none."""
        now = time.monotonic()
        waiting = [task for task in blocked if task.state in EARLY and task.steps is None]
        self._since = {task.task_id: self._since.get(task.task_id, now) for task in waiting}
        left = {task.task_id: self._since[task.task_id] + patience - now for task in waiting}
        exhausted = [task for task in waiting if left[task.task_id] <= 0]
        return exhausted, min((seconds for seconds in left.values() if seconds > 0), default=None)
