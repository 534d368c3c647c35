"""Actions: a decorator over a typed function is the registration, the check of arguments and the list of who may call.

It promises that an action's function is called only with arguments of the annotated types, by a caller that it names.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable
from typing import Any, NamedTuple

from supervdsm.errors import Invalid, NotAllowed

VDSMD = "vdsmd"
HSMD = "hsmd"
"""The callers: programs that run as an ordinary user, told apart by the kernel's word (see `supervdsm.callers`)."""
LONGEST = 300.0
"""Seconds. No action may take longer: a caller that waits without a time-out of its own relies on it."""


class Context(NamedTuple):
    """What an action may rely on: whom it works for, and where. From the helper's own configuration, never from a caller."""

    uid: int
    gid: int
    user: str
    run_dir: str
    lib_dir: str
    log_dir: str
    repository: str
    private_dir: str = "/run/supervdsm"
    """Root's own, for work that no caller may see half done."""
    fence_agents: str = "/usr/sbin"
    udev_rules: str = "/etc/udev/rules.d"
    sysfs: str = "/sys"


class Descriptor(NamedTuple):
    """A reply that is an open file. The server sends it along, and closes its own."""

    fd: int


class Action(NamedTuple):
    name: str
    function: Callable[..., Any]
    arguments: dict[str, Any]
    """The type of each, by name."""
    optional: frozenset[str]
    secret: frozenset[str]
    """Arguments whose values no log line shows."""
    callers: tuple[str, ...]
    slow: bool
    """It may block, so it is done in a process of its own, that is killed after `timeout` seconds."""
    timeout: float

    def check(self, caller: str, given: dict[str, Any]) -> None:
        """Raise NotAllowed or Invalid unless this caller may call it with these arguments."""
        if caller not in self.callers:
            raise NotAllowed(f"{self.name} is not for {caller}")
        unknown = given.keys() - self.arguments.keys()
        missing = self.arguments.keys() - given.keys() - self.optional
        if unknown or missing:
            told = [*(f"unknown {name}" for name in sorted(unknown)), *(f"missing {name}" for name in sorted(missing))]
            raise Invalid(f"{self.name}: arguments: {', '.join(told)}")
        for name, value in given.items():
            if not fits(value, self.arguments[name]):
                raise Invalid(f"{self.name}: {name}: expected {typing.cast(Any, self.arguments[name])}")


ACTIONS: dict[str, Action] = {}


def action(
    name: str,
    *,
    callers: tuple[str, ...] = (VDSMD,),
    slow: bool = False,
    timeout: float = 30.0,
    secret: tuple[str, ...] = (),
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register a function as the action `name` ("noun.verb"). Its first parameter is the Context; the others, all of them
    annotated with str, int, float, bool, None, list[...], dict[str, ...] or unions of these, are the arguments."""

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        hints = typing.get_type_hints(function)
        parameters = list(inspect.signature(function).parameters.values())[1:]
        assert name not in ACTIONS, f"two actions are named {name}"
        assert timeout <= LONGEST, f"{name} may take too long"
        ACTIONS[name] = Action(
            name=name,
            function=function,
            arguments={each.name: hints[each.name] for each in parameters},
            optional=frozenset(each.name for each in parameters if each.default is not each.empty),
            secret=frozenset(secret),
            callers=callers,
            slow=slow,
            timeout=timeout,
        )
        return function

    return register


def fits(value: Any, hint: Any) -> bool:
    """Say whether a decoded JSON value is of the annotated type. A bool is no int; an int is a float; a str is one that the
    system's calls can take: nothing of it is a NUL, or half a character."""
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin is None:
        if hint is str:
            return type(value) is str and _is_text(value)
        if hint is float:
            return type(value) in (int, float)
        return type(value) is (type(None) if hint is None else hint)
    if origin is list:
        return type(value) is list and all(fits(item, parts[0]) for item in value)
    if origin is dict:
        return type(value) is dict and all(fits(item, parts[1]) for item in value.values())
    if origin is typing.Literal:
        return any(type(value) is type(part) and value == part for part in parts)
    return any(fits(value, part) for part in parts)  # a union


def _is_text(value: str) -> bool:
    return "\0" not in value and not any("\ud800" <= character <= "\udfff" for character in value)
