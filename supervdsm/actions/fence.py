"""Run a fence agent: the one way to switch another host's power.

It promises that what is secret is in no argument list, no environment, no log line and no answer, and that no option
makes the agent run, read or write anything that the caller names.
"""

from __future__ import annotations

import os
import re
import stat
from typing import Literal

from supervdsm.errors import Invalid, NotAllowed, NotFound
from supervdsm.meanings import meaning
from supervdsm.programs import run
from supervdsm.registry import VDSMD, Context, action

AGENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
ADDRESS = re.compile(r"[A-Za-z0-9\[][A-Za-z0-9_.:%\[\]-]{0,255}")
OPTION = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
LONGEST = 1024
WORD = re.compile(r"(?!-)[^\s'\"`$;|&<>]*")
"""A value that stays one argument, and no option, where an agent puts it into the command line of ssh or ipmitool."""

SETTLED = {"agent", "action", "option", "o"}
"""What the arguments say, and no option says again."""

DANGEROUS = re.compile(
    r"(.*_)?(cmd|command|dir|options|log|sudo|exec|plugin|devices?)"
    r"|.*(path|script|files?|directory|debug|config|yaml|openrc|serviceaccount)"
)
"""Options by which agents take a program to run (passwd_script, ssh_path), a file that may name one (kubeconfig), or a file to
write (debug_file), in root's name."""

SECRET = re.compile(r".*(pass|secret|token|key|auth|community|credential).*")

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

    `options`: further lines "name=value". Return {"code": its exit status, "output": what it said, without secrets}. Raises
    Invalid, NotAllowed, NotFound (no such agent), Unsupported (it cannot be run) and TimedOut (after `patience` seconds, 170 at
    most).
    """
    path = _agent(context, agent)
    if not ADDRESS.fullmatch(address):
        raise Invalid(f"not an address: {address!r}")
    lines = {"agent": f"fence_{agent}", "ipaddr": address, "login": username, "action": deed, "passwd": password}
    lines |= {"port": port} if port else {}
    lines |= {"secure": "yes"} if secure else {}
    further = _options(options)
    for name, value in (*lines.items(), *further):
        _check_value(name, value)
    told = "".join(f"{name}={value}\n" for name, value in (*lines.items(), *further))
    ended = run(path, stdin=told, timeout=max(1.0, min(patience, 170.0)))
    secrets = [password, *(value for name, value in further if SECRET.fullmatch(name.lower()))]
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


def _options(options: str) -> list[tuple[str, str]]:
    """Return names and values of the further lines."""
    found = []
    for line in options.replace("\r\n", "\n").split("\n"):
        if not line.strip():
            continue
        name, given, value = line.strip().partition("=")
        plain = name.strip().lower().replace("-", "_")
        if not given or not OPTION.fullmatch(name.strip()):
            raise Invalid("a fence option is not name=value")  # without the line: there may be a secret in it
        if plain in SETTLED or DANGEROUS.fullmatch(plain):
            raise NotAllowed(f"the fence option {name.strip()} is not for callers to give")
        found.append((name.strip(), value.strip()))
    return found


def _check_value(name: str, value: str) -> None:
    if len(value) > LONGEST or not value.isprintable():
        raise Invalid(f"the fence agent's {name} is too long, or has characters that cannot be printed")
    if name != "passwd" and not WORD.fullmatch(value):
        raise Invalid(f"the fence agent's {name} must be one word")  # without it: there may be a secret in it


def _without(secrets: list[str], text: str) -> str:
    for secret in sorted(filter(None, secrets), key=len, reverse=True):
        text = text.replace(secret, "********")
    return text
