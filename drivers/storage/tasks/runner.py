"""Making and undoing the steps of one task after the other, in a worker, until there is a reason to stop.

It promises that what a step needs to be undone, and that there is no way back from it, is written down before it begins; and
that between two steps a re-exec, a client's stop or the end of the SPM role is heeded.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Any, Protocol

import msgspec

from drivers.errors import NotResponding
from drivers.storage.tasks import registry
from drivers.storage.tasks.book import Book
from drivers.storage.tasks.contract import UNDOING, Move, State
from drivers.storage.tasks.errors import ClientGone, TaskAborted, TaskUnplannable
from drivers.storage.tasks.record import Command, Task

MOST_TRIES = 5
"""How often something is tried that may pass (a full disk, a child that vanished), before that is taken for its answer."""
LASTING = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS})
"""What stays until somebody does something about it, and then is gone: it is waited for where there is no other way."""
LASTING_TEXTS = ("No space left", "Disk quota exceeded", "Read-only file system")
"""How programs tell of it."""
SPM = "spm"
"""The tag of tasks that only the SPM may do."""
HSM = "hsm"
"""The tag of tasks that any host may do."""


class Spool(Protocol):
    """Where a pool's tasks are written down for whichever host is its SPM next. All calls come from workers."""

    def write(self, task: Task) -> None: ...

    def remove(self, task_id: str) -> None: ...

    def load(self) -> list[Task]: ...


class Runner:
    """What is done for tasks in workers."""

    def __init__(self, book: Book, context: Any, spools: Callable[[str], Spool | None]) -> None:
        self._book = book
        self._context = context
        self._spools = spools
        self.going = False
        """Whether steps may begin: not while a re-exec is wanted."""
        self.spm: set[str] = set()
        """The pools of which this host is the SPM."""
        self.attended: set[str] = set()
        """Tasks with a client on the line, who cannot be handed over: a re-exec waits for their end, so they go on."""

    def rehearse(self, verb: str, args: dict[str, Any]) -> None:
        """Raise what stands in the way of such a task, as things are now."""
        registry.PLANS[verb](self._context, **args)

    def may_work(self, task: Task) -> bool:
        return task.tag != SPM or task.pool in self.spm

    def must_pause(self, task: Task) -> bool:
        return not self.may_go(task) or (task.reverting and not task.is_committed) or not self.may_work(task)

    def may_go(self, task: Task) -> bool:
        return self.going or task.task_id in self.attended

    def make_steps(self, task: Task) -> Command | None:
        """Make steps until one needs a child, which is returned, or nothing more is to be done now."""
        if task.verb in registry.ATTENDED and task.task_id not in self.attended and not task.is_committed:
            raise ClientGone(task=task.task_id)  # since then somebody may have brought what is newer
        if task.steps is None:
            self._plan(task)
        while (step := task.step) is not None:
            if self.must_pause(task):
                return None
            if step.pivot or step.fence:
                self.dump(task)  # whoever takes over must know that we came this far
            command = self._begin(task, step.name, step.args)
            if command is not None:
                return command
            self._book.update(task, at=task.at + 1, tries=0, message="")
        if self.may_work(task):
            self._end(task, Move.FINISH, State.FINISHED, progress=100.0, message="")
        return None

    def undo_steps(self, task: Task) -> None:
        """Undo what has begun, last step first. What fails is left, for the sake of the rest, and raised at the end."""
        failure: Exception | None = None
        for undo in task.undoing():
            if not self.may_go(task) or not self.may_work(task):
                return
            try:
                self._known(task, registry.UNDOS, undo.name)(self._context, *undo.args)
            except NotResponding:
                raise
            except Exception as error:
                # Whatever it is, unless it may pass, the other steps must be undone; it is told at the end.
                if is_lasting(error) or (isinstance(error, OSError) and task.tries < MOST_TRIES):
                    raise
                failure = failure or error
            self._book.update(task, undone=task.undone + 1)
        if failure is not None:
            raise failure
        self._end(task, Move.RECOVER, State.RECOVERED)

    def dump(self, task: Task) -> None:
        """Write the task down for the next SPM."""
        spool = self._spools(task.pool) if task.tag == SPM else None
        if spool is not None:
            spool.write(msgspec.structs.replace(task, dumped=True))
            task.dumped = True

    def remove(self, task: Task) -> None:
        """Have the next SPM not know of it."""
        spool = self._spools(task.pool) if task.tag == SPM and self.may_work(task) else None
        if spool is not None:
            spool.remove(task.task_id)

    def load(self, pool: str) -> list[Task] | None:
        """Return what the SPMs of a pool have written down; None where nobody writes."""
        spool = self._spools(pool)
        return None if spool is None else spool.load()

    def _plan(self, task: Task) -> None:
        steps = self._known(task, registry.PLANS, task.verb)(self._context, **task.args)
        self._book.update(task, steps=steps)
        self.dump(task)
        self._book.update(task)

    def _begin(self, task: Task, name: str, args: dict[str, Any]) -> Command | None:
        if name in registry.WORKS:
            return registry.WORKS[name](self._context, **args)
        self._known(task, registry.DEEDS, name)(self._context, **args)
        return None

    def _end(self, task: Task, move: Move, state: State, **fields: Any) -> None:
        """Write the end down where the next SPM finds it, before anyone is told of it."""
        self.dump(msgspec.structs.replace(task, state=state, **fields))
        self._book.move(task, move, **fields)

    def _known(self, task: Task, table: dict[str, Callable[..., Any]], name: str) -> Callable[..., Any]:
        if name not in table:
            raise TaskUnplannable(task=task.task_id, name=name)
        return table[name]


def is_lasting(error: Exception) -> bool:
    """Whether the storage is full, or cannot be written."""
    return isinstance(error, OSError) and error.errno in LASTING


def told(task: Task, error: Exception) -> tuple[str, str]:
    """Return what clients are told of an error: the name of its code, and a text."""
    general = registry.ERRORS.get(task.verb, "")
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "NoSpaceLeftOnDomain", str(error)
    return getattr(error, "wire", "") or general, str(error) or type(error).__name__


def inherited(task: Task) -> Task:
    """Return a task of another SPM as ours: to be undone, or, past its point of no return, to be completed."""
    task = msgspec.structs.replace(task, command=None, run=0, tries=0, taken=task.taken + 1, dumped=True)
    if task.is_final or (task.is_committed and task.state not in UNDOING):
        return task
    steps = task.begun()
    told = {"error": TaskAborted.wire, "message": "The host that had begun it is not the SPM any more"}
    given_up: dict[str, Any] = {} if task.error else told
    return msgspec.structs.replace(task, state=State.ABORTING, steps=steps, at=len(steps), undone=0, **given_up)
