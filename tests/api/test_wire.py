"""Arguments: a verb gets what it declares, or the error names the parameter."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from drivers.errors import Invalid
from vdsmd.api import wire
from vdsmd.api.table import Reply, Verb
from vdsmd.api.wire import BoolLike, Ignored, Number, Size, StringMap, Struct, Truthy, Uuid
from vdsmd.api.xmlrpc import DateTime


def verb_of(function: Callable[..., Reply], name: str = "a.verb") -> Verb:
    return Verb(name=name, run=function)


def uuid(daemon: object, x: Uuid) -> Reply:
    return {}


def text(daemon: object, x: str) -> Reply:
    return {}


def number(daemon: object, x: Number) -> Reply:
    return {}


def size(daemon: object, x: Size) -> Reply:
    return {}


def integer(daemon: object, x: int) -> Reply:
    return {}


def boolean(daemon: object, x: bool) -> Reply:
    return {}


def bool_like(daemon: object, x: BoolLike) -> Reply:
    return {}


def truthy(daemon: object, x: Truthy) -> Reply:
    return {}


def struct(daemon: object, x: Struct) -> Reply:
    return {}


def strings(daemon: object, x: StringMap) -> Reply:
    return {}


def ids(daemon: object, x: list[Uuid]) -> Reply:
    return {}


def either(daemon: object, x: int | str) -> Reply:
    return {}


def optional(daemon: object, x: Uuid | None = None) -> Reply:
    return {}


def ignored(daemon: object, x: Ignored = None) -> Reply:
    return {}


def raw(daemon: object, x: bytes) -> Reply:
    return {}


def real(daemon: object, x: float) -> Reply:
    return {}


@pytest.mark.parametrize(
    ("function", "value", "expected"),
    [
        (uuid, "no-such", "no-such"),
        (text, "", ""),
        (number, 5, 5),
        (number, "-5", -5),
        (number, " 12 ", 12),
        (size, "1099511627776", 2**40),
        (size, 0, 0),
        (integer, -1, -1),
        (boolean, False, False),
        (bool_like, True, True),
        (bool_like, "TRUE", True),
        (bool_like, "false", False),
        (bool_like, "yes", False),
        (truthy, "false", True),
        (truthy, "", False),
        (truthy, 0, False),
        (truthy, [], False),
        (truthy, True, True),
        (struct, {"a": {"b": [1]}}, {"a": {"b": [1]}}),
        (strings, {"a": "b"}, {"a": "b"}),
        (ids, ["a", "b"], ["a", "b"]),
        (ids, [], []),
        (either, 1, 1),
        (either, "1", "1"),
        (optional, "a", "a"),
        (ignored, {"any": 1}, {"any": 1}),
        (raw, b"\0", b"\0"),
        (real, 1.5, 1.5),
    ],
)
def test_taken(function: Callable[..., Reply], value: Any, expected: Any) -> None:
    found = wire.convert(verb_of(function), [value])["x"]
    assert (type(found), found) == (type(expected), expected)


@pytest.mark.parametrize(
    ("function", "value", "reason"),
    [
        (uuid, 5, "x: expected an id as a string, got an int"),
        (text, True, "x: expected a string, got a boolean"),
        (text, {}, "got a struct"),
        (text, DateTime("20160229T00:00:00"), "x: expected a string"),
        (number, "5x", "x: expected an int, or a string of digits"),
        (number, True, "got a boolean"),
        (number, 5.0, "got a double"),
        (number, "\u0665", "x: expected an int"),
        (size, "-1", "x: expected a size"),
        (integer, "5", "x: expected an int, got a string"),
        (integer, True, "x: expected an int, got a boolean"),
        (boolean, 1, "x: expected a boolean, got an int"),
        (boolean, "true", "got a string"),
        (bool_like, 1, "x: expected a boolean, or 'true' or 'false', got an int"),
        (struct, [], "x: expected a struct, got an array"),
        (strings, {"a": 1}, "x: expected str, got int"),
        (ids, "a", "x: expected array, got str"),
        (ids, ["a", 1], r"x: expected str, got int - at \$\[1\]"),
        (either, 1.5, "x: expected int | str"),
        (optional, 1, "x: expected an id"),
        (raw, "a", "x: expected base64"),
    ],
)
def test_refused(function: Callable[..., Reply], value: Any, reason: str) -> None:
    with pytest.raises(Invalid, match=reason):
        wire.convert(verb_of(function), [value])


def several(daemon: object, a: Uuid, b: list[str], c: Number = 3, d: StringMap = {}) -> Reply:  # noqa: B006
    return {}


def test_several() -> None:
    verb = verb_of(several)
    assert wire.convert(verb, ["a", ["b"]]) == {"a": "a", "b": ["b"]}
    assert wire.convert(verb, ["a", [], "7", {"x": "y"}]) == {"a": "a", "b": [], "c": 7, "d": {"x": "y"}}
    with pytest.raises(Invalid, match="c: expected"):
        wire.convert(verb, ["a", [], "seven", {}])


@pytest.mark.parametrize("count", [0, 1, 5, 9])
def test_arity(count: int) -> None:
    with pytest.raises(wire.WrongArity, match=f"a.verb takes 2 to 4 arguments, {count} given"):
        wire.convert(verb_of(several), ["x"] * count)


def test_arity_of_one() -> None:
    with pytest.raises(wire.WrongArity, match="takes 1 argument, 0 given"):
        wire.convert(verb_of(text), [])


def test_the_schema_is_what_was_declared() -> None:
    shown = [(p.name, p.type, p.optional, p.default) for p in wire.parameters(verb_of(several))]
    assert shown == [
        ("a", "Uuid", False, None),
        ("b", "list[str]", False, None),
        ("c", "Number", True, 3),
        ("d", "StringMap", True, {}),
    ]
    assert [p.type for p in wire.parameters(verb_of(optional))] == ["Uuid"]


def info(daemon: object, sdUUID: Uuid) -> Reply:
    return {}


def test_what_the_contract_says_is_ignored_may_come() -> None:
    verb = verb_of(info, "getStorageDomainInfo")
    assert wire.convert(verb, ["sd", {"an": "option"}]) == {"sdUUID": "sd"}
    for args in (["sd", {}, {}], []):
        with pytest.raises(wire.WrongArity):
            wire.convert(verb, args)
    with pytest.raises(wire.WrongArity):
        wire.convert(verb_of(info, "getVmStats"), ["vm", {}])
