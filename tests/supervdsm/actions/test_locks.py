"""Locks: the second waits for the first, and a killed first frees the second."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Iterator
from multiprocessing.context import ForkProcess
from pathlib import Path

import pytest

from supervdsm.locks import alone
from supervdsm.registry import Context
from tests.until import until

FORK = multiprocessing.get_context("fork")


@pytest.fixture
def processes() -> Iterator[list[ForkProcess]]:
    """Give a list of processes that are gone at the end."""
    started: list[ForkProcess] = []
    yield started
    for process in started:
        process.kill()
        process.join()


def _lock(where: Context, what: str, mark: Path) -> None:
    with alone(where, what):
        mark.touch()
        signal.pause()


def _waits(pid: int) -> bool:
    """Say whether the kernel lists the process as waiting for a lock."""
    lines = Path("/proc/locks").read_text(encoding="ascii").splitlines()
    return any("->" in line and f" {pid} " in line for line in lines)


def test_one_at_a_time_until_the_first_is_gone(where: Context, tmp_path: Path, processes: list[ForkProcess]) -> None:
    def start(what: str, mark: str) -> int:
        process = FORK.Process(target=_lock, args=(where, what, tmp_path / mark))
        process.start()
        processes.append(process)
        assert process.pid is not None
        return process.pid

    first = start("a", "first")
    until((tmp_path / "first").exists)
    second = start("a", "second")
    until(lambda: _waits(second), 60, "the second to wait")
    start("b", "other")
    until((tmp_path / "other").exists, 60, "another lock to be free")
    assert not (tmp_path / "second").exists()
    os.kill(first, signal.SIGKILL)
    until((tmp_path / "second").exists, 60, "the second's turn")
    assert os.listdir(where.private_dir) == ["locks"]
