"""The engine: which task goes on when, and what becomes of it when its worker or its child comes back.

It promises that a task which was accepted ends, as done or as undone, whatever ends meanwhile: a child, the daemon, the host.
What cannot be reached is tried again, for as long as it takes: a task never ends as undone while something of it may be left.
All of it runs in the loop's thread.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import msgspec

from drivers.base import Host
from drivers.errors import Failed, NotResponding
from drivers.storage.tasks import registry
from drivers.storage.tasks.book import Book
from drivers.storage.tasks.contract import EARLY, UNDOING, Move, State
from drivers.storage.tasks.errors import ResourceTimeout, TaskAborted
from drivers.storage.tasks.patience import Patience
from drivers.storage.tasks.queue import ready
from drivers.storage.tasks.record import Command, Task
from drivers.storage.tasks.runner import LASTING_TEXTS, MOST_TRIES, SPM, Runner, is_lasting, told
from drivers.storage.tasks.work import Outcome, Works

log = logging.getLogger("tasks")

AGAIN = 10.0
"""Seconds until storage that did not answer is asked again."""


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """How many tasks there may be, how many of them at work at once, and how long one waits for what others have."""

    kept: int = 500
    at_once: int = 10
    patience: float = 120.0
    """Seconds."""


class Attendance(msgspec.Struct, frozen=True, kw_only=True):
    """A client who waits for a task, and whose bytes its first command carries: at most two descriptors for it, to be closed by
    whoever has this, and who is to be told of the task's end, in the loop's thread."""

    fds: Sequence[int]
    ended: Callable[[Task], None]
    """Is told once: of the end or, if the task has to wait for its storage for long, or when a re-exec is wanted, of that."""
    holds: bool = True
    """Whether a re-exec has to wait for the task: it cannot be handed over."""


class Engine:
    def __init__(self, host: Host, limits: Callable[[], Limits], book: Book, runner: Runner) -> None:
        self.works = Works(host, self._child_ended)
        self.active: set[str] = set()
        """Tasks with a worker or a child at work."""
        self.in_workers: set[str] = set()
        self._host = host
        self._limits = limits
        self._book = book
        self._runner = runner
        self._resting: set[str] = set()
        """Tasks that wait for storage to come back."""
        self._last_tries: set[str] = set()
        """Tasks that end with the next try to undo them, whatever comes of that."""
        self._attendants: dict[str, Callable[[Task], None]] = {}
        self._patience = Patience()
        self._looking_again = False

    def resume_children(self) -> None:
        for task in self._book.all():
            if task.command is not None and not task.is_final:
                self.active.add(task.task_id)
                self.works.resume(task.task_id, task.run)

    def attend(self, task_id: str, attendance: Attendance) -> None:
        """Have a client on the line. Any thread, before the task is first scheduled."""
        self.works.lend(task_id, attendance.fds)
        self._attendants[task_id] = attendance.ended
        if attendance.holds:
            self._runner.attended.add(task_id)

    def waiting(self) -> list[str]:
        """Return the tasks with a client that have not begun: maybe they wait for one that will not go on now."""
        tasks = [task for task in self._book.unfinished() if task.task_id in self._runner.attended]
        return [task.task_id for task in tasks if task.task_id not in self.active and task.state in EARLY]

    def part(self) -> None:
        """A re-exec is wanted, which must not depend on storage: part clients from what waits for that, or does not stop."""
        for task in self._book.unfinished():
            if task.task_id in self._resting or (task.reverting and task.task_id in self.active):
                self._part_with_client(task)

    def schedule(self) -> None:
        runner = self._runner
        allowed = [task for task in self._book.unfinished() if runner.may_work(task)]
        resting = self._resting | {task.task_id for task in allowed if not runner.may_go(task)}
        limits = self._limits()
        free, blocked, crowded = ready(allowed, self.active, resting, limits.at_once)
        for task in blocked + crowded:
            if task.state is State.INIT:
                self._book.move(task, Move.PREPARE, Move.WAIT)
        for task in free:
            self._go(task)
        self._tire(blocked, limits.patience)

    def _tire(self, blocked: list[Task], patience: float) -> None:
        """Have those give up that have waited for others for too long."""
        exhausted, soonest = self._patience.judge(blocked, patience)
        for task in exhausted:
            resources = ", ".join(lock.name for lock in task.locks)
            error = ResourceTimeout(task=task.task_id, seconds=patience, resources=resources)
            self._abort(task, error.wire, str(error))
        if exhausted:
            self._host.in_loop(self.schedule)  # to have them end
        elif soonest is not None and not self._looking_again:
            self._looking_again = True
            self._host.later(soonest, self._look_again)

    def _look_again(self) -> None:
        self._looking_again = False
        self.schedule()

    def stop(self, task: Task) -> None:
        self._resting.discard(task.task_id)
        if task.state is State.WAIT_RECOVER and task.tries > MOST_TRIES:
            self._last_tries.add(task.task_id)
        if task.command is not None:
            self.works.stop(task.task_id, task.run)
        if task.task_id in self.active or task.is_final:
            if not self._runner.going:
                self._part_with_client(task)
            return  # it sees for itself, at the next step or when its command has ended
        if task.state not in UNDOING:
            self._abort(task, TaskAborted.wire, str(TaskAborted(task=task.task_id)))
        self.schedule()

    def halt(self, pool: str) -> None:
        for task in self._book.unfinished(pool):
            if task.tag == SPM and task.command is not None:
                self.works.stop(task.task_id, task.run)

    def measure(self, task: Task) -> None:
        """Bring the progress up to date. It never goes back, also when a step is made once more, after a crash too."""
        steps = task.steps or []
        if task.is_final or not (whole := sum(step.weight for step in steps)):
            return
        done = sum(step.weight for step in steps[: task.at])
        if task.command is not None and task.step is not None:
            done += task.step.weight * self.works.progress(task.task_id, task.run) / 100
        progress = max(task.progress, min(100.0, 100 * done / whole))
        if int(progress) > int(task.progress):
            self._book.update(task, progress=progress)  # before a client is told

    def _go(self, task: Task) -> None:
        match task.state:
            case State.INIT:
                self._book.move(task, Move.PREPARE, Move.QUEUE, Move.RUN)
            case State.PREPARING | State.ACQUIRING:
                self._book.move(task, Move.QUEUE, Move.RUN)
            case State.QUEUED:
                self._book.move(task, Move.RUN)
            case State.ABORTING | State.REABORTING | State.WAIT_RECOVER:
                self._book.move(task, Move.TURN_BACK, Move.UNDO)
            case State.REACQUIRING:
                self._book.move(task, Move.UNDO)
        self.active.add(task.task_id)
        self.in_workers.add(task.task_id)
        burst = self._runner.undo_steps if task.state is State.RECOVERING else self._runner.make_steps
        key = f"task/{task.task_id}"
        self._host.submit(
            lambda: burst(task), lambda value, error: self._came_back(task, value, error), key=key, timeout=0
        )

    def _came_back(self, task: Task, command: Command | None, error: Exception | None) -> None:
        self.in_workers.discard(task.task_id)
        if error is None and command is not None and not self._runner.must_pause(task):
            error = self._start_child(task, command)
            if error is None:
                return
        self.active.discard(task.task_id)
        if error is not None:
            self._went_wrong(task, error)
        elif task.reverting and task.state is State.RUNNING:
            self._abort(task, TaskAborted.wire, str(TaskAborted(task=task.task_id)))
        self._told_if_ended(task)
        self.schedule()

    def _start_child(self, task: Task, command: Command) -> Exception | None:
        self._book.update(task, command=command, run=task.run + 1)
        try:
            self.works.start(task.task_id, task.run, command.argv, leased=task.tag == SPM)
        except (NotResponding, OSError) as error:
            self._book.update(task, command=None)
            reason = f"{command.argv[0]} cannot be started: {error}"
            return error if isinstance(error, NotResponding) else Failed(action=command.action, reason=reason)
        return None

    def _child_ended(self, task_id: str, outcome: Outcome) -> None:
        self.active.discard(task_id)
        task = self._book.find(task_id)
        if task is None or task.command is None:
            return
        self.measure(task)
        command, code = task.command, outcome.code
        log.info("A task's child ended task=%s code=%s text=%s", task_id, code, outcome.text)
        if code in command.done_when:
            self._book.update(task, at=task.at + 1, command=None, tries=0)
        elif task.reverting or not self._runner.may_work(task):
            self._book.update(task, command=None)
        elif (code is None or code > 128) and task.tries < MOST_TRIES:
            # Killed, and not by us: once more, from scratch.
            self._book.update(task, command=None, tries=task.tries + 1)
        else:
            self._book.update(task, command=None)
            self._child_failed(task, command, outcome)
        if task.reverting and task.state is State.RUNNING:
            self._abort(task, TaskAborted.wire, str(TaskAborted(task=task_id)))
        self._told_if_ended(task)
        self.schedule()

    def _child_failed(self, task: Task, command: Command, outcome: Outcome) -> None:
        lasts = any(text in outcome.text for text in LASTING_TEXTS)
        if lasts and task.is_committed and task.step is not None and task.step.name in registry.PATIENT:
            self._book.update(task, message=outcome.text)
            self._rest(task, outcome.text)
            return
        full = lasts and LASTING_TEXTS[-1] not in outcome.text
        error = "NoSpaceLeftOnDomain" if full else command.error or registry.ERRORS.get(task.verb, "")
        text = f"{command.action} failed: {outcome.text or f'exit status {outcome.code}'}"
        if lasts and self._has_way_back(task):
            self._abort(task, error, text)
        else:
            self._turn_back(task, error, text)

    def _has_way_back(self, task: Task) -> bool:
        """Whether the point of no return is the very step that failed, and nothing of that was done."""
        step, before = task.step, (task.steps or [])[: task.at]
        return step is not None and step.name in registry.WHOLE and not any(done.pivot for done in before)

    def _went_wrong(self, task: Task, error: Exception) -> None:
        if not isinstance(error, OSError) and not hasattr(error, "fields"):
            log.error("Unexpected failure task=%s verb=%s", task.task_id, task.verb, exc_info=error)
        name, text = told(task, error)
        hangs = isinstance(error, NotResponding)
        may_pass = hangs or isinstance(error, OSError)
        has_tries = task.tries < MOST_TRIES
        if hangs and not self._runner.may_go(task):
            return  # a re-exec is wanted, and nobody waits for storage meanwhile; the step is made again after it
        waits = (hangs or is_lasting(error) or (may_pass and has_tries)) and task.task_id not in self._last_tries
        if task.state is State.RECOVERING and waits:
            self._book.move(task, Move.POSTPONE, tries=task.tries + 1)
            self._rest(task, text)
        elif task.state is State.RECOVERING:
            self._book.move(task, Move.FAIL, message=f"{task.message}; undoing it failed too: {text}")
            self._write_in_background(task)
        elif (may_pass and task.is_committed) or (hangs and has_tries):
            self._book.update(task, message=text, tries=task.tries + 1)
            self._rest(task, text)
        else:
            self._turn_back(task, name, text)

    def _turn_back(self, task: Task, error: str, text: str) -> None:
        if task.is_committed:
            self._book.move(task, Move.FAIL, error=error, message=text)
            self._write_in_background(task)
        else:
            self._abort(task, error, text)

    def _abort(self, task: Task, error: str, text: str) -> None:
        self._book.move(task, Move.ABORT, error=error, message=text, tries=0)

    def _rest(self, task: Task, reason: str) -> None:
        log.warning("A task waits for its storage task=%s reason=%s", task.task_id, reason)

        def again() -> None:
            self._resting.discard(task.task_id)
            self.schedule()

        self._resting.add(task.task_id)
        self._host.later(AGAIN, again)
        if task.tries > MOST_TRIES or not self._runner.going:
            self._part_with_client(task)

    def _part_with_client(self, task: Task) -> None:
        self._runner.attended.discard(task.task_id)
        self.works.take_back(task.task_id)
        if (tell := self._attendants.pop(task.task_id, None)) is not None:
            tell(task)

    def _told_if_ended(self, task: Task) -> None:
        if task.is_final:
            self.works.forget(task.task_id)
            self._last_tries.discard(task.task_id)
            self._part_with_client(task)
            self._host.event("task.ended", task=task.task_id, verb=task.verb, state=task.state, message=task.message)

    def _write_in_background(self, task: Task) -> None:
        self._host.submit(lambda: self._runner.dump(task), None, key=f"task/{task.task_id}", timeout=0)
