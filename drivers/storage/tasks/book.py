"""The tasks we have: in memory, in the hand-off's record, and each in a checkpoint of its own.

It promises that a change is in the checkpoint before it has consequences, and that an impossible move raises and changes
nothing. Tasks are changed by the loop's thread and by workers: the lock is for them, and is never held over storage.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import Any

import msgspec

from drivers.base import Host
from drivers.storage.tasks.contract import FINAL, Move, moved
from drivers.storage.tasks.errors import NoSuchTask, TaskNotKept, TooManyTasks
from drivers.storage.tasks.record import Task, TasksRecord, is_id, judge
from state.directory import StateDirectory
from state.process import boot_id
from state.records import Entry, RecordError, decode, encode, pack, unpack

log = logging.getLogger("tasks")


class Book:
    """All tasks, by id, oldest first. `all` gives a copy of the list, of the very tasks."""

    def __init__(self, host: Host) -> None:
        self.lock = threading.RLock()
        self._host = host
        self._tasks: dict[str, Task] = {}
        self._directory: StateDirectory | None = None

    def all(self) -> list[Task]:
        with self.lock:
            return list(self._tasks.values())

    def unfinished(self, pool: str | None = None) -> list[Task]:
        return [task for task in self.all() if not task.is_final and pool in (None, task.pool)]

    def find(self, task_id: str) -> Task | None:
        return self._tasks.get(task_id)

    def get(self, task_id: str) -> Task:
        task = self._tasks.get(task_id)
        if task is None:
            raise NoSuchTask(task=task_id)
        return task

    def add(self, task: Task, limit: int) -> None:
        """Take in a new task. Raises TooManyTasks, or TaskNotKept; then nothing has changed."""
        with self.lock:
            if len(self._tasks) >= limit:
                raise TooManyTasks(verb=task.verb, limit=limit)
            try:
                self._write(task)
            except OSError as error:
                raise TaskNotKept(verb=task.verb, reason=error) from error
            self._tasks[task.task_id] = task

    def put(self, task: Task) -> None:
        """Take in a task that another host has begun, or what another host made of one."""
        with self.lock:
            self._tasks[task.task_id] = task
            self.update(task)

    def remove(self, task: Task) -> None:
        with self.lock:
            if self._tasks.get(task.task_id) is task:
                del self._tasks[task.task_id]
                self._checkpoints().remove(task.task_id)

    def move(self, task: Task, *moves: Move, **fields: Any) -> None:
        """Make the moves, one after the other, and set the fields with them. Raises ImpossibleMove."""
        with self.lock:
            before = state = task.state
            for move in moves:
                state = moved(task.task_id, state, move)
            if state in FINAL:
                fields["ended"] = time.time()
            self.update(task, state=state, **fields)
        log.info("Status changed task=%s verb=%s before=%s now=%s", task.task_id, task.verb, before, task.state)

    def update(self, task: Task, **fields: Any) -> None:
        """Set the fields, and write the task down. A full disk is logged: it must not hurt the task."""
        with self.lock:
            for name, value in fields.items():
                setattr(task, name, value)
            if self._tasks.get(task.task_id) is not task:
                return
            try:
                self._write(task)
            except OSError as error:
                log.error("A task's checkpoint is out of date task=%s error=%s", task.task_id, error)

    def snapshot(self, spm: list[str]) -> TasksRecord:
        with self.lock:
            return TasksRecord(tasks=[msgspec.structs.replace(task) for task in self._tasks.values()], spm=spm)

    def restore(self, record: TasksRecord) -> None:
        for number, task in enumerate(record.tasks):
            judge(task, f"owners.tasks.tasks[{number}]")
        self._tasks = {task.task_id: task for task in record.tasks}

    def recover(self) -> None:
        """Take what the checkpoints say. One that is of no use is set aside, and costs no other task anything."""
        directory = self._checkpoints()
        found = []
        for name in directory.names():
            try:
                found.append(self._read(directory.read(name) or b"", name))
            except (RecordError, OSError) as error:
                directory.set_aside(name, str(error))
        self._tasks = {task.task_id: task for task in sorted(found, key=lambda task: task.created)}

    def _read(self, data: bytes, name: str) -> Task:
        record = decode(TasksRecord, unpack(Entry, data, name), name)
        if [task.task_id for task in record.tasks] != [name] or not is_id(name):
            raise RecordError(f"{name}.tasks: the file is not about the task that it is named for")
        judge(record.tasks[0], f"{name}.tasks[0]")
        return record.tasks[0]

    def _write(self, task: Task) -> None:
        record = TasksRecord(tasks=[task], boot=boot_id())
        self._checkpoints().write(task.task_id, pack(encode(record)))

    def _checkpoints(self) -> StateDirectory:
        if self._directory is None:
            self._directory = self._host.checkpoints.below("tasks")
        return self._directory
