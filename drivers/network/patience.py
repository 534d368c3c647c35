"""Patience: how often what others have changed is repaired. Whoever undoes the same step again and again means it.

It promises that one step that is not wanted does not keep others from being taken. Imported after the first answer.
"""

from __future__ import annotations

import time
from collections.abc import Callable

MOST_REPAIRS, REPAIRS_WITHIN = 3, 3600.0
"""How often, within so many seconds, a step is taken."""


class Patience:
    """Steps are told in words. One thread at a time."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._taken: dict[str, list[float]] = {}
        self._told: set[str] = set()

    def take(self, steps: list[str]) -> None:
        for step in steps:
            self._taken.setdefault(step, []).append(self._clock())

    def left_alone(self, steps: list[str]) -> list[str]:
        """Return those of the steps that are not to be taken any more, for a while."""
        since = self._clock() - REPAIRS_WITHIN
        recent = {step: [at for at in times if at > since] for step, times in self._taken.items()}
        self._taken = {step: times for step, times in recent.items() if times}
        self._told = {step for step in self._told if self._is_over(step)}
        return [step for step in steps if self._is_over(step)]

    def is_news(self, steps: list[str]) -> bool:
        """Whether some of the steps have not been asked about: that they are left alone is told once."""
        new = set(steps) - self._told
        self._told |= new
        return bool(new)

    def forget(self) -> None:
        """Begin anew."""
        self._taken.clear()
        self._told.clear()

    def _is_over(self, step: str) -> bool:
        return len(self._taken.get(step, ())) >= MOST_REPAIRS
