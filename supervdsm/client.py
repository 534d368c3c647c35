"""The caller's side of the helper: one call is one action.

It promises that a call ends: with the action's value, with the error that the action raised, or with one that says why there is
no answer.
"""

from __future__ import annotations

from typing import Any

from supervdsm.errors import (
    ActionError,
    AlreadyExists,
    Busy,
    Failed,
    HelperGone,
    Invalid,
    NoHelper,
    NotAllowed,
    NotFound,
    TimedOut,
    Unsupported,
)

__all__ = [
    "ActionError",
    "AlreadyExists",
    "Busy",
    "Failed",
    "HelperGone",
    "Invalid",
    "NoHelper",
    "NotAllowed",
    "NotFound",
    "TimedOut",
    "Unsupported",
    "Without",
]


class Without:
    """Stands where a client would, when there is no helper."""

    def call(self, action: str, *, timeout: float | None = None, **arguments: Any) -> Any:
        """Raise NoHelper."""
        raise NoHelper(f"{action} needs root, and there is no supervdsm that would do it")
