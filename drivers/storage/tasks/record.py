"""What is kept of a task: enough for another run of the daemon, or another release of it, to go on with it.

It promises that a task is plain data: its steps are names of `registry` with plain arguments, the whole plan is written down
before the first step begins, and what undoes a step is written down before the step is made.
"""

from __future__ import annotations

import itertools
from typing import Any

import msgspec

from drivers.storage.tasks.contract import FINAL, State
from state.records import Part, Record, RecordError


class Undo(Part, frozen=True, kw_only=True):
    """What takes a step back: a name of `registry`, and its arguments in order. Undoing what was never done is allowed."""

    name: str
    args: list[str] = []


class Step(Part, frozen=True, kw_only=True):
    """One step. `weight`: its share of the task's progress. `pivot`: from its beginning there is no way back, only on.
    `fence`: its undoing, and that of those after it, would do harm had they not begun."""

    name: str
    args: dict[str, Any] = {}
    undo: Undo | None = None
    weight: float = 0.0
    pivot: bool = False
    fence: bool = False


class Lock(Part, frozen=True, kw_only=True):
    """What a task needs for itself, or shares with others who only read it."""

    name: str
    shared: bool = False


class Command(Part, frozen=True, kw_only=True):
    """What a child is to do. `error`: what it means when it fails, a name of the contract's codes. `done_when`: the exit
    statuses that mean success."""

    argv: list[str]
    error: str = ""
    action: str = "work on an image"
    done_when: tuple[int, ...] = (0,)


class Task(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """One task. `at` counts the steps that were made; the one of that number may have begun.

    `steps` is None until they have been planned: that needs the locks. `undone` counts the steps taken back. `error` and
    `message` say what went wrong: a name of the contract's status codes, and a text. `created` and `ended`: seconds since
    the epoch.
    """

    task_id: str
    verb: str
    args: dict[str, Any] = {}
    pool: str = ""
    tag: str = ""
    locks: list[Lock] = []
    state: State = State.INIT
    steps: list[Step] | None = None
    taken: int = 0
    """How often another SPM took it over: whoever has it from before must not go on with it."""
    dumped: bool = False
    """Whether it has been written down in its pool, for other hosts."""
    at: int = 0
    undone: int = 0
    command: Command | None = None
    """What the child of the step `at` is doing, or did when we last knew."""
    run: int = 0
    """How often a child was started for the step `at`: its files are named by it."""
    tries: int = 0
    """How often the child of the step `at` ended without our knowing how."""
    progress: float = 0.0
    error: str = ""
    message: str = ""
    result: dict[str, Any] = {}
    created: float = 0.0
    ended: float = 0.0
    reverting: bool = False
    """A client asked to have it stopped or reverted."""

    @property
    def is_final(self) -> bool:
        return self.state in FINAL

    @property
    def is_committed(self) -> bool:
        """Whether it is past its point of no return."""
        return any(step.pivot for step in (self.steps or [])[: self.at + 1])

    @property
    def step(self) -> Step | None:
        """The step to be made now, None when all are made."""
        steps = self.steps or []
        return steps[self.at] if self.at < len(steps) else None

    def begun(self) -> list[Step]:
        """Return the steps that may have begun, for whoever knows only what was written down in the pool: not each step is."""
        steps = self.steps or []
        rest = itertools.takewhile(lambda step: not (step.pivot or step.fence), steps[self.at + 1 :])
        return [*steps[: self.at + 1], *rest]

    def undoing(self) -> list[Undo]:
        """Return what is left to be undone, in the order in which it must be."""
        begun = (self.steps or [])[: self.at + 1]
        undos = [step.undo for step in reversed(begun) if step.undo is not None]
        return undos[self.undone :]


class TasksRecord(Record):
    """All tasks of this host. A checkpoint is the same with one task, and its boot."""

    tasks: list[Task] = []
    spm: list[str] = []
    """The pools of which this host was the SPM."""
    boot: str = ""


def judge(task: Task, where: str) -> None:
    """Raise RecordError for a task that could not be gone on with."""
    if not is_id(task.task_id):
        raise RecordError(f"{where}.task_id: is not the id of a task")
    steps = task.steps or []
    if not 0 <= task.at <= len(steps) or task.undone < 0:
        raise RecordError(f"{where}.at: there is no such step")
    if not 0 <= task.progress <= 100:
        raise RecordError(f"{where}.progress: is not a percentage")


def is_id(text: str) -> bool:
    """Whether the text can name a file and a directory, and nothing beyond."""
    return 0 < len(text) <= 64 and text.replace("-", "").isalnum() and text.isascii()
