"""The language of policies: text in, forms out.

    policy  = form*
    form    = number | "text" | name | name.member | ( form* ) | { form* }        # to the end of the line: a comment

A form in parentheses is what its first name says, of the others; one in braces is its parts in their order, and the value of
the last. It promises that text of any size and depth is read or refused in time that grows with its length, and that a refusal
names the line. It is, in what is here, the language of policies of MOM, the memory overcommitment manager.
"""

from __future__ import annotations

import re

import msgspec

LONGEST = 1 << 18
"""Characters of one policy."""
DEEPEST = 60

TOKEN = re.compile(r"""(\s+|\#[^\n]*)|([(){}])|("[^"\n]*"|'[^'\n]*')|([^\s(){}"'#]+)""")
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\??(\.[A-Za-z_][A-Za-z0-9_]*)?|[-+*/<>]|[<>=!]=")
CLOSES = {"(": ")", "{": "}"}
BLOCK = "{}"
"""Stands first in a form in braces."""


class PolicyError(Exception):
    """The policy makes no sense, or cannot be followed. The text names the line."""

    def __init__(self, line: int, reason: str) -> None:
        super().__init__(f"line {line}: {reason}")


class Name(msgspec.Struct, frozen=True):
    """A name, or a member of what has one: `base.member`."""

    text: str
    line: int

    @property
    def base(self) -> str:
        return self.text.partition(".")[0]

    @property
    def member(self) -> str:
        return self.text.partition(".")[2]


class Form(msgspec.Struct, frozen=True):
    """What stands in one pair of brackets."""

    parts: list[Node]
    line: int

    @property
    def head(self) -> str:
        """The name that it begins with, '' when it begins with none."""
        first = self.parts[0] if self.parts else None
        return first.text if isinstance(first, Name) else ""


Node = float | str | Name | Form


def read(text: str) -> list[Node]:
    """Return the forms of a policy. Raises PolicyError."""
    if len(text) > LONGEST:
        raise PolicyError(1, f"a policy has {LONGEST} characters at most")
    done: list[Node] = []
    open_: list[tuple[str, Form]] = []
    at, line = 0, 1
    while at < len(text):
        found = TOKEN.match(text, at)
        if found is None:
            raise PolicyError(line, "a text that does not end")
        blank, bracket, quoted, word = found.groups()
        if bracket and bracket in CLOSES:
            _open(open_, bracket, line)
        elif not blank:
            node = _close(open_, bracket, line) if bracket else quoted[1:-1] if quoted else _word(word, line)
            (open_[-1][1].parts if open_ else done).append(node)
        at, line = found.end(), line + found[0].count("\n")
    if open_:
        raise PolicyError(open_[-1][1].line, f"{open_[-1][0]} is never closed")
    return done


def _open(stack: list[tuple[str, Form]], bracket: str, line: int) -> None:
    if len(stack) >= DEEPEST:
        raise PolicyError(line, f"more than {DEEPEST} brackets in each other")
    stack.append((bracket, Form([Name(BLOCK, line)] if bracket == "{" else [], line)))


def _close(stack: list[tuple[str, Form]], bracket: str, line: int) -> Form:
    if not stack or CLOSES[stack[-1][0]] != bracket:
        raise PolicyError(line, f"{bracket} closes nothing")
    return stack.pop()[1]


def _word(word: str, line: int) -> float | Name:
    if NUMBER.fullmatch(word):
        return float(word)
    if not NAME.fullmatch(word):
        raise PolicyError(line, f"neither a number nor a name: {word[:50]!r}")
    return Name(word, line)
