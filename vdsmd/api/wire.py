"""Arguments as they come to parameters as a verb declares them: the wire's types, for annotations.

It promises that a verb is run with values of exactly the types it declares or not at all, and that the error names the
parameter and what was expected. A verb's schema is made at its first call, so that declaring it costs nothing.

    Uuid, str, int, float, bool, bytes, list[...], Struct   as they come
    BoolLike    a boolean, or a string of which only 'true' means true
    Truthy      anything; what is empty or zero means false
    Number      an int, or a string of digits
    Size        bytes: a string of digits (integers end at 2 GiB here), or an int
    StringMap   a struct of strings
    Ignored     anything, for parameters that are of no use any more
"""

from __future__ import annotations

import typing
from collections.abc import Callable
from typing import Annotated, Any

import msgspec

from drivers.errors import Invalid
from drivers.storage.errors import InvalidParameter
from vdsmd.api.table import Verb

_WORDS = {bool: "a boolean", int: "an int", float: "a double", bytes: "base64", list: "an array", dict: "a struct"}


_MOST_DIGITS = 30


class UnknownVerb(Exception):
    """Nobody ever heard of such a verb."""

    def __init__(self, name: str) -> None:
        super().__init__(f"there is no verb {name[:100]!r}")


class WrongArity(Exception):
    """So many arguments make no call of this verb."""

    def __init__(self, name: str, least: int, most: int, given: int) -> None:
        takes = f"{least}" if least == most else f"{least} to {most}"
        super().__init__(f"{name} takes {takes} argument{'s' * (takes != '1')}, {given} given")


class Wire(msgspec.Struct, frozen=True):
    """How a value of the wire becomes one of ours. `read` raises ValueError saying what it expected."""

    read: Callable[[Any], Any]


def _expected(what: str, value: Any) -> ValueError:
    return ValueError(f"expected {what}, got {_WORDS.get(type(value), 'a string')}")


def _exactly(kind: type, what: str) -> Callable[[Any], Any]:
    def read(value: Any) -> Any:
        if type(value) is not kind:
            raise _expected(what, value)
        return value

    return read


def _bool_like(value: Any) -> bool:
    if isinstance(value, str):
        return value.lower() == "true"
    if not isinstance(value, bool):
        raise _expected("a boolean, or 'true' or 'false'", value)
    return value


def _number(value: Any) -> int:
    if type(value) is int:
        return value
    digits = value.strip().removeprefix("-") if isinstance(value, str) else ""
    if not (digits.isascii() and digits.isdigit() and len(digits) <= _MOST_DIGITS):
        raise _expected("an int, or a string of digits", value)
    return int(value)


def _size(value: Any) -> int:
    number = _number(value)
    if number < 0:
        raise ValueError("expected a size in bytes, got a negative number")
    return number


Uuid = Annotated[str, Wire(_exactly(str, "an id as a string"))]
"""The id of something. Whether it is known is for the driver to say: what is not has an error of its own."""
Truthy = Annotated[bool, Wire(bool)]
BoolLike = Annotated[bool, Wire(_bool_like)]
Number = Annotated[int, Wire(_number)]
Size = Annotated[int, Wire(_size)]
StringMap = dict[str, str]
Struct = dict[str, Any]
Ignored = Annotated[Any, Wire(lambda value: value)]

_PLAIN = {
    str: _exactly(str, "a string"),
    int: _exactly(int, "an int"),
    bool: _exactly(bool, "a boolean"),
    bytes: _exactly(bytes, "base64"),
    Any: lambda value: value,
    Struct: _exactly(dict, "a struct"),
}


class Parameter(msgspec.Struct, frozen=True, kw_only=True):
    """One parameter of a verb. `type` is its annotation as written: what help, the manual and the command line show."""

    name: str
    type: str
    read: Callable[[Any], Any]
    optional: bool
    default: Any = None


_SCHEMAS: dict[Callable[..., Any], tuple[Parameter, ...]] = {}


def parameters(verb: Verb) -> tuple[Parameter, ...]:
    """Return the verb's parameters in the order of the wire."""
    schema = _SCHEMAS.get(verb.run)
    if schema is None:
        schema = _SCHEMAS[verb.run] = _schema(verb)
    return schema


def convert(verb: Verb, args: list[Any]) -> dict[str, Any]:
    """Return the arguments by name and as declared. Raises WrongArity, and Invalid naming the parameter."""
    schema = parameters(verb)
    if len(args) > len(schema):
        args = _without_ignored(verb.name, len(schema), args)
    least = sum(not parameter.optional for parameter in schema)
    if not least <= len(args) <= len(schema):
        raise WrongArity(verb.name, least, len(schema), len(args))
    named = {}
    for parameter, value in zip(schema, args, strict=False):
        try:
            named[parameter.name] = parameter.read(value)
        except ValueError as error:
            raise _refused(verb, parameter, str(error)) from None
    return named


def _refused(verb: Verb, parameter: Parameter, reason: str) -> Invalid:
    """Return the error of an argument that cannot be meant. Storage verbs have a code of their own for it."""
    from vdsmd.api import contract  # imported by now (vdsmd.deferred); not needed for the first answer

    facts = contract.verbs().get(verb.name)
    kind = InvalidParameter if facts is not None and facts.storage else Invalid
    return kind(what=parameter.name, reason=reason)


def _without_ignored(name: str, known: int, args: list[Any]) -> list[Any]:
    """Leave out what the contract says is accepted and ignored at the end (`options`, mostly)."""
    from vdsmd.api import contract  # imported by now (vdsmd.deferred); not needed for the first answer

    facts = contract.verbs().get(name)
    rest = facts.parameters[known : len(args)] if facts else ()
    ignored = len(rest) == len(args) - known and all(parameter.type == "ignored" for parameter in rest)
    return args[:known] if ignored else args


def _schema(verb: Verb) -> tuple[Parameter, ...]:
    function: Any = verb.run
    code = function.__code__
    names = code.co_varnames[1 : code.co_argcount]
    defaults = function.__defaults__ or ()
    first_optional = len(names) - len(defaults)
    return tuple(
        _parameter(function, name, index >= first_optional, defaults[index - first_optional :][:1])
        for index, name in enumerate(names)
    )


def _parameter(function: Any, name: str, optional: bool, default: tuple[Any, ...]) -> Parameter:
    text = function.__annotations__[name]
    # Annotations are text under `from __future__ import annotations`. Only the parameters' are evaluated: the daemon's own
    # is imported for type checkers alone.
    kind = eval(text, function.__globals__) if isinstance(text, str) else text
    word = text if isinstance(text, str) else getattr(text, "__name__", str(text))
    return Parameter(
        name=name,
        type=word.removesuffix(" | None"),
        read=_reader(kind),
        optional=optional,
        default=default[0] if optional and default else None,
    )


def _reader(kind: Any) -> Callable[[Any], Any]:
    choices = [choice for choice in typing.get_args(kind) if choice is not type(None)]
    if type(None) in typing.get_args(kind) and len(choices) == 1:
        return _reader(choices[0])  # `X | None`: nothing cannot come over the wire, it is only a default
    for note in getattr(kind, "__metadata__", ()):
        if isinstance(note, Wire):
            return note.read
    return _PLAIN[kind] if kind in _PLAIN else _by_msgspec(kind)


def _by_msgspec(kind: Any) -> Callable[[Any], Any]:
    def read(value: Any) -> Any:
        try:
            return msgspec.convert(value, kind)
        except msgspec.ValidationError as error:
            raise ValueError(str(error).replace("`", "").replace("Expected", "expected")) from None

    return read
