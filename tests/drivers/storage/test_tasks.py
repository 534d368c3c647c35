"""Tasks: made, queued, stopped, undone, carried over a re-exec and through a crash. Real children, no storage."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from drivers.storage.errors import StorageHangs
from drivers.storage.tasks import registry, tether
from drivers.storage.tasks.contract import FINAL, PUBLIC, TABLE, ImpossibleMove, Move, State, moved
from drivers.storage.tasks.engine import Attendance, Limits
from drivers.storage.tasks.errors import NoSuchTask, NotSpm, TaskNotCleared, TooManyTasks, WrongTaskState
from drivers.storage.tasks.record import Command, Step, Task, Undo
from tests.drivers.storage.stand import Ground
from tests.drivers.storage.tasks_stand import PATIENCE, POOL, SD, Farm
from tests.until import until

LOG: list[str] = []
GATES: dict[str, threading.Event] = {}
FAULTS: dict[str, list[Exception]] = {}


def note(what: str) -> None:
    if FAULTS.get(what):
        raise FAULTS[what].pop(0)
    LOG.append(what)


@registry.deed("test.do")
def do(_context: Any, what: str) -> None:
    note(what)


@registry.deed("test.wait")
def wait(_context: Any, what: str) -> None:
    assert GATES.setdefault(what, threading.Event()).wait(PATIENCE)
    note(what)


@registry.work("test.sh")
def sh(_context: Any, script: str) -> Command:
    return Command(argv=["/bin/sh", "-c", script], error="VolumeCopyError", action="a script")


@registry.undo("test.undo")
def undo(_context: Any, what: str) -> None:
    note(f"-{what}")


@registry.plan("test", error="VolumeCreationError")
def plan(_context: Any, steps: list[dict[str, Any]]) -> list[Step]:
    note("plan")
    return [
        Step(
            name=step["name"],
            args=step["args"],
            undo=Undo(name="test.undo", args=[step["undo"]]) if "undo" in step else None,
            pivot=step.get("pivot", False),
            weight=step.get("weight", 0.0),
        )
        for step in steps
    ]


def a(what: str, **fields: Any) -> dict[str, Any]:
    return {"name": "test.do", "args": {"what": what}, "undo": what, **fields}


def gate(what: str, **fields: Any) -> dict[str, Any]:
    return {"name": "test.wait", "args": {"what": what}, "undo": what, **fields}


def script(text: str, **fields: Any) -> dict[str, Any]:
    return {"name": "test.sh", "args": {"script": text}, **fields}


def forget() -> None:
    LOG.clear()
    GATES.clear()
    FAULTS.clear()


@pytest.fixture
def farm(tmp_path: Path) -> Iterator[Farm]:
    forget()
    farm = Farm(tmp_path)
    yield farm
    for event in GATES.values():
        event.set()
    farm.close()


def test_steps_are_made_in_order(farm: Farm) -> None:
    task = farm.done(farm.submit("test", steps=[a("1"), a("2"), a("3")]))
    assert LOG == ["plan", "plan", "1", "2", "3"]
    assert (task.progress, task.at) == (100.0, 3)
    assert [name for name, _ in farm.ground.events] == ["task.created", "task.ended"]


def test_a_failed_step_is_undone_with_those_before_it(farm: Farm) -> None:
    FAULTS["2"] = [OSError(28, "No space left on device")]
    task = farm.ended(farm.submit("test", steps=[a("1"), a("2"), a("3")]))
    assert (task.state, task.error) == (State.RECOVERED, "NoSpaceLeftOnDomain")
    assert LOG[2:] == ["1", "-2", "-1"]


def test_what_has_no_code_of_its_own_has_that_of_the_verb(farm: Farm) -> None:
    FAULTS["1"] = [RuntimeError("what")]
    assert farm.ended(farm.submit("test", steps=[a("1")])).error == "VolumeCreationError"


def test_undoing_that_fails_is_told_and_does_not_keep_the_rest(farm: Farm) -> None:
    FAULTS["3"], FAULTS["-2"] = [RuntimeError("three")], [RuntimeError("two")]
    task = farm.ended(farm.submit("test", steps=[a("1"), a("2"), a("3")]))
    assert task.state is State.FAILED and "three; undoing it failed too: two" in task.message
    assert LOG[-2:] == ["-3", "-1"]


def test_a_plan_that_is_impossible_is_refused_at_once(farm: Farm) -> None:
    FAULTS["plan"] = [WrongTaskState(task="x", state="y", deed="z")]
    with pytest.raises(WrongTaskState):
        farm.submit("test", steps=[])
    assert farm.tasks.all() == []


def test_storage_that_hangs_is_waited_for_while_undoing(farm: Farm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("drivers.storage.tasks.engine.AGAIN", 0.05)
    FAULTS["2"], FAULTS["-1"] = [RuntimeError("two")], [StorageHangs(what="x", reason="y")] * 3
    task = farm.ended(farm.submit("test", steps=[a("1"), a("2")]))
    assert task.state is State.RECOVERED and LOG[2:] == ["1", "-2", "-1"]


def test_past_the_pivot_storage_that_hangs_is_waited_for(farm: Farm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("drivers.storage.tasks.engine.AGAIN", 0.05)
    FAULTS["3"] = [StorageHangs(what="x", reason="y")] * 3
    farm.done(farm.submit("test", steps=[a("1"), a("2", pivot=True), a("3")]))
    assert LOG[2:] == ["1", "2", "3"]


def test_past_the_pivot_nothing_is_undone(farm: Farm) -> None:
    FAULTS["3"] = [RuntimeError("three")]
    task = farm.ended(farm.submit("test", steps=[a("1"), a("2", pivot=True), a("3")]))
    assert (task.state, LOG[2:]) == (State.FAILED, ["1", "2"])


def test_tasks_on_one_thing_wait_for_each_other(farm: Farm) -> None:
    first = farm.submit("test", ["x"], steps=[gate("1")])
    second = farm.submit("test", ["x"], steps=[a("2")])
    third = farm.submit("test", ["y"], steps=[a("3")])
    farm.done(third)
    assert farm.tasks.get(second).state is State.ACQUIRING
    GATES["1"].set()
    farm.done(first), farm.done(second)
    assert LOG[-2:] == ["plan", "2"]


def test_who_waits_for_too_long_for_what_another_has_gives_up(tmp_path: Path) -> None:
    forget()
    farm = Farm(tmp_path, limits=Limits(at_once=2, patience=0.2))
    try:
        ids = [farm.submit("test", ["x"], steps=[gate("1")])]
        task = farm.ended(farm.submit("test", ["x"], steps=[a("2")]))
        assert (task.state, task.error) == (State.RECOVERED, "ResourceTimeout") and "2" not in LOG
        assert task.message.endswith("for what other tasks have: x")
        # Who waits for nothing but his turn does not give up.
        ids += [farm.submit("test", ["y"], steps=[gate("3")]), farm.submit("test", ["z"], steps=[a("4")])]
        until(lambda: farm.tasks.get(ids[2]).state is State.ACQUIRING, PATIENCE)
        farm.limits = Limits(at_once=2, patience=0.0)
        farm.ground.inside(farm.tasks._engine.schedule)
        until(lambda: {"1", "3"} <= set(GATES), PATIENCE)
        for event in GATES.values():
            event.set()
        for task_id in ids:
            farm.done(task_id)
    finally:
        for event in GATES.values():
            event.set()
        farm.close()


def test_no_more_than_allowed_at_once_and_in_all(tmp_path: Path) -> None:
    forget()
    farm = Farm(tmp_path, limits=Limits(kept=3, at_once=1))
    try:
        ids = [farm.submit("test", steps=[gate(name)]) for name in "123"]
        with pytest.raises(TooManyTasks):
            farm.submit("test", steps=[])
        until(lambda: "1" in GATES)
        assert "2" not in GATES
        for name in "123":
            GATES.setdefault(name, threading.Event()).set()
        for task_id in ids:
            farm.done(task_id)
        farm.tasks.clear(ids[0])
        farm.done(farm.submit("test", steps=[]))
    finally:
        farm.close()


def test_a_child_that_succeeds_and_one_that_fails(farm: Farm) -> None:
    farm.done(farm.submit("test", steps=[script("exit 0"), a("2")]))
    task = farm.ended(farm.submit("test", steps=[a("1"), script("echo it is broken >&2; exit 3")]))
    assert (task.state, task.error) == (State.RECOVERED, "VolumeCopyError")
    assert task.message == "a script failed: it is broken"
    full = farm.ended(farm.submit("test", steps=[script("echo No space left on device >&2; exit 1")]))
    assert full.error == "NoSpaceLeftOnDomain"


def test_a_program_that_is_not_there_is_told(farm: Farm) -> None:
    task = farm.ended(farm.submit("test", steps=[script("exec /no/such/program")]))
    assert "not found" in task.message and task.state is State.RECOVERED


def test_progress_comes_from_the_child_and_never_goes_back(farm: Farm, tmp_path: Path) -> None:
    more = f"echo '(20.00/100%)'; until [ -e {tmp_path}/go ]; do sleep 0.05; done; echo '(10.00/100%)'; kill -9 $$"
    once = f"[ -e {tmp_path}/go ] && exit 0; {more}"
    task_id = farm.submit("test", steps=[script("exit 0", weight=1.0), script(once, weight=1.0)])
    until(lambda: farm.tasks.get(task_id).progress == 60.0, PATIENCE)
    (tmp_path / "go").touch()
    seen = [farm.tasks.get(task_id).progress]
    farm.done(task_id)
    assert min(seen) >= 60.0 and farm.tasks.get(task_id).progress == 100.0


def test_progress_that_was_told_is_not_taken_back_by_a_crash(farm: Farm, tmp_path: Path) -> None:
    wait = f"until [ -e {tmp_path}/go ]; do sleep 0.05; done"
    told = f"[ -e {tmp_path}/again ] || echo '(60.00/100%)'; touch {tmp_path}/again; {wait}"
    task_id = farm.submit("test", steps=[script(told, weight=1.0)])
    until(lambda: farm.tasks.get(task_id).progress == 60.0, PATIENCE)
    running(farm, task_id)
    for pid in farm.workers_of(task_id):
        os.kill(pid, signal.SIGKILL)
    until(lambda: farm.tasks.get(task_id).run == 2, PATIENCE)
    farm.crash()
    assert farm.tasks.get(task_id).progress == 60.0
    (tmp_path / "go").touch()
    farm.done(task_id)


def running(farm: Farm, task_id: str) -> int:
    """Return the pid of the task's command, once it runs."""
    return until(lambda: farm.workers_of(task_id)[1:], PATIENCE)[0]


def test_stopping_ends_the_child_also_one_that_is_frozen(farm: Farm) -> None:
    task_id = farm.submit("test", steps=[a("1"), script("exec sleep 1000"), a("3")])
    pid = running(farm, task_id)
    os.kill(pid, signal.SIGSTOP)
    farm.tasks.stop(task_id)
    task = farm.ended(task_id)
    assert (task.state, task.error) == (State.RECOVERED, "TaskAborted")
    assert LOG[2:] == ["1", "-1"] and not os.path.exists(f"/proc/{pid}")


def test_stopping_what_waits_and_what_is_in_a_step(farm: Farm) -> None:
    first = farm.submit("test", ["x"], steps=[gate("1"), a("2")])
    second = farm.submit("test", ["x"], steps=[a("3")])
    until(lambda: "1" in GATES, PATIENCE)
    farm.tasks.stop(first)
    farm.tasks.stop(second)
    GATES["1"].set()
    assert farm.ended(first).state is State.RECOVERED and farm.ended(second).state is State.RECOVERED
    assert LOG[2:] == ["1", "-2", "-1"]


def test_what_has_ended_is_not_stopped_and_what_runs_not_cleared(farm: Farm) -> None:
    task_id = farm.submit("test", steps=[gate("1")])
    with pytest.raises(WrongTaskState):
        farm.tasks.clear(task_id)
    until(lambda: "1" in GATES, PATIENCE)
    GATES["1"].set()
    farm.done(task_id)
    with pytest.raises(WrongTaskState):
        farm.tasks.stop(task_id)
    farm.tasks.clear(task_id)
    for deed in (farm.tasks.get, farm.tasks.stop, farm.tasks.clear):
        with pytest.raises(NoSuchTask):
            deed(task_id)


def test_what_is_being_undone_is_neither_stopped_again_nor_cleared(farm: Farm) -> None:
    FAULTS["2"], FAULTS["-1"] = [OSError(5, "broken")], [StorageHangs(what="x", reason="y")] * 9
    task_id = farm.submit("test", steps=[a("1"), a("2")])
    until(lambda: farm.tasks.get(task_id).state is State.WAIT_RECOVER, PATIENCE)
    farm.tasks.stop(task_id)  # it is at that already
    farm.tasks.stop(task_id, "reverted")
    with pytest.raises(WrongTaskState, match="cannot be cleared"):
        farm.tasks.clear(task_id)
    FAULTS.clear()
    farm.ground.inside(lambda: farm.tasks._engine.stop(farm.tasks.get(task_id)))
    task = farm.ended(task_id)
    assert (task.state, task.error, task.reverting) == (State.RECOVERED, "VolumeCreationError", False)
    with pytest.raises(WrongTaskState, match="cannot be reverted"):
        farm.tasks.stop(task_id, "reverted")
    farm.tasks.clear(task_id)


def test_storage_that_is_full_is_waited_for_while_undoing(farm: Farm, monkeypatch: pytest.MonkeyPatch) -> None:
    """However often it is looked at: what is left there would be found by nobody."""
    monkeypatch.setattr("drivers.storage.tasks.engine.AGAIN", 0.001)
    FAULTS["2"], FAULTS["-1"] = [OSError(28, "full")], [OSError(30, "read-only")] * 20
    task = farm.ended(farm.submit("test", steps=[a("1"), a("2")]))
    assert (task.state, task.error) == (State.RECOVERED, "NoSpaceLeftOnDomain") and not FAULTS["-1"]


def test_a_task_that_cannot_be_forgotten_stays(farm: Farm) -> None:
    task_id = farm.submit("test", steps=[a("1")])
    farm.done(task_id)

    def full(op: str, _arguments: dict[str, Any]) -> None:
        if op == "remove_tree":
            raise OSError(30, "read-only")

    farm.local.remotes[SD].before = full
    with pytest.raises(TaskNotCleared):
        farm.tasks.clear(task_id)
    farm.local.remotes[SD].before = lambda op, arguments: None
    farm.tasks.clear(task_id)


def test_a_child_is_adopted_over_a_reexec(farm: Farm, tmp_path: Path) -> None:
    task_id = farm.submit("test", steps=[script(f"until [ -e {tmp_path}/go ]; do sleep 0.05; done"), a("2")])
    pid = running(farm, task_id)
    for _ in range(5):
        farm.reexec()
        assert farm.tasks.get(task_id).state is State.RUNNING and farm.tasks.is_spm(POOL)
    assert running(farm, task_id) == pid and farm.tasks.get(task_id).run == 1
    (tmp_path / "go").touch()
    farm.done(task_id)
    assert LOG[-1] == "2"


def test_a_child_that_ends_during_the_reexec_is_told(farm: Farm, tmp_path: Path) -> None:
    task_id = farm.submit("test", steps=[script(f"until [ -e {tmp_path}/go ]; do sleep 0.05; done; exit 4")])
    running(farm, task_id)
    farm.ground.inside(farm.tasks.settle)
    (tmp_path / "go").touch()
    farm.reexec()
    assert farm.ended(task_id).message == "a script failed: exit status 4"


def test_a_child_outlives_a_crash_and_its_status_is_known(farm: Farm, tmp_path: Path) -> None:
    wait = f"until [ -e {tmp_path}/go ]; do sleep 0.05; done"
    good = farm.submit("test", steps=[script(wait), a("2")])
    bad = farm.submit("test", steps=[script(f"{wait}; exit 6")])
    pids = running(farm, good), running(farm, bad)
    farm.crash()
    assert (running(farm, good), running(farm, bad)) == pids
    (tmp_path / "go").touch()
    farm.done(good)
    assert farm.ended(bad).message == "a script failed: exit status 6"
    assert farm.tasks.get(good).run == 1


def test_a_child_that_died_with_the_daemon_is_started_again(farm: Farm, tmp_path: Path) -> None:
    task_id = farm.submit("test", steps=[script(f"[ -e {tmp_path}/go ] || exec sleep 1000"), a("2")])
    running(farm, task_id)
    shell, command = farm.workers_of(task_id)
    (tmp_path / "go").touch()
    os.kill(shell, signal.SIGKILL)
    os.kill(command, signal.SIGKILL)
    farm.done(task_id)
    assert farm.tasks.get(task_id).run == 2


def test_what_dies_again_and_again_fails(farm: Farm) -> None:
    task = farm.ended(farm.submit("test", steps=[script("kill -9 $$")]))
    assert task.state is State.RECOVERED and task.run == 6


def test_a_shell_that_is_killed_does_not_make_its_command_run_twice(farm: Farm, tmp_path: Path) -> None:
    text = f"echo x >>{tmp_path}/begun; until [ -e {tmp_path}/go ]; do sleep 0.05; done"
    task_id = farm.submit("test", steps=[script(text)])
    running(farm, task_id)
    shell, _command = farm.workers_of(task_id)
    until(lambda: (tmp_path / "begun").exists() and (tmp_path / "begun").read_text() == "x\n", PATIENCE)
    os.kill(shell, signal.SIGKILL)
    until(lambda: not os.path.exists(f"/proc/{shell}"), PATIENCE)
    assert (tmp_path / "begun").read_text() == "x\n" and farm.tasks.get(task_id).run == 1
    (tmp_path / "go").touch()
    farm.done(task_id)


def test_after_a_crash_nothing_goes_on_before_we_are_the_spm(farm: Farm) -> None:
    task_id = farm.submit("test", steps=[script("exec sleep 1000"), a("2")])
    os.kill(running(farm, task_id), signal.SIGUSR1)
    farm.crash(spm=False)
    with pytest.raises(NotSpm):
        farm.submit("test", steps=[])
    assert farm.tasks.get(task_id).state is State.RUNNING and "2" not in LOG


def test_losing_the_role_stops_the_work_and_another_host_undoes_it(farm: Farm, tmp_path: Path) -> None:
    task_id = farm.submit("test", steps=[a("1"), script("exec sleep 1000")])
    pid = running(farm, task_id)
    farm.tasks.spm_stopped(POOL)
    until(lambda: farm.tasks.is_halted(POOL), PATIENCE)
    assert not os.path.exists(f"/proc/{pid}") and "-1" not in LOG
    (tmp_path / "other").mkdir()
    other = Farm(tmp_path / "other")
    try:
        other.local = farm.local
        other.tasks.spm_started(POOL)
        task = other.ended(task_id)
        assert (task.state, task.error) == (State.RECOVERED, "TaskAborted") and LOG[-1] == "-1"
        farm.tasks.spm_started(POOL)
        assert farm.tasks.get(task_id).state is State.RECOVERED
        other.tasks.clear(task_id)
        farm.tasks.spm_stopped(POOL)
        farm.tasks.spm_started(POOL)
        with pytest.raises(NoSuchTask):
            farm.tasks.get(task_id)
    finally:
        other.close()


def test_who_was_the_spm_before_does_not_go_on_with_what_another_has_begun_to_undo(farm: Farm, tmp_path: Path) -> None:
    task_id = farm.submit("test", steps=[a("1"), gate("2"), a("3")])
    until(lambda: "2" in GATES, PATIENCE)
    farm.tasks.spm_stopped(POOL)
    GATES["2"].set()
    until(lambda: farm.tasks.is_halted(POOL), PATIENCE)
    (tmp_path / "other").mkdir()
    other = Farm(tmp_path / "other")
    FAULTS["-1"] = [StorageHangs(what="x", reason="y")]
    try:
        other.local = farm.local
        other.tasks.spm_started(POOL)
        until(lambda: other.tasks.get(task_id).state is State.WAIT_RECOVER, PATIENCE)
        other.tasks.spm_stopped(POOL)
    finally:
        other.close()
    farm.tasks.spm_started(POOL)
    assert farm.ended(task_id).state is State.RECOVERED
    assert "3" not in LOG and LOG[-1] == "-1"


def test_storage_that_does_not_answer_because_we_want_to_go_costs_no_task_anything(farm: Farm) -> None:
    FAULTS["1"] = [StorageHangs(what="x", reason="a re-exec is wanted")]
    task_id = farm.submit("test", steps=[gate("0"), a("1")])
    until(lambda: "0" in GATES, PATIENCE)
    do = registry.DEEDS["test.do"]

    def going(context: Any, what: str) -> None:
        farm.tasks._runner.going = False
        do(context, what)

    registry.DEEDS["test.do"] = going
    try:
        GATES["0"].set()
        until(lambda: not FAULTS["1"] and farm.ground.inside(farm.tasks.unsafe) is None, PATIENCE)
    finally:
        registry.DEEDS["test.do"] = do
    farm.reexec()
    farm.done(task_id)
    assert LOG[-2:] == ["0", "1"]


def test_the_files_of_a_task_are_readable_for_others(farm: Farm) -> None:
    task_id = farm.submit("test", steps=[a("1"), gate("2=2")])
    until(lambda: "2=2" in GATES, PATIENCE)
    place = Path(farm.local.get(SD).path) / "master" / "tasks" / task_id
    assert sorted(path.name.removeprefix(task_id) for path in place.iterdir()) == [
        *(".job.0", ".plan", ".recover.0", ".recover.1", ".result", ".task")
    ]
    lines = (place / f"{task_id}.task").read_text().splitlines()
    assert {"name = test", "tag = spm", "nrecoveries = 2", "metadataVersion = 1"} <= set(lines)
    assert "params = 2_eq_2" in (place / f"{task_id}.recover.1").read_text()
    GATES["2=2"].set()
    farm.done(task_id)
    assert "state = finished" in (place / f"{task_id}.task").read_text()
    assert "result = success" in (place / f"{task_id}.result").read_text()
    farm.tasks.clear(task_id)
    assert not place.exists()


@pytest.mark.parametrize("damage", ["cut", "foreign", "gone"])
def test_a_damaged_checkpoint_costs_no_other_task_anything(farm: Farm, damage: str) -> None:
    bad, good = (farm.submit("test", steps=[a("1")]) for _ in range(2))
    farm.done(bad), farm.done(good)
    file = farm.base / "run" / "checkpoints" / "tasks" / bad
    data = file.read_bytes()
    file.write_bytes({"cut": data[:50], "foreign": b"hello", "gone": b""}[damage])
    farm.crash(spm=False)
    assert [task.task_id for task in farm.tasks.all()] == [good]
    farm.tasks.spm_started(POOL)
    assert farm.tasks.get(bad).state is State.FINISHED  # the master domain knows it


def test_every_life_ends(farm: Farm) -> None:
    """From every state that we enter there is a way to an end, and none from an end."""
    assert not [move for state, move in TABLE if state in FINAL]
    assert set(PUBLIC) == set(State)
    reach = set(FINAL)
    for _ in State:
        reach |= {state for (state, _move), after in TABLE.items() if after in reach}
    assert {state for state, _ in TABLE} <= reach
    with pytest.raises(ImpossibleMove):
        moved("x", State.FINISHED, Move.RUN)


STEPS = [a("1"), a("2"), script("exit 0"), a("3"), a("4", pivot=True), script("exit 0"), a("5")]


@pytest.mark.parametrize("at", range(len(STEPS) + 1))
def test_a_crash_before_every_step_is_gone_on_from(farm: Farm, at: int) -> None:
    steps = [*STEPS[:at], gate("here"), *STEPS[at:]]
    task_id = farm.submit("test", steps=steps)
    until(lambda: "here" in GATES, PATIENCE)
    record = (farm.base / "run" / "checkpoints" / "tasks" / task_id).read_bytes()
    farm.ground.inside(farm.tasks.settle)
    GATES["here"].set()
    until(lambda: farm.ground.inside(farm.tasks.unsafe) is None, PATIENCE)
    (farm.base / "run" / "checkpoints" / "tasks" / task_id).write_bytes(record)
    farm.crash()
    farm.done(task_id)
    assert [what for what in LOG if what.isdigit()] == ["1", "2", "3", "4", "5"]


# Under a lease


def lease(farm: Farm) -> subprocess.Popen[bytes]:
    """Have a keeper of leases, as far as commands notice."""
    line = tether.hold(os.path.join(farm.ground.host.run_dir, "tasks"))
    try:
        return subprocess.Popen(["/bin/sleep", "1000"], pass_fds=[line])
    finally:
        os.close(line)


def test_commands_end_with_the_keeper_also_without_a_daemon(farm: Farm) -> None:
    keeper = lease(farm)
    try:
        task_id = farm.submit("test", steps=[script("exec sleep 1000"), a("2")])
        running(farm, task_id)
        workers = farm.workers_of(task_id)
        farm.end()
    finally:
        keeper.kill()
        keeper.wait()
    # Nobody but the kernel is there to do it. Their parent, this process, does not look: they may stay as zombies.
    until(lambda: all(_state(pid) in ("Z", "") for pid in workers), PATIENCE, "the commands to end")
    farm._begin(Ground(farm.base))
    farm.ground.inside(farm.tasks.recover)
    farm.ground.inside(farm.tasks.start)
    farm.tasks.spm_started(POOL)
    until(lambda: task_id in farm.tasks._engine._resting, PATIENCE, "nothing to begin without a keeper")
    assert farm.tasks.get(task_id).state is State.RUNNING and "2" not in LOG
    keeper = lease(farm)
    try:
        farm.tasks.stop(task_id)
        assert farm.ended(task_id).state is State.RECOVERED
    finally:
        keeper.kill()
        keeper.wait()


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""


# Clients on the line, and storage that does not let the task end


@pytest.mark.parametrize("where", ["undoing", "past the pivot"])
def test_a_re_exec_does_not_wait_for_storage_of_a_client_s_task(farm: Farm, where: str) -> None:
    told: list[Task] = []
    hanging: list[Exception] = [StorageHangs(what="x", reason="y")] * 99
    steps = [a("1"), a("2", pivot=where != "undoing")]
    broken: list[Exception] = [OSError(5, "broken")]
    FAULTS["2"], FAULTS["-1"] = (broken, hanging) if where == "undoing" else (hanging, [])
    attendance = Attendance(fds=(), ended=told.append)
    task_id = farm.tasks.submit("test", {"steps": steps}, pool=POOL, attendance=attendance)
    until(lambda: task_id in farm.tasks._engine._resting, PATIENCE)
    assert farm.ground.inside(farm.tasks.unsafe) and not told
    farm.reexec()
    assert [task.is_final for task in told] == [False]
    until(lambda: task_id in farm.tasks._engine._resting, PATIENCE)
    FAULTS.clear()
    farm.tasks._engine._resting.discard(task_id)
    farm.ground.inside(farm.tasks._engine.schedule)
    assert farm.ended(task_id).state is (State.RECOVERED if where == "undoing" else State.FINISHED)


def test_what_nobody_waits_for_any_more_is_not_gone_on_with(farm: Farm, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a crash its client has been told nothing, and may have asked for something else since."""
    monkeypatch.setattr(registry, "ATTENDED", {"test"})
    steps = [a("1"), script("exec sleep 1000"), a("3")]
    attendance = Attendance(fds=(), ended=lambda task: None)
    task_id = farm.tasks.submit("test", {"steps": steps}, pool=POOL, attendance=attendance)
    shell, command = (running(farm, task_id), farm.workers_of(task_id))[1]
    farm.crash(spm=False)
    os.kill(command, signal.SIGKILL)
    until(lambda: _state(shell) in ("Z", ""), PATIENCE)
    farm.tasks.spm_started(POOL)
    task = farm.ended(task_id)
    assert (task.state, task.error) == (State.RECOVERED, "TaskAborted") and LOG[-1] == "-1" and "3" not in LOG


def test_undoing_that_waits_for_long_can_be_given_up(farm: Farm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("drivers.storage.tasks.engine.AGAIN", 0.001)
    FAULTS["2"], FAULTS["-1"] = [OSError(28, "full")], [OSError(30, "read-only")] * 100000
    task_id = farm.submit("test", steps=[a("1"), a("2")])
    until(lambda: farm.tasks.get(task_id).tries > 8, PATIENCE)

    def given_up() -> bool:
        if not farm.tasks.get(task_id).is_final:
            farm.tasks.stop(task_id)  # only while it waits
        return farm.tasks.get(task_id).is_final

    until(given_up, PATIENCE)
    assert farm.ended(task_id).state is State.FAILED and "read-only" in farm.tasks.get(task_id).message


def test_a_pivot_of_which_nothing_was_done_for_lack_of_room(farm: Farm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "WHOLE", {"test.sh"})
    full = script("echo 'No space left on device' >&2; exit 1", pivot=True)
    task = farm.ended(farm.submit("test", steps=[a("1"), full, a("3")]))
    assert (task.state, task.error) == (State.RECOVERED, "NoSpaceLeftOnDomain") and LOG[-1] == "-1"
    task = farm.ended(farm.submit("test", steps=[a("1", pivot=True), full, a("3")]))
    assert task.state is State.FAILED
