"""The loop: calls back in order, survives what callbacks do, and hears other threads."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator

import pytest

from vdsmd.loop import READ, Loop


@pytest.fixture
def loop() -> Iterator[Loop]:
    loop = Loop()
    yield loop
    loop.close()


def test_timers_are_called_in_order_and_may_be_cancelled(loop: Loop) -> None:
    seen: list[int] = []
    loop.call_later(0.02, lambda: seen.append(2))
    loop.call_later(0.01, lambda: seen.append(1))
    loop.call_later(0.015, lambda: seen.append(9)).cancel()
    loop.call_later(0.03, loop.stop)
    loop.run()
    assert seen == [1, 2]


def test_a_descriptor_is_watched_until_unwatched(loop: Loop) -> None:
    ours, theirs = os.pipe()
    seen: list[bytes] = []

    def read(_events: int) -> None:
        seen.append(os.read(ours, 10))
        loop.unwatch(ours)
        loop.stop()

    loop.watch(ours, READ, read)
    os.write(theirs, b"x")
    loop.run()
    loop.unwatch(ours)
    os.write(theirs, b"y")
    loop.turn(0)
    assert seen == [b"x"]
    os.close(ours)
    os.close(theirs)


def test_a_callback_unwatched_in_the_same_turn_is_not_called(loop: Loop) -> None:
    first, second = os.eventfd(1), os.eventfd(1)
    seen: list[int] = []

    def callback(mine: int, other: int) -> None:
        seen.append(mine)
        loop.unwatch(other)

    loop.watch(first, READ, lambda _: callback(first, second))
    loop.watch(second, READ, lambda _: callback(second, first))
    loop.turn(1)
    assert len(seen) == 1
    for fd in (first, second):
        loop.unwatch(fd)
        os.close(fd)


def test_a_failing_callback_is_logged_and_hurts_no_other(loop: Loop, caplog: pytest.LogCaptureFixture) -> None:
    loop.call_later(0, lambda: 1 / 0)  # type: ignore[arg-type]
    loop.call_later(0.001, loop.stop)
    loop.run()
    assert "A callback failed" in caplog.text and "ZeroDivisionError" in caplog.text


def test_other_threads_are_heard_in_order(loop: Loop) -> None:
    seen: list[int] = []

    def talk() -> None:
        for number in range(1000):
            loop.call_threadsafe(lambda n=number: seen.append(n))  # type: ignore[misc]
        loop.call_threadsafe(loop.stop)

    thread = threading.Thread(target=talk)
    thread.start()
    loop.run()
    thread.join()
    assert seen == list(range(1000))


def test_a_timer_may_be_years_away(loop: Loop) -> None:
    """The kernel would not wait that long, and clients may ask for it (a shutdown with a delay)."""
    loop.call_later(2.0**40, lambda: pytest.fail("it is not due"))
    loop.call_threadsafe(loop.stop)
    loop.run()
