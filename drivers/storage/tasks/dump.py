"""Tasks as they are written down in a pool's master domain, `master/tasks/<task>/`, for whichever host is its SPM next.

    <task>.task   <task>.job.0   <task>.recover.<N>   <task>.result     lines `field = value`, for every implementation
    <task>.plan                                                         the whole of it, for ours

It promises that a task's directory is whole at every moment: it is built as `<task>.temp`, the one before it becomes
`<task>.backup`, and a reader takes what is complete. What is to be done by whoever recovers the task stands in the `recover`
files, last one first: what undoes its steps, or past the point of no return what completes them.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Mapping

import msgspec

from drivers.storage.helpers.files import Files
from drivers.storage.tasks.contract import RESULT
from drivers.storage.tasks.record import Task, is_id, judge
from state.records import RecordError

log = logging.getLogger("tasks")

TEMP = ".temp"
BACKUP = ".backup"
_EQUALS = "_eq_"
_LONGEST = 1 << 24


def lines(fields: Mapping[str, object]) -> bytes:
    """Return fields in the form of these files."""
    shown = {key: " ".join(str(value).splitlines()).replace("=", _EQUALS) for key, value in fields.items()}
    return "".join(f"{key} = {value}\n" for key, value in shown.items()).encode()


def fields(data: bytes) -> dict[str, str]:
    """Return what such a file says."""
    pairs = (line.partition("=") for line in data.decode("utf-8", "replace").splitlines())
    return {key.strip(): value.strip().replace(_EQUALS, "=") for key, equals, value in pairs if equals}


def encode(task: Task, number: Callable[[str], int]) -> dict[str, bytes]:
    """Return the task's files, by name. `number` knows the status codes by their names."""
    recoveries = _recoveries(task)
    name = task.task_id
    files = {
        f"{name}.task": lines(_described(task, len(recoveries))),
        f"{name}.job.0": lines({"name": task.verb, "runcmd": task.verb}),
        f"{name}.result": lines(
            {
                "code": number(task.error) if task.error else 0,
                "message": task.message,
                "result": RESULT.get(task.state, ""),
            }
        ),
        f"{name}.plan": msgspec.json.encode(task),
    }
    for count, (function, params) in enumerate(recoveries):
        told = {"name": function, "moduleName": "vdsmd", "object": "steps", "function": function, "params": params}
        files[f"{name}.recover.{count}"] = lines(told)
    return files


def _described(task: Task, recoveries: int) -> dict[str, object]:
    return {
        "id": task.task_id,
        "name": task.verb,
        "tag": task.tag,
        "store": "",
        "recoveryPolicy": "auto",
        "persistPolicy": "auto",
        "cleanPolicy": "manual",
        "priority": "low",
        "state": task.state,
        "njobs": 1,
        "nrecoveries": recoveries,
        "metadataVersion": 1,
    }


def _recoveries(task: Task) -> list[tuple[str, str]]:
    """Return what is to be done by whoever recovers the task, the last one first."""
    if task.is_final:
        return []
    if task.is_committed:
        left = (task.steps or [])[task.at :]
        return [(step.name, ",".join(map(str, step.args.values()))) for step in reversed(left)]
    undos = [step.undo for step in task.begun() if step.undo is not None]
    return [(undo.name, ",".join(undo.args)) for undo in undos]


def decode(task_id: str, files: Mapping[str, bytes | None]) -> Task:
    """Return a task of ours. Raises RecordError when it is none, or not whole."""
    plan = files.get(f"{task_id}.plan")
    if not plan:
        raise RecordError(f"{task_id}: another implementation wrote it; what undoes it is not known here")
    try:
        task = msgspec.json.decode(plan, type=Task)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise RecordError(f"{task_id}.plan: {error}") from error
    judge(task, task_id)
    if task.task_id != task_id:
        raise RecordError(f"{task_id}.plan: it is about another task")
    return task


class Spool:
    """The tasks of a pool, in the directory `path` of its master domain. For workers."""

    def __init__(self, files: Files, number: Callable[[str], int], path: str = "master/tasks") -> None:
        """`number` returns the number of a status code, by its name."""
        self._files = files
        self._number = number
        self._path = path

    def write(self, task: Task) -> None:
        """Put the task there as it is now. Raises OSError and StorageHangs."""
        place = f"{self._path}/{task.task_id}"
        self._files.make_directory(self._path, parents=True)
        self._files.remove_tree(place + TEMP)
        self._files.make_directory(place + TEMP)
        for name, data in encode(task, self._number).items():
            self._files.create(f"{place}{TEMP}/{name}", data)
        self._files.remove_tree(place + BACKUP)
        with contextlib.suppress(FileNotFoundError):
            self._files.rename(place, place + BACKUP)
        self._files.rename(place + TEMP, place)
        self._files.remove_tree(place + BACKUP)

    def remove(self, task_id: str) -> None:
        for suffix in (TEMP, BACKUP, ""):
            self._files.remove_tree(f"{self._path}/{task_id}{suffix}")

    def load(self) -> list[Task]:
        """Return all tasks there, oldest first. What cannot be used is left where it is, with a message."""
        try:
            names = self._files.names(self._path)
        except FileNotFoundError:
            return []
        found = {name.removesuffix(BACKUP): name for name in names if name.endswith(BACKUP)}
        found |= {name: name for name in names if is_id(name)}
        tasks = []
        for task_id, name in found.items():
            try:
                tasks.append(decode(task_id, self._read(f"{self._path}/{name}")))
            except RecordError as error:
                log.warning("A task in the master domain cannot be used task=%s reason=%s", task_id, error)
        return sorted(tasks, key=lambda task: task.created)

    def _read(self, place: str) -> dict[str, bytes | None]:
        names = self._files.names(place)
        return dict(zip(names, self._files.read_many([f"{place}/{name}" for name in names], _LONGEST), strict=True))
