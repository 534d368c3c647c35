"""What the steps of tasks may be: named functions with plain arguments, and the plans made of them.

It promises that a step's name means the same in every release that can meet it in a record: a function may be improved, but
a name is never reused for something else.

    @deed   does something short, in a worker, through the helper of its domain. Made again after a crash, it does no harm.
    @work   says what command does something long, as a child. Started again from scratch, it does no harm.
    @undo   takes a step back, whether it was made, half made or never begun.
    @plan   reads what there is and returns the steps of a kind of task; changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from drivers.storage.tasks.record import Command, Step

Deed = Callable[..., None]
Work = Callable[..., Command | None]
"""Returns None when there is nothing to do."""
Plan = Callable[..., list[Step]]

DEEDS: dict[str, Deed] = {}
WORKS: dict[str, Work] = {}
UNDOS: dict[str, Deed] = {}
PLANS: dict[str, Plan] = {}
PATIENT: set[str] = set()
"""Works that are done in the end, whatever time that takes: past the point of no return, and harmless when repeated."""
WHOLE: set[str] = set()
"""Works of which nothing was done when they fail for lack of room: there is a way back, also where they are the pivot."""
ATTENDED: set[str] = set()
"""Kinds of tasks that nobody wants any more when the client has gone who asked for it."""
ERRORS: dict[str, str] = {}
"""The status code, by name, of a kind of task that fails for no reason with a code of its own."""


class Context(Protocol):
    """What steps work with; `drivers.storage.contract` says what is in it. Opaque to the engine."""


F = TypeVar("F", bound=Callable[..., Any])


def _named(table: dict[str, Any], name: str) -> Callable[[F], F]:
    def keep(function: F) -> F:
        if name in table:
            raise ValueError(f"{name} is declared twice")
        table[name] = function
        return function

    return keep


def deed(name: str) -> Callable[[F], F]:
    return _named(DEEDS, name)


def work(name: str, *, patient: bool = False, whole: bool = False) -> Callable[[F], F]:
    if patient:
        PATIENT.add(name)
    if whole:
        WHOLE.add(name)
    return _named(WORKS, name)


def undo(name: str) -> Callable[[F], F]:
    return _named(UNDOS, name)


def plan(name: str, *, error: str, attended: bool = False) -> Callable[[F], F]:
    ERRORS[name] = error
    if attended:
        ATTENDED.add(name)
    return _named(PLANS, name)
