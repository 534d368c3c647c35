"""Following a policy: what its forms mean.

It promises that a policy can do nothing but compute with what it is given and set controls, that it ends (after STEPS at the
latest), and that what fails for one guest does not keep the others from their due.

    (def f (a b) body)   (defvar x 1) here   (set x 2) where it is   (if c yes no)   (and a b)   (or a b)
    (with Guests guest body)
    + - * / min max abs   < > <= >= == !=   not null?   null   debug
    Host.mem_free   guest.balloon_cur   (guest.StatAvg "mem_unused")   (guest.Control "balloon_target" 1048576)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

from vdsmd.policy.language import BLOCK, Form, Name, Node, PolicyError

STEPS = 200_000
"""Forms that one round may evaluate."""
DEPTH = 120
"""Forms that may be evaluated inside each other, calls of the policy's own functions included."""

Value = float | str | None


class Missing(PolicyError):
    """Something was computed with that is not known."""


class Entity(Protocol):
    """What a policy is about: the host, or a guest."""

    def stat(self, name: str) -> Value:
        """Return the newest value, None when there is none."""

    def average(self, name: str) -> Value:
        """Return the mean of the last values."""

    def control(self, name: str, value: float) -> None:
        """Ask for something. Raises KeyError for what this entity has no control of."""

    @property
    def variables(self) -> dict[str, Any]: ...


def _add(*values: float) -> float:
    return sum(values)


def _subtract(first: float, *others: float) -> float:
    return first - sum(others) if others else -first


def _divide(over: float, under: float) -> float:
    return over / under


OPERATIONS: dict[str, tuple[Callable[..., float], int, int]] = {
    "+": (_add, 1, 99),
    "-": (_subtract, 1, 99),
    "*": (lambda *values: math.prod(values), 1, 99),
    "/": (_divide, 2, 2),
    "min": (lambda *values: min(values), 1, 99),
    "max": (lambda *values: max(values), 1, 99),
    "abs": (abs, 1, 1),
    "<": (lambda a, b: float(a < b), 2, 2),
    ">": (lambda a, b: float(a > b), 2, 2),
    "<=": (lambda a, b: float(a <= b), 2, 2),
    ">=": (lambda a, b: float(a >= b), 2, 2),
}
"""What computes with numbers, with how few and how many of them."""
ON_ANYTHING: dict[str, tuple[Callable[..., float], int, int]] = {
    "==": (lambda a, b: float(a == b), 2, 2),
    "!=": (lambda a, b: float(a != b), 2, 2),
    "not": (lambda a: float(not a), 1, 1),
    "null?": (lambda a: float(a is None), 1, 1),
    "debug": (lambda *values: 0.0, 0, 99),
}
METHODS = {"Stat": 1, "StatAvg": 1, "Prop": 1, "Control": 2, "GetVar": 1, "SetVar": 2}
"""What can be asked of an entity, with how many arguments."""


class Function:
    """One of the policy's own."""

    def __init__(self, form: Form) -> None:
        _def, name, parameters, body = form.parts
        assert isinstance(name, Name)
        assert isinstance(parameters, Form)
        self.name = name.text
        self.parameters = [each.text for each in parameters.parts if isinstance(each, Name)]
        self.body = body


class Round:
    """One time that policies are followed. They have been checked (`vdsmd.policy.check`)."""

    def __init__(self, host: Entity, guests: Iterable[Entity], failed: Callable[[str], None]) -> None:
        """`failed(reason)` is told of a guest that the policy cannot be followed for."""
        self._guests = list(guests)
        self._failed = failed
        self._functions: dict[str, Function] = {}
        self._scopes: list[dict[str, Any]] = [{"Host": host, "Guests": self._guests, "null": None}]
        self._steps = 0
        self._depth = 0

    def follow(self, policy: Iterable[Node]) -> None:
        """Evaluate all forms. Raises PolicyError."""
        for form in policy:
            self._value(form)

    def _value(self, node: Node) -> Any:
        if isinstance(node, Form):
            self._steps += 1
            self._depth += 1
            if self._steps > STEPS or self._depth > DEPTH:
                raise PolicyError(node.line, "the policy takes too long, or calls itself too often")
            try:
                return self._form(node)
            finally:
                self._depth -= 1
        return self._named(node) if isinstance(node, Name) else node

    def _named(self, name: Name) -> Any:
        found = self._lookup(name)[name.base]
        if not name.member:
            return found
        return _entity(found, name).stat(name.member)

    def _lookup(self, name: Name) -> dict[str, Any]:
        """Return the innermost scope that has the name."""
        found: dict[str, Any] | None = next((scope for scope in reversed(self._scopes) if name.base in scope), None)
        if found is None:
            raise PolicyError(name.line, f"{name.base} is not defined here")
        return found

    def _form(self, form: Form) -> Any:
        head = form.head
        special = _SPECIAL.get(head)
        if special is not None:
            return special(self, form)
        values = [self._value(part) for part in form.parts[1:]]
        if head in OPERATIONS:
            return _compute(form, values)
        if head in ON_ANYTHING:
            return ON_ANYTHING[head][0](*values)
        first = form.parts[0]
        assert isinstance(first, Name)
        if first.member:
            return _ask(_entity(self._lookup(first)[first.base], first), first, values)
        return self._call(form, values)

    def _call(self, form: Form, values: list[Any]) -> Any:
        function = self._functions.get(form.head)
        if function is None:
            raise PolicyError(form.line, f"{form.head} is not defined yet")
        self._scopes.append(dict(zip(function.parameters, values, strict=True)))
        try:
            return self._value(function.body)
        finally:
            self._scopes.pop()

    def _def(self, form: Form) -> float:
        function = Function(form)
        self._functions[function.name] = function
        return 0.0

    def _defvar(self, form: Form) -> Any:
        name = form.parts[1]
        assert isinstance(name, Name)
        self._scopes[-1][name.text] = value = self._value(form.parts[2])
        return value

    def _set(self, form: Form) -> Any:
        name = form.parts[1]
        assert isinstance(name, Name)
        value = self._value(form.parts[2])
        self._lookup(name)[name.text] = value
        return value

    def _if(self, form: Form) -> Any:
        if self._value(form.parts[1]):
            return self._value(form.parts[2])
        return self._value(form.parts[3]) if len(form.parts) > 3 else 0.0

    def _and(self, form: Form) -> float:
        return float(all(self._value(part) for part in form.parts[1:]))

    def _or(self, form: Form) -> float:
        return float(any(self._value(part) for part in form.parts[1:]))

    def _block(self, form: Form) -> Any:
        value: Any = 0.0
        for part in form.parts[1:]:
            value = self._value(part)
        return value

    def _with(self, form: Form) -> float:
        name = form.parts[2]
        assert isinstance(name, Name)
        for guest in self._guests:
            self._scopes.append({name.text: guest})
            depth = self._depth
            try:
                self._value(form.parts[3])
            except PolicyError as error:
                if self._steps > STEPS:
                    raise
                self._depth = depth
                self._failed(f"{guest.stat('name')}: {error}")
            finally:
                self._scopes.pop()
        return 0.0


_SPECIAL: Mapping[str, Callable[[Round, Form], Any]] = {
    "def": Round._def,
    "defvar": Round._defvar,
    "let": Round._defvar,
    "set": Round._set,
    "if": Round._if,
    "and": Round._and,
    "or": Round._or,
    "with": Round._with,
    BLOCK: Round._block,
}


def _compute(form: Form, values: list[Any]) -> float:
    if any(value is None for value in values):
        raise Missing(form.line, "something in this computation is not known")
    if not all(isinstance(value, float) for value in values):
        raise PolicyError(form.line, f"{form.head} computes with numbers")
    try:
        return OPERATIONS[form.head][0](*values)
    except ArithmeticError as error:
        raise PolicyError(form.line, str(error)) from error


def _entity(found: Any, name: Name) -> Entity:
    if found is None or isinstance(found, (float, str, list)):
        raise PolicyError(name.line, f"{name.base} is neither the host nor a guest")
    entity: Entity = found
    return entity


def _ask(entity: Entity, name: Name, values: list[Any]) -> Value:
    what, *given = values
    if not isinstance(what, str):
        raise PolicyError(name.line, f"{name.member} needs the name of something, in quotes")
    match name.member:
        case "Control":
            return _control(entity, name, what, given[0])
        case "StatAvg":
            return entity.average(what)
        case "SetVar":
            entity.variables[what] = given[0]
            return 0.0
        case "GetVar":
            found: Value = entity.variables.get(what)
            return found
        case _:
            return entity.stat(what)


def _control(entity: Entity, name: Name, what: str, value: Any) -> float:
    if value is None:
        raise Missing(name.line, f"{what} cannot be set to what is not known")
    if not isinstance(value, float) or not math.isfinite(value):
        raise PolicyError(name.line, f"{what} can be set to a number only")
    try:
        entity.control(what, value)
    except KeyError:
        raise PolicyError(name.line, f"there is no control {what!r} of this") from None
    return value
