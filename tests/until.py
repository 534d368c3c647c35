"""The only thing in the tests that sleeps."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def until(fact: Callable[[], T], timeout: float = 30.0, what: str = "") -> T:
    """Return the first truthy value of `fact()`. AssertionErrors inside it count as "not yet"."""
    deadline = time.monotonic() + timeout
    last: object = None
    while True:
        try:
            value = fact()
            if value:
                return value
            last = value
        except AssertionError as error:
            last = error
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout} s: {what or fact}; last seen: {last!r}")
        time.sleep(0.02)
