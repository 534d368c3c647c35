"""Introspection: what clients ask about the verbs themselves. Imported after the first answer.

It promises that what is listed is answered with something else than a fault: verbs of ours, and those of the contract that
are not implemented and say so. The answers are bare values, without the envelope.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from vdsmd.api import codes, contract, wire
from vdsmd.api.table import TABLE, Verb

_FACTS = contract.verbs()  # read now, from the running release's own files

# XML-RPC's own names for types; everything else that we have comes as a string.
_TYPES = {
    "int": "int",
    "bool": "boolean",
    "boolean": "boolean",
    "boolean-like": "boolean",
    "truthy": "boolean",
    "Truthy": "boolean",
    "BoolLike": "boolean",
    "float": "double",
    "bytes": "base64",
    "Struct": "struct",
    "struct": "struct",
    "StringMap": "struct",
}


def answer(name: str, args: list[Any]) -> Any:
    """Answer one of ANSWERS. Raises WrongArity, and UnknownVerb when asked about one."""
    function, arity = ANSWERS[name]
    if len(args) != arity:
        raise wire.WrongArity(name, arity, arity, len(args))
    return function(*args)


def list_methods() -> list[str]:
    return sorted({*(name for name, verb in TABLE.items() if not verb.local), *_FACTS, *ANSWERS})


def method_help(name: object) -> str:
    name = _known(name)
    if name in TABLE:
        return help_of(TABLE[name])
    if name in _FACTS:
        why = "Was never implemented, in any release" if _FACTS[name].never else "Not built yet"
        return f"{_FACTS[name].doc}\n\n{why}: answers code {codes.NOT_BUILT}."
    return "Part of XML-RPC's introspection."


def method_signature(name: object) -> list[str]:
    """Return the types of the answer and of the parameters: one list, not the list of lists of some other servers."""
    name = _known(name)
    if name in TABLE:
        return ["struct", *(_type(parameter.type) for parameter in wire.parameters(TABLE[name]))]
    if name in _FACTS:
        return ["struct", *(_type(parameter.type) for parameter in _FACTS[name].parameters)]
    return ["array"] if name == "system.listMethods" else ["string", "string"]


def help_of(verb: Verb) -> str:
    """Return a verb's help text: its docstring, without the indentation of the code."""
    lines = (verb.run.__doc__ or "").strip().splitlines()
    return "\n".join([lines[0], *(line.removeprefix("    ") for line in lines[1:])]) if lines else ""


def _known(name: object) -> str:
    if isinstance(name, str) and (name in TABLE or name in _FACTS or name in ANSWERS):
        return name
    raise wire.UnknownVerb(str(name))


def _type(word: str) -> str:
    return "array" if word.startswith("list") else _TYPES.get(word, "string")


ANSWERS: dict[str, tuple[Callable[..., Any], int]] = {
    "system.listMethods": (list_methods, 0),
    "system.methodHelp": (method_help, 1),
    "system.methodSignature": (method_signature, 1),
}
