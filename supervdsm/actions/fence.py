"""Run a fence agent: the one way to switch another host's power.

It promises that what is secret is in no argument list of ours, no log line and no answer, and in no environment but root's; and
that no option makes the agent run, read or write anything that the caller names.
"""

from __future__ import annotations

import logging
import os
import re
import stat
import time
from collections.abc import Iterable
from typing import Literal

from supervdsm.agents import MASK, PATIENCE, Line, Taken, plain, taken, text, told
from supervdsm.errors import Invalid, NotAllowed, NotFound
from supervdsm.meanings import meaning
from supervdsm.programs import run
from supervdsm.registry import VDSMD, Context, action

log = logging.getLogger("supervdsm.fence")

AGENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
ADDRESS = re.compile(r"[A-Za-z0-9\[][A-Za-z0-9_.:%\[\]-]{0,255}")
OPTION = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
LONGEST = 1024
SHORT = 3
WORD = re.compile(r"(?!-)[^\s'\"`$;|&<>]*")
"""A value that stays one argument, and no option, where an agent puts it into the command line of ssh or ipmitool."""

SETTLED = {"agent", "action", "option", "o", "help", "usage", "version"}
"""What the arguments say, and no option says again; and what makes an agent do nothing, and end as if it had done it."""

DANGEROUS = re.compile(
    r"(.*_)?(cmd|command|dir|options|log|sudo|exec|plugin|devices?)"
    r"|.*(path|script|files?|directory|debug|config|yaml|openrc|serviceaccount|cert|tlskey)"
)
"""Options by which agents take a program to run (passwd_script, ssh_path), a file that may name one (kubeconfig), or a file to
read or write (tlskey, debug_file), in root's name."""
NO_PATHS = {"api_path"}
"""What only sounds so: it is part of a URL."""

ANY_TEXT = {"passwd", "cmd_prompt", "command_prompt"}
"""What agents only compare or type, and so may be more than one word. A prompt has a > in it more often than not."""

SECRET = re.compile(r".*(pass|secret|token|key|auth|community|credential|_kg).*")

Deed = Literal["status", "on", "off", "reboot", "monitor"]


@action("fence.run", callers=(VDSMD,), slow=True, timeout=180, secret=("password", "options"))
def fence(
    context: Context,
    agent: str,
    address: str,
    username: str,
    password: str,
    deed: Deed,
    port: str = "",
    secure: bool = False,
    options: str = "",
    patience: float = 120.0,
) -> dict[str, int | str]:
    """Run `fence_<agent>` of the directory that root has configured; tell it what to do on its standard input.

    `options`: further lines "name=value" (or "name"); those that the agent says it does not know are left out, and logged.
    Return {"code": its exit status, "output": what it said, without secrets}. Raises Invalid, NotAllowed, NotFound (no such
    agent), Unsupported (it cannot be run) and TimedOut (after `patience` seconds, 170 at most).
    """
    deadline = time.monotonic() + max(1.0, min(patience, 170.0))
    path = _agent(context, agent)
    if not ADDRESS.fullmatch(address):
        raise Invalid(f"not an address: {address!r}")
    lines = {"agent": f"fence_{agent}", "ipaddr": address, "login": username, "action": deed, "passwd": password}
    lines |= {"port": port} if port else {}
    lines |= {"secure": "yes"} if secure else {}
    given = [*lines.items(), *_options(options)]
    for name, value in given:
        _check_value(name, value or "")
    takes = taken(path, patience=min(PATIENCE, (deadline - time.monotonic()) / 2))
    _check_taken(given, takes)
    tell = told(given, takes)
    if tell.left_out:
        log.warning("The agent does not know these, or may not have them agent=%s names=%s", agent, tell.left_out)
    ended = run(
        path, stdin=text(tell.lines), environment=tell.environment, timeout=max(1.0, deadline - time.monotonic())
    )
    secrets = [password, *(value or "" for name, value in given if SECRET.fullmatch(name.lower()))]
    return {"code": ended.code, "output": _without(secrets, ended.output)}


def _agent(context: Context, agent: str) -> str:
    """Return the path of the agent's program: root's own, and nobody else may write to it."""
    if not AGENT.fullmatch(agent):
        raise NotAllowed(f"not the name of a fence agent: {agent!r}")
    path = f"{context.fence_agents}/fence_{agent}"
    if not os.path.exists(path):
        raise NotFound(f"there is no fence agent {agent} on this host ({path})")
    with meaning(path):
        status = os.stat(path)
    if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o022:
        raise NotAllowed(f"{path} is not a program of root's alone")
    return path


def _options(options: str) -> list[Line]:
    """Return names and values of the further lines."""
    found = []
    for line in options.replace("\r\n", "\n").split("\n"):
        if not line.strip():
            continue
        name, given, value = line.strip().partition("=")
        if not OPTION.fullmatch(name.strip()):
            raise Invalid(
                "a fence option is neither name=value nor a name"
            )  # without the line: there may be a secret in it
        _check_option(name, {name})
        found.append((name.strip(), value.strip() if given else None))
    return found


def _check_taken(given: list[Line], takes: Taken | None) -> None:
    """Raise NotAllowed for an option which the agent has another name for that is not for callers to give."""
    for name, _ in given if takes else ():
        if plain(name) != "action":
            _check_option(name, (takes or {}).get(plain(name), frozenset()))


def _check_option(name: str, names: Iterable[str]) -> None:
    for each in {plain(each).lower() for each in names} - NO_PATHS:
        if each in SETTLED or DANGEROUS.fullmatch(each):
            raise NotAllowed(f"the fence option {name.strip()} is not for callers to give")


def _check_value(name: str, value: str) -> None:
    if len(value) > LONGEST or not value.isprintable():
        raise Invalid(f"the fence agent's {name} is too long, or has characters that cannot be printed")
    if plain(name) not in ANY_TEXT and not WORD.fullmatch(value):
        raise Invalid(f"the fence agent's {name} must be one word")  # without it: there may be a secret in it


def _without(secrets: list[str], text: str) -> str:
    for secret in sorted(filter(None, secrets), key=len, reverse=True):
        part = re.escape(secret)
        # One so short is part of many a word, and would be told by what is left of them.
        text = re.sub(part if len(secret) > SHORT else rf"(?<!\w){part}(?!\w)", MASK, text)
    return text
