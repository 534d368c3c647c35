"""Manual: docs/api.md, made from the verb table and the contract. `scripts/manual` writes it, a test compares it."""

from __future__ import annotations

import importlib
import pkgutil
import sys

import drivers
import vdsmd
from drivers.errors import DriverError
from vdsmd.api import codes, contract
from vdsmd.api.contract import Facts
from vdsmd.ctl import catalogue
from vdsmd.ctl.catalogue import Entry, Param

HEAD = """\
# The API of vdsmd

Made by `scripts/manual` from the verb table and the contract; do not edit.

XML-RPC by POST to `/` or `/RPC2`: over TCP (port 54321, mutual TLS unless `ssl = false`) and over the local socket
`<run_dir>/vdsmd.sock`. Arguments go by position. Every answer is a struct with `status`, itself a struct of `code` (0: all
went well) and `message`; the other keys of a reply come only with code 0. Nothing is ever nil, integers have 32 bits, and
what may be larger is a string of digits. A call of no verb, or with the wrong number of arguments, is answered by a fault.

While virtual machines are being recovered after a start, most verbs answer code 99. Verbs marked *local* are for callers
on the local socket alone. Each is also a subcommand of `vdsmctl` where one is named, and can be reached as
`vdsmctl call VERB ARGS...` in any case.
"""
OWN_GROUP = "the daemon itself"
MISSING = (
    (
        "Never implemented",
        "Engines know these verbs, but no release has ever done anything for them. They answer code 44.",
        True,
    ),
    (
        "Not built yet",
        "These verbs are for storage on block devices. They are known and answer code 44.",
        False,
    ),
)
WORDS = {
    "Uuid": "id",
    "str": "string",
    "bool": "boolean",
    "int": "int",
    "Number": "int, or a string of digits",
    "Size": "bytes, as a string of digits",
    "BoolLike": "boolean, or 'true' or 'false'",
    "Truthy": "anything: true unless empty or zero",
    "Struct": "struct",
    "StringMap": "struct of strings",
    "Ignored": "accepted and ignored",
    "int | str": "int, or string",
}


def manual() -> str:
    """Return the whole text."""
    entries = [catalogue.entry(row) for row in catalogue.read_table()]
    known = contract.verbs()
    built = {entry.name for entry in entries}
    groups: dict[str, list[Entry]] = {}
    for entry in entries:
        groups.setdefault(known[entry.name].group if entry.name in known else OWN_GROUP, []).append(entry)
    parts = [HEAD, _contents(groups)]
    for group in sorted(groups):
        parts += [f"## {_title(group)}\n", *(_verb(entry, known.get(entry.name)) for entry in groups[group])]
    missing = [facts for facts in contract.load().verbs if facts.name not in built]
    parts += [
        _missing(title, intro, [facts for facts in missing if facts.never is never]) for title, intro, never in MISSING
    ]
    parts.append(_codes())
    return "\n".join(parts)


def _contents(groups: dict[str, list[Entry]]) -> str:
    lines = [
        f"- {_title(group)}: {', '.join(_link(entry.name) for entry in groups[group])}" for group in sorted(groups)
    ]
    ends = [title for title, _, _ in MISSING] + ["Status codes"]
    return "\n".join([*lines, *(f"- [{end}](#{end.lower().replace(' ', '-')})" for end in ends), ""])


def _verb(entry: Entry, facts: Facts | None) -> str:
    lines = [f"### {entry.name}\n", f"    {entry.name}({', '.join(map(_written, entry.params))})\n", entry.doc, ""]
    lines += [_parameter(param) for param in entry.params]
    if entry.params:
        lines.append("")
    told = []
    if facts and facts.reply:
        told.append(f"Reply: {', '.join(f'`{key}`' for key in facts.reply)}.")
    if entry.cli:
        told.append(f"Command line: `vdsmctl {entry.cli}`.")
    if entry.local:
        told.append("*Local.*")
    return "\n".join([*lines, " ".join(told), ""] if told else lines)


def _parameter(param: Param) -> str:
    kind = param.hint.removesuffix(" | None")
    told = WORDS.get(kind, kind)
    if param.required:
        return f"- `{param.name}`: {told}"
    default = "" if param.default is None else f" (default `{param.default!r}`)"
    return f"- `{param.name}`, optional: {told}{default}"


def _missing(title: str, intro: str, missing: list[Facts]) -> str:
    lines = [f"## {title}\n", f"{intro}\n", "| verb | parameters | what it is for |", "|---|---|---|"]
    for facts in sorted(missing, key=lambda facts: facts.name):
        names = ", ".join(f"[{each.name}]" if each.optional else each.name for each in facts.parameters)
        lines.append(f"| `{facts.name}` | {names} | {facts.doc} |")
    return "\n".join([*lines, ""])


def _codes() -> str:
    """Only the codes that this release answers with: the rest of the contract's mean nothing here yet."""
    messages: dict[int, set[str]] = {codes.OK: set()}
    for error in _errors():
        messages.setdefault(codes.code_of(error()), set()).add(error.message)
    lines = [
        "## Status codes\n",
        "What stands in braces is told of the case.\n",
        "| code | name | messages |",
        "|---|---|---|",
    ]
    for code in sorted(messages):
        lines.append(f"| {code} | {contract.code_name(code)} | {'<br>'.join(sorted(messages[code]))} |")
    return "\n".join([*lines, ""])


def _errors() -> list[type[DriverError]]:
    """Return every kind of error that can be raised on purpose, whichever module it is made in."""
    for package in (drivers, vdsmd):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not module.name.endswith(".__main__"):
                importlib.import_module(module.name)
    return [error for error in _below(DriverError) if error.__module__.startswith(("drivers.", "vdsmd."))]


def _below(kind: type[DriverError]) -> list[type[DriverError]]:
    return [kind, *(found for each in kind.__subclasses__() for found in _below(each))]


def _written(param: Param) -> str:
    return param.name if param.required else f"[{param.name}]"


def _link(name: str) -> str:
    return f"[{name}](#{name.lower().replace('.', '')})"


def _title(group: str) -> str:
    return group[0].upper() + group[1:].replace("-", " ")


if __name__ == "__main__":
    sys.stdout.write(manual())
