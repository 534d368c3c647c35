"""Verbs about tasks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from drivers.storage.tasks.contract import PUBLIC, RESULT, State
from drivers.storage.tasks.errors import NotSpm
from drivers.storage.tasks.record import Task
from drivers.storage.tasks.runner import SPM
from vdsmd.api import codes
from vdsmd.api.table import Reply, verb
from vdsmd.api.wire import Uuid

if TYPE_CHECKING:
    from vdsmd.daemon import Daemon

# Longer than what the storage gets to answer, so that it is said that it does not.
TIMEOUT = 150.0


@verb("getTaskStatus", gated=False, quick=True, message="OK", cli="task status")
def get_task_status(daemon: Daemon, taskId: Uuid) -> Reply:
    """Return how a task fares, as `taskStatus`: its `taskState` (init, running, aborting, cleaning, finished), its
    `taskResult` once it is finished (success; cleanSuccess: it failed, and nothing of it is left; cleanFailure: something is),
    and `code` and `message` of what went wrong. While it runs, the message says how far it is.
    """
    return {"taskStatus": _status(daemon.tasks.get(taskId))}


@verb("getTaskInfo", gated=False, quick=True, message="OK", cli="task info")
def get_task_info(daemon: Daemon, taskId: Uuid) -> Reply:
    """Return what a task does, as `TaskInfo`: its `id`, and the `verb` that began it."""
    return {"TaskInfo": _info(daemon.tasks.get(taskId))}


@verb("getAllTasks", gated=False, quick=True, message="OK", cli="task list")
def get_all_tasks(daemon: Daemon) -> Reply:
    """Return all tasks of this host, as `tasks`: by id, what each does and how it fares."""
    return {"tasks": {task.task_id: _details(task) for task in daemon.tasks.all()}}


@verb("getAllTasksInfo", gated=False, quick=True, message="OK")
def get_all_tasks_info(daemon: Daemon) -> Reply:
    """Return what the tasks of the SPM do, as `allTasksInfo`, by id. Only the SPM answers."""
    return {"allTasksInfo": {task.task_id: _info(task) for task in _of_spm(daemon)}}


@verb("getAllTasksStatuses", gated=False, quick=True, message="OK")
def get_all_tasks_statuses(daemon: Daemon) -> Reply:
    """Return how the tasks of the SPM fare, as `allTasksStatus`, by id. Only the SPM answers."""
    return {"allTasksStatus": {task.task_id: _status(task) for task in _of_spm(daemon)}}


@verb("stopTask", gated=False, quick=True, message="OK", cli="task stop")
def stop_task(daemon: Daemon, taskId: Uuid) -> Reply:
    """Have a task end, and what it has done so far undone. Answers at once; getTaskStatus tells when that is done."""
    daemon.tasks.stop(taskId)
    return {}


@verb("revertTask", gated=False, quick=True, message="OK", cli="task revert")
def revert_task(daemon: Daemon, taskId: Uuid) -> Reply:
    """Have what a task has done so far undone, as stopTask does. What has ended cannot be reverted."""
    daemon.tasks.stop(taskId, "reverted")
    return {}


@verb("clearTask", gated=False, key="taskId", message="OK", timeout=TIMEOUT, cli="task clear")
def clear_task(daemon: Daemon, taskId: Uuid) -> Reply:
    """Forget a task that has ended."""
    daemon.tasks.clear(taskId)
    return {}


def _of_spm(daemon: Daemon) -> list[Task]:
    if not daemon.tasks.is_spm():
        raise NotSpm(pool="any")
    return daemon.tasks.all(tag=SPM)


def _status(task: Task) -> dict[str, Any]:
    return {
        "taskID": task.task_id,
        "taskState": PUBLIC[task.state],
        "taskResult": RESULT.get(task.state, ""),
        "code": _code(task),
        "message": _message(task),
    }


def _info(task: Task) -> dict[str, Any]:
    return {"id": task.task_id, "verb": task.verb}


def _details(task: Task) -> dict[str, Any]:
    status = _status(task)
    # Releases differ in what they call the result.
    results = {"result": status["taskResult"], "taskResult": status["taskResult"]}
    told = {"state": status["taskState"], **results, "tag": task.tag}
    return _info(task) | told | {"code": status["code"], "message": status["message"]}


def _code(task: Task) -> int:
    from vdsmd.api import contract  # imported by now (vdsmd.deferred); not for the first answer

    return contract.numbers().get(task.error, codes.UNEXPECTED) if task.error else codes.OK


def _message(task: Task) -> str:
    if task.message:
        return task.message
    match task.state:
        case State.FINISHED:
            return "1 jobs completed successfully"
        case State.ACQUIRING:
            return "waiting for another task on the same image"
        case State.RUNNING if task.steps:
            return f"running step {min(task.at + 1, len(task.steps))} of {len(task.steps)}, {int(task.progress)} %"
    return "Task is initializing" if task.state is State.INIT else f"{task.state}"
