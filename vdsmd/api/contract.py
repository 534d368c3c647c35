"""The contract: every verb and every status code that engines know, built here or not, as data.

It promises one place for what is a fact about the wire and not about our code. It is read from `contract.json` beside this
module when it is first asked for; the daemon asks right after its first answer.
"""

from __future__ import annotations

import functools
import os
from typing import Any

import msgspec


class Parameter(msgspec.Struct, frozen=True):
    """One parameter. `type` is in words: uuid, string, int, boolean, boolean-like (or 'true'), truthy (anything), number
    (int or digits), size (bytes, as digits), struct, list of ..., ignored."""

    name: str
    type: str
    optional: bool = False
    default: Any = None


class Facts(msgspec.Struct, frozen=True):
    """What is known of a verb."""

    name: str
    group: str
    doc: str
    storage: bool = False
    """It belongs to the storage verbs: success is `OK`, and it is not held back while virtual machines are recovered."""
    parameters: tuple[Parameter, ...] = ()
    older: tuple[tuple[int, int], ...] = ()
    """From how many to how many arguments other forms of the verb take."""
    reply: tuple[str, ...] = ()
    task: bool = False
    """It answers with the id of a task, which goes on."""
    spm: bool = False
    """It needs the SPM role."""
    never: bool = False
    """It has never done anything, in any release, but answer that it is not implemented."""

    def takes(self, count: int) -> bool:
        """Return whether so many arguments make a call."""
        return any(least <= count <= most for least, most in (self.arity, *self.older))

    @property
    def arity(self) -> tuple[int, int]:
        return sum(not parameter.optional for parameter in self.parameters), len(self.parameters)


class Contract(msgspec.Struct, frozen=True):
    codes: dict[int, str]
    verbs: tuple[Facts, ...]


@functools.cache
def load() -> Contract:
    """Return the whole contract."""
    with open(os.path.join(os.path.dirname(__file__), "contract.json"), "rb") as file:
        return msgspec.json.decode(file.read(), type=Contract)


@functools.cache
def verbs() -> dict[str, Facts]:
    """Return the facts of every verb, by its name."""
    return {facts.name: facts for facts in load().verbs}


@functools.cache
def numbers() -> dict[str, int]:
    """Return the status codes, by their symbolic names."""
    return {name: code for code, name in load().codes.items()}


def code_name(code: int) -> str:
    """Return the symbolic name of a status code, '' for one that nobody knows."""
    return load().codes.get(code, "")
