"""A vdsmd whose helper was killed, and which is stuck: the next helper ends it, and nothing else."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.running import PATIENCE, Running, Stage

if os.geteuid() != 0:
    pytest.skip("only root can start the helper", allow_module_level=True)


def runs(pid: int) -> bool:
    """Whether it is there, and not only waiting for somebody to take note of its end."""
    path = Path(f"/proc/{pid}/cmdline")
    return path.exists() and bool(path.read_bytes())


def start(stage: Stage, again: Running | None = None) -> Running:
    config = {"supervdsm": {"private_dir": stage.base / "private"}}
    return stage.start(spawned=True, config=config, again=again)


def orphan(vdsmd: Running) -> int:
    """Kill the helper while its vdsmd is stopped; return the pid of that."""
    pid = vdsmd.pid
    os.kill(pid, signal.SIGSTOP)
    vdsmd.kill()
    assert runs(pid)
    return pid


@pytest.mark.slow
def test_one_that_is_stuck_is_ended_by_the_next_helper(stage: Stage) -> None:
    vdsmd = start(stage)
    left = orphan(vdsmd)
    again = start(stage, again=vdsmd)
    assert not runs(left) and again.pid != left
    assert again.must("ping")
    assert f"is killed pid={left}" in again.log()


@pytest.mark.slow
def test_a_process_that_has_got_its_number_is_left_alone(stage: Stage) -> None:
    """The note is of a process that has started at another time."""
    vdsmd = start(stage)
    vdsmd.kill()
    [note] = (stage.base / "private").glob("vdsmd-*")
    note.write_text(f"[{os.getpid()}, 1]", encoding="ascii")
    again = start(stage, again=vdsmd)
    assert again.must("ping")
    again.stop()
    assert not list((stage.base / "private").glob("vdsmd-*"))


def test_with_once_both_end_when_vdsmd_dies(stage: Stage) -> None:
    vdsmd = stage.start(spawned=True, launcher=["sh", "-c", 'exec "$@" --once', "sh"])
    os.kill(vdsmd.pid, signal.SIGKILL)
    assert vdsmd.process.wait(PATIENCE) == 1
