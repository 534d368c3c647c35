"""Workers: isolation by key, time-outs that are answered for, and a stop that names who does not come back."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from drivers.errors import Busy, NotResponding
from state import threads
from tests.until import until
from vdsmd.loop import Loop
from vdsmd.workers import Workers

Answer = tuple[Any, Exception | None]


class Pool:
    """A loop in a thread, workers, and the answers they gave."""

    def __init__(self, limit: int = 8) -> None:
        self.loop = Loop()
        self.workers = Workers(self.loop, limit)
        self.answers: dict[str, Answer] = {}
        self.thread = threading.Thread(target=self.loop.run)
        self.thread.start()
        self.gate = threading.Event()

    def submit(self, name: str, call: Any, **how: Any) -> None:
        self.workers.submit(call, lambda result, error: self.answers.update({name: (result, error)}), **how)

    def answer(self, name: str) -> Answer:
        until(lambda: name in self.answers)
        return self.answers[name]

    def close(self) -> None:
        self.gate.set()
        self.workers.stop(time.monotonic() + 60)
        self.loop.call_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()


@pytest.fixture
def pool() -> Iterator[Pool]:
    pool = Pool()
    yield pool
    pool.close()


def test_results_and_errors_reach_the_loops_thread(pool: Pool) -> None:
    seen: list[str] = []
    pool.workers.submit(lambda: 42, lambda result, error: seen.append(threading.current_thread().name))
    pool.submit("sum", lambda: 1 + 1)
    pool.submit("fails", lambda: 1 / 0)
    assert pool.answer("sum") == (2, None)
    assert isinstance(pool.answer("fails")[1], ZeroDivisionError)
    assert until(lambda: seen) == [pool.thread.name]


def test_only_calls_of_the_same_key_wait_for_a_stuck_one(pool: Pool) -> None:
    order: list[str] = []
    pool.submit("stuck", pool.gate.wait, key="vm1")
    pool.submit("behind", lambda: order.append("behind"), key="vm1")
    for number in range(20):
        pool.submit(f"free{number}", lambda: order.append("free"), key=f"other{number}")
    for number in range(20):
        pool.answer(f"free{number}")
    assert order == ["free"] * 20
    pool.gate.set()
    pool.answer("behind")
    assert order[-1] == "behind"


def test_a_call_that_takes_too_long_is_answered_for(pool: Pool) -> None:
    pool.submit("stuck", pool.gate.wait, key="vm1", timeout=0.05)
    _, error = pool.answer("stuck")
    assert isinstance(error, NotResponding) and "vm1" in str(error)


def test_a_call_that_waited_too_long_never_begins(pool: Pool) -> None:
    begun: list[int] = []
    pool.submit("stuck", pool.gate.wait, key="vm1")
    pool.submit("late", lambda: begun.append(1), key="vm1", timeout=0.05)
    assert isinstance(pool.answer("late")[1], NotResponding)
    pool.submit("after", lambda: 3, key="vm1")
    pool.gate.set()
    assert pool.answer("after") == (3, None)
    assert begun == []
    until(lambda: pool.workers.busy == 0)


def test_the_pool_is_bounded(pool: Pool) -> None:
    for number in range(20):
        pool.submit(str(number), pool.gate.wait)
    until(lambda: pool.workers.busy == 20)
    assert len([name for name in threads.others() if name.startswith("worker-")]) <= 8
    pool.gate.set()
    for number in range(20):
        pool.answer(str(number))


def test_stop_keeps_what_waits_and_start_goes_on(pool: Pool) -> None:
    pool.submit("done", lambda: 1)
    pool.answer("done")
    pool.workers.stop(time.monotonic() + 60)
    assert not [name for name in threads.others() if name.startswith("worker-")]
    pool.submit("later", lambda: 2)
    assert pool.workers.busy == 1
    pool.workers.start()
    assert pool.answer("later") == (2, None)


def test_the_next_idle_moment_is_told_once(pool: Pool) -> None:
    told: list[int] = []
    pool.submit("first", pool.gate.wait)
    pool.submit("second", pool.gate.wait)
    pool.loop.call_threadsafe(lambda: pool.workers.when_idle(lambda: told.append(pool.workers.busy)))
    assert told == []
    pool.gate.set()
    until(lambda: told)
    pool.submit("third", lambda: 3)
    pool.answer("third")
    assert told == [0]


def test_stop_names_a_thread_that_does_not_come_back(pool: Pool) -> None:
    pool.submit("stuck", pool.gate.wait)
    until(lambda: pool.workers._running)
    with pytest.raises(Busy, match=r"thread worker-\d is busy: it has been at its work for"):
        pool.workers.stop(time.monotonic() + 0.05)
    pool.workers.start()
    pool.submit("meanwhile", lambda: 5)
    assert pool.answer("meanwhile") == (5, None)
