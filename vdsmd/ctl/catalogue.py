"""Catalogue: the verb table as the command line needs it, without importing the daemon's modules every time.

What is derived from the table is kept beside the byte code, and like it is made anew when a source has changed. Nothing
but the table is ever edited. (Importing the table takes as long as all the rest of vdsmctl.)
"""

from __future__ import annotations

import contextlib
import importlib
import marshal
import os
import re
import sys
from typing import Any, NamedTuple

import vdsmd.api

FOLDER = os.path.dirname(os.path.abspath(vdsmd.api.__file__))
KEPT = os.path.join(FOLDER, "__pycache__", f"verbs.{sys.implementation.cache_tag}.marshal")
FORM = 1
LONGEST_SUMMARY = 72
"""A longer first sentence is cut in lists where it first takes breath."""


class Param(NamedTuple):
    name: str
    hint: str
    required: bool
    default: Any


class Entry(NamedTuple):
    """One verb: `cli` is its subcommand or '', `doc` its manual, whose first sentence stands alone in lists."""

    name: str
    cli: str
    doc: str
    local: bool
    params: tuple[Param, ...]

    @property
    def summary(self) -> str:
        paragraph = " ".join(self.doc.partition("\n\n")[0].split())
        sentence = re.split(r"\.(?: |$)", paragraph, maxsplit=1)[0]
        return sentence if len(sentence) <= LONGEST_SUMMARY else re.split("[,:;] ", sentence, maxsplit=1)[0]


def load() -> list[Entry]:
    """Return all verbs, by name."""
    stamp = _stamp()
    try:
        with open(KEPT, "rb") as file:
            kept_stamp, rows = marshal.load(file)
        if kept_stamp == stamp:
            return [entry(row) for row in rows]
    except (OSError, ValueError, EOFError, TypeError):
        pass  # none yet, or cut: it is only a copy
    rows = read_table()
    if not sys.dont_write_bytecode:
        _keep((stamp, rows))
    return [entry(row) for row in rows]


def read_table() -> list[tuple[Any, ...]]:
    """Import every module that declares verbs, and return the table's content in plain values."""
    for name in declaring_modules():
        importlib.import_module(name)
    from vdsmd.api.table import TABLE

    return [
        (verb.name, verb.cli, _doc(verb.run.__doc__ or ""), verb.local, _params(verb.run))
        for verb in sorted(TABLE.values(), key=lambda verb: verb.name)
    ]


def declaring_modules() -> list[str]:
    """Return the modules of the API that declare verbs."""
    found = []
    for name in sorted(os.listdir(FOLDER)):
        if name.endswith(".py"):
            with open(os.path.join(FOLDER, name), encoding="utf-8") as file:
                if re.search(r"^@verb\(", file.read(), re.MULTILINE):
                    found.append(f"vdsmd.api.{name.removesuffix('.py')}")
    return found


def _params(function: Any) -> tuple[tuple[Any, ...], ...]:
    """Return (name, annotation, required, default) of each parameter after the daemon."""
    code = function.__code__
    names = code.co_varnames[1 : code.co_argcount]
    defaults = function.__defaults__ or ()
    first_optional = len(names) - len(defaults)
    return tuple(
        (
            name,
            str(function.__annotations__.get(name, "")),
            number < first_optional,
            defaults[number - first_optional] if number >= first_optional else None,
        )
        for number, name in enumerate(names)
    )


def _doc(text: str) -> str:
    """Return the docstring without the indentation of its later lines."""
    return "\n".join(line.removeprefix("    ").rstrip() for line in text.strip().splitlines())


def entry(row: Any) -> Entry:
    """Return a row of `read_table` as an Entry."""
    name, cli, doc, local, params = row
    return Entry(name, cli, doc, local, tuple(Param(*param) for param in params))


def _stamp() -> list[Any]:
    """Return what tells whether a source has changed since."""
    with os.scandir(FOLDER) as entries:
        sources = [(entry.name, entry.stat()) for entry in entries if entry.name.endswith(".py")]
    return [FORM, sorted((name, stat.st_mtime_ns, stat.st_size) for name, stat in sources)]


def _keep(content: Any) -> None:
    beside = f"{KEPT}.{os.getpid()}"
    with contextlib.suppress(OSError, ValueError):
        os.makedirs(os.path.dirname(KEPT), exist_ok=True)
        with open(beside, "wb") as file:
            marshal.dump(content, file)
        os.replace(beside, KEPT)
