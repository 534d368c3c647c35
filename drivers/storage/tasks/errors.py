"""What can go wrong with tasks themselves. `wire` is the name of the code that clients know it by."""

from __future__ import annotations

from drivers.errors import Busy, Failed, NotFound


class NoSuchTask(NotFound):
    message = "Task does not exist: {task}"
    wire = "UnknownTask"


class WrongTaskState(Busy):
    message = "Task {task} is {state}: it cannot be {deed}"
    wire = "TaskStateError"


class TooManyWait(Busy):
    message = "{limit} callers are waiting already, each for a task of its own, and no more may"
    wire = "AddTaskError"


class TooManyTasks(Busy):
    message = "{verb} is refused: this host has {limit} tasks, and no more are allowed until some are cleared"
    wire = "AddTaskError"


class TaskNotKept(Failed):
    message = "{verb} is refused: its task cannot be written down: {reason}"
    wire = "TaskPersistError"


class TaskNotCleared(Failed):
    message = "Task {task} cannot be cleared: {reason}"
    wire = "TaskClearError"


class TaskAborted(Failed):
    message = "Task {task} was stopped"
    wire = "TaskAborted"


class ClientGone(TaskAborted):
    message = "Nobody waits for task {task} any more"


class ResourceTimeout(Failed):
    message = "Task {task} has waited for {seconds:.0f} s for what other tasks have: {resources}"
    wire = "ResourceTimeout"


class TaskUnplannable(Failed):
    """A record names what this release does not know."""

    message = "Task {task} needs {name}, which this release does not know"
    wire = "InvalidTask"


class NotSpm(Busy):
    message = "This host is not the SPM of storage pool {pool}"
    wire = "SpmStatusError"


class Departing(Busy):
    message = "{verb} is refused: the daemon is about to re-exec, which no connection survives; try again in a moment"
    wire = "ImagesActionError"


class TasksRunning(Busy):
    message = "Storage pool {pool} has tasks that have not ended: {tasks}"
    wire = "TaskInProgress"
