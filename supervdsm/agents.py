"""Fence agents: what they say of themselves, and what they are then told.

It promises that an agent which says what it takes is told nothing else: of what it does not know, an agent of the usual kind
complains in the system's log, word for word, and there may be a secret in it.
"""

from __future__ import annotations

import os
import re
from typing import NamedTuple

from supervdsm.errors import TimedOut, Unsupported
from supervdsm.programs import find, run

Line = tuple[str, str | None]
"""A name, and a value if it has one."""

DOCUMENTED = b"metadata", b"show_docs"
"""What is somewhere in a program that can say what it takes. Another is not asked: it could take that for something to do."""
PARAMETER = re.compile(r'<parameter\s[^>]*?name="([^"]+)"[^>]*>\s*(?:<getopt\s[^>]*?mixed="([^"]*)")?')
LONG = re.compile(r"--([A-Za-z0-9][A-Za-z0-9_.-]*)")
QUIET = {"PYTHONWARNINGS": "ignore"}
"""Agents warn of what they are made with, on the output that is to say why they failed."""
TALKATIVE = {"verbose", "verbose_level"}
"""With these an agent writes the commands that it runs to the system's log, secrets and all."""
PATIENCE = 30.0
"""Seconds that an agent gets to say what it takes, and no more than half of those that there are for all of it."""
IPMITOOL = os.path.join(os.path.dirname(os.path.abspath(__file__)), "ipmitool.sh")
IPMITOOL_PATH, PASSWORDS = "ipmitool_path", ("passwd", "password")
MASK = "********"

Taken = dict[str, frozenset[str]]
"""What an agent takes: under each name, all the names of the same thing. Names are `plain`."""


class Told(NamedTuple):
    """What an agent is told: lines on its standard input, and variables. `left_out`: names of what it does not take."""

    lines: list[Line]
    environment: dict[str, str]
    left_out: list[str]


def plain(name: str) -> str:
    """Return the one form of a name that may be written with either kind of dash."""
    return name.strip().replace("-", "_")


def taken(path: str, patience: float) -> Taken | None:
    """Ask the agent which options it takes. None when it does not say."""
    with open(path, "rb") as program:
        content = program.read(1 << 20)
    if not any(word in content for word in DOCUMENTED):
        return None
    try:
        said = run(path, "-o", "metadata", timeout=patience).output
    except (TimedOut, Unsupported):
        return None
    found: Taken = {}
    for name, mixed in PARAMETER.findall(said):
        names = {plain(each) for each in (name, *LONG.findall(mixed))}
        for each in names:
            found[each] = found.get(each, frozenset()) | names
    return found or None


def told(lines: list[Line], takes: Taken | None) -> Told:
    """Return what of these lines the agent is to be told, and how. `takes`: as it says itself; None: nobody knows."""
    if takes is None:
        return Told(lines, QUIET, [])
    known = takes.keys() - TALKATIVE
    kept = [(name, value) for name, value in lines if plain(name) in known]
    left_out = [name for name, _ in lines if plain(name) not in {"agent", *known}]
    secret = next((value for name, value in reversed(kept) if plain(name) in PASSWORDS), None)
    if secret and IPMITOOL_PATH in takes and _ipmitool():
        kept = [(name, MASK if plain(name) in PASSWORDS else value) for name, value in kept]
        return Told([*kept, (IPMITOOL_PATH, IPMITOOL)], QUIET | {"IPMI_PASSWORD": secret}, left_out)
    return Told(kept, QUIET, left_out)


def text(lines: list[Line]) -> str:
    """Return what the agent reads."""
    return "".join(f"{name}\n" if value is None else f"{name}={value}\n" for name, value in lines)


def _ipmitool() -> bool:
    """Say whether ours can stand in for it: it may have been copied to where programs cannot be run."""
    try:
        find("ipmitool")
    except Unsupported:
        return False
    return os.access(IPMITOOL, os.X_OK)
