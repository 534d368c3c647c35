"""The life cycle of a task: its states, the moves between them, and what of it clients are told.

It promises that a task's life is only ever what `TABLE` says. The words are those of the wire and of the files in
`master/tasks`; states that only other implementations enter are known, so that their files can be read.
"""

from __future__ import annotations

from enum import StrEnum

from drivers.errors import Failed


class State(StrEnum):
    UNKNOWN = "unknown"
    INIT = "init"
    PREPARING = "preparing"
    BLOCKED = "blocked"
    ACQUIRING = "acquiring"
    QUEUED = "queued"
    RUNNING = "running"
    FINISHED = "finished"
    ABORTING = "aborting"
    WAIT_RECOVER = "waitrecover"
    RECOVERING = "recovering"
    REACQUIRING = "racquiring"
    REABORTING = "raborting"
    RECOVERED = "recovered"
    FAILED = "failed"


class Move(StrEnum):
    PREPARE = "prepare"
    WAIT = "wait for others on the same image"
    QUEUE = "queue"
    RUN = "run"
    FINISH = "finish"
    ABORT = "abort"
    TURN_BACK = "turn back"
    UNDO = "undo"
    POSTPONE = "wait for its storage"
    RECOVER = "end undone"
    FAIL = "fail"


EARLY = (State.INIT, State.PREPARING, State.BLOCKED, State.ACQUIRING, State.QUEUED)
"""Nothing has been done."""

TABLE: dict[tuple[State, Move], State] = {
    (State.INIT, Move.PREPARE): State.PREPARING,
    (State.PREPARING, Move.WAIT): State.ACQUIRING,
    (State.PREPARING, Move.QUEUE): State.QUEUED,
    (State.ACQUIRING, Move.QUEUE): State.QUEUED,
    (State.QUEUED, Move.RUN): State.RUNNING,
    (State.RUNNING, Move.FINISH): State.FINISHED,
    # What is past its point of no return cannot be undone.
    (State.RUNNING, Move.FAIL): State.FAILED,
    **{(state, Move.ABORT): State.ABORTING for state in (*EARLY, State.RUNNING)},
    (State.ABORTING, Move.TURN_BACK): State.REACQUIRING,
    (State.REABORTING, Move.TURN_BACK): State.REACQUIRING,
    (State.WAIT_RECOVER, Move.TURN_BACK): State.REACQUIRING,
    (State.REACQUIRING, Move.UNDO): State.RECOVERING,
    (State.RECOVERING, Move.POSTPONE): State.WAIT_RECOVER,
    (State.RECOVERING, Move.RECOVER): State.RECOVERED,
    (State.RECOVERING, Move.FAIL): State.FAILED,
}

FINAL = frozenset({State.FINISHED, State.RECOVERED, State.FAILED})
WAITING = frozenset({State.ACQUIRING, State.QUEUED})
UNDOING = frozenset({State.ABORTING, State.REABORTING, State.REACQUIRING, State.RECOVERING, State.WAIT_RECOVER})

PUBLIC: dict[State, str] = {
    State.UNKNOWN: "unknown",
    State.INIT: "init",
    State.PREPARING: "running",
    State.BLOCKED: "running",
    State.ACQUIRING: "running",
    State.QUEUED: "running",
    State.RUNNING: "running",
    State.FINISHED: "finished",
    State.ABORTING: "aborting",
    State.REABORTING: "aborting",
    State.WAIT_RECOVER: "cleaning",
    State.RECOVERING: "cleaning",
    State.REACQUIRING: "cleaning",
    State.RECOVERED: "finished",
    State.FAILED: "finished",
}
"""The state as clients are told it."""

RESULT: dict[State, str] = {
    State.FINISHED: "success",
    State.RECOVERED: "cleanSuccess",
    State.FAILED: "cleanFailure",
}
"""How a task has ended, as clients are told it. '' for one that has not."""


class ImpossibleMove(Failed):
    """The life cycle has no such move. Nothing was changed."""

    wire = "TaskStateTransitionError"
    message = "Task {task} is {state}: it cannot {move}"


def moved(task: str, state: State, move: Move) -> State:
    """Return the state after the move. Raises ImpossibleMove."""
    after = TABLE.get((state, move))
    if after is None:
        raise ImpossibleMove(task=task, state=state, move=move)
    return after
