"""Tasks: the owner of all long work on storage, and what can be asked of it.

    submit -> book (checkpoint) -> plan -> dump (master domain) -> step, step, step -> result
                                                     |-> a child, for a step that takes long; we go on when it has ended
    what went wrong, or was stopped -> undo the begun steps, last one first

Steps are made one after the other in a worker; between two of them is a safe point for a re-exec. It promises that questions
are answered from memory, and that a task is written down before anyone is told of it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import Any

from drivers.base import Host
from drivers.storage.tasks.book import Book
from drivers.storage.tasks.contract import UNDOING, State
from drivers.storage.tasks.engine import Attendance, Engine, Limits
from drivers.storage.tasks.errors import Departing, NotSpm, TaskNotCleared, TasksRunning, WrongTaskState
from drivers.storage.tasks.record import Lock, Task, TasksRecord
from drivers.storage.tasks.runner import SPM, Runner, Spool, inherited
from state.records import Record

log = logging.getLogger("tasks")


class Tasks:
    """An owner (`drivers.base.Owner`)."""

    name = "tasks"
    record: type[Record] = TasksRecord

    def __init__(self, host: Host, limits: Callable[[], Limits], context: Any) -> None:
        """`context` is what steps are given first: who knows the storage domains."""
        self.spools: Callable[[str], Spool | None] = lambda pool: None
        """Returns, in workers, where a pool's tasks are written down, None for nowhere; it may raise what storage raises."""
        self._host = host
        self._limits = limits
        self._book = Book(host)
        self._runner = Runner(self._book, context, lambda pool: self.spools(pool))
        self._engine = Engine(host, limits, self._book, self._runner)
        self._departing = False
        """Whether a re-exec is wanted."""

    # For verbs: any thread

    def submit(
        self,
        verb: str,
        args: dict[str, Any],
        *,
        pool: str = "",
        tag: str = SPM,
        locks: Sequence[Lock] = (),
        attendance: Attendance | None = None,
    ) -> str:
        """Take in a task and return its id. In a worker: what can be seen to be impossible is refused here and now.

        Raises NotSpm, TooManyTasks, TaskNotKept, with an attendance Departing, and whatever the plan of such a task raises.
        """
        if attendance is not None and self._departing:
            raise Departing(verb=verb)
        if tag == SPM and not self.is_spm(pool):
            raise NotSpm(pool=pool)
        names = {lock.name for lock in locks}
        if not any(names & {lock.name for lock in other.locks} for other in self.unfinished()):
            self._runner.rehearse(verb, args)  # only to hear of it; it is planned anew under the locks
        task = Task(task_id=_new_id(), verb=verb, args=args, pool=pool, tag=tag, locks=list(locks), created=time.time())
        self._book.add(task, self._limits().kept)
        if attendance is not None:
            self._engine.attend(task.task_id, attendance)
        self._host.event("task.created", task=task.task_id, verb=verb)
        self._host.in_loop(self._engine.schedule)
        return task.task_id

    def get(self, task_id: str) -> Task:
        """Return the task with its progress up to date. Raises NoSuchTask."""
        task = self._book.get(task_id)
        self._engine.measure(task)
        return task

    def all(self, tag: str | None = None) -> list[Task]:
        tasks = [task for task in self._book.all() if tag is None or task.tag == tag]
        for task in tasks:
            self._engine.measure(task)
        return tasks

    def unfinished(self, pool: str | None = None) -> list[Task]:
        return self._book.unfinished(pool)

    def is_spm(self, pool: str | None = None) -> bool:
        return bool(self._runner.spm) if pool is None else pool in self._runner.spm

    def stop(self, task_id: str, deed: str = "stopped") -> None:
        """Have the task undone, and end; one that has waited for its storage with that, for long, ends with the next try.
        Raises NoSuchTask; WrongTaskState for one that has ended or cannot turn back."""
        task = self._book.get(task_id)
        with self._book.lock:
            if task.is_final or (task.is_committed and task.state is State.RUNNING):
                raise WrongTaskState(task=task_id, state=task.state, deed=deed)
            if task.state not in UNDOING:
                self._book.update(task, reverting=True)
        self._host.in_loop(lambda: self._engine.stop(task))

    def clear(self, task_id: str) -> None:
        """Forget a task that has ended. In a worker. Raises NoSuchTask, WrongTaskState, TaskNotCleared, StorageHangs."""
        task = self._book.get(task_id)
        if not task.is_final:
            raise WrongTaskState(task=task_id, state=task.state, deed="cleared")
        try:
            self._runner.remove(task)
        except OSError as error:
            raise TaskNotCleared(task=task_id, reason=error) from error
        self._book.remove(task)
        self._engine.works.forget(task_id)

    # For pools: workers

    def spm_started(self, pool: str) -> None:
        """This host has become the SPM of the pool: take over what its SPMs have left, and go on with it.

        In a worker, before clients are told of the role. Raises what the storage raises; then nothing goes on.
        """
        dumped = self._runner.load(pool)
        if dumped is not None:
            self._merge(pool, dumped)
        with self._book.lock:
            self._runner.spm.add(pool)
        self._host.in_loop(self._engine.schedule)

    def spm_stopped(self, pool: str) -> None:
        """This host is the SPM no more: end what is at work for it, at once. What is written down is the next SPM's."""
        with self._book.lock:
            self._runner.spm.discard(pool)
        self._host.in_loop(lambda: self._engine.halt(pool))

    def refuse_while_running(self, pool: str) -> None:
        """Raise TasksRunning when tasks of the pool have not ended: an orderly spmStop waits for them."""
        tasks = self.unfinished(pool)
        if tasks:
            raise TasksRunning(pool=pool, tasks=", ".join(task.task_id for task in tasks))

    def is_halted(self, pool: str) -> bool:
        """Whether nothing is at work for the pool on this host any more."""
        return not any(task.pool == pool and task.task_id in self._engine.active for task in self._book.all())

    # An owner

    def snapshot(self) -> TasksRecord:
        return self._book.snapshot(sorted(self._runner.spm))

    def restore(self, record: Record) -> None:
        assert isinstance(record, TasksRecord)
        self._book.restore(record)
        self._runner.spm = set(record.spm)
        self._engine.resume_children()

    def recover(self) -> None:
        """After a crash this host is nobody's SPM until it is told so. What its children achieve meanwhile is noted."""
        self._book.recover()
        self._engine.resume_children()

    def start(self) -> None:
        self._departing = False
        if not self._runner.going:
            self._runner.going = True
            self._engine.schedule()

    def unsafe(self) -> str | None:
        if self._runner.attended:
            return f"task {min(self._runner.attended)} carries an image from or to a client"
        if not self._engine.in_workers:
            return None
        return f"task {min(self._engine.in_workers)} is in the middle of a step"

    def settle(self) -> None:
        """Steps of tasks that can go on after it wait for it; a client's image cannot, so the re-exec waits for that, unless it
        has not begun: then that ends."""
        self._departing = True
        self._runner.going = False
        for task_id in self._engine.waiting():
            self.stop(task_id)
        self._engine.part()

    def resume(self) -> None:
        self.start()

    def quiesce(self, deadline: float) -> None:
        self._runner.going = False

    # Help

    def _merge(self, pool: str, dumped: list[Task]) -> None:
        """What the master domain says of a task that has ended counts, and so does what it does not know any more."""
        known = {task.task_id for task in dumped}
        for task in dumped:
            ours = self._book.find(task.task_id)
            if ours is None or task.taken > ours.taken or (task.is_final and not ours.is_final):
                self._give_up(ours)
                self._take(inherited(task))
        for ours in self._book.all():
            if ours.pool == pool and ours.tag == SPM and ours.task_id not in known:
                self._miss(ours)

    def _take(self, task: Task) -> None:
        """Go on with a task that another SPM has begun; it must know of that, should it be the SPM again."""
        if not task.is_final:
            self._runner.dump(task)
        self._book.put(task)

    def _miss(self, task: Task) -> None:
        """The pool does not know a task of ours: it was cleared by another SPM, or we died before we could write it down."""
        if not task.dumped:
            self._book.update(task, steps=None)  # much may have changed since it was planned
            return
        log.warning("A task is not known to its pool any more task=%s verb=%s", task.task_id, task.verb)
        self._give_up(task)
        self._book.remove(task)

    def _give_up(self, task: Task | None) -> None:
        if task is not None and task.command is not None:
            self._host.in_loop(lambda: self._engine.works.stop(task.task_id, task.run))


def _new_id() -> str:
    with open("/proc/sys/kernel/random/uuid", encoding="ascii") as file:
        return file.read().strip()
