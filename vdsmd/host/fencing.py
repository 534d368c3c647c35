"""Fencing: another host's power is switched by a fence agent, which root runs for us.

It promises that nothing is done for an action that nobody knows, that a host which the policy's storage sees alive is left
alone, and that what an agent said is answered without secrets.

Source of the agents' exit statuses (0 on, 1 failed, 2 off): the agents' own interface.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import msgspec

from drivers.base import Root
from drivers.errors import Failed, Invalid
from supervdsm.client import ActionError

log = logging.getLogger("fence")

POWER = {0: "on", 1: "unknown", 2: "off"}
"""What an agent's exit status says when it is asked for the status."""
ACTIONS = ("status", "on", "off", "reboot", "monitor")
PATIENCE = 170.0
"""Seconds that an agent may take."""
ANSWERED = 185.0
"""Seconds until the helper must have answered: it has the agent's, and time to end it."""
LONGEST = 1000
STRANGE = 1
"""The code of the answer for an exit status that no agent should have."""

Lives = Callable[[str, int], bool | None]
"""`lives(storage_domain, host_id)`: whether the host with that id renews its lease there; None when that cannot be seen."""


class NoSuchAction(Invalid):
    wire = "unexpected"


class AgentFailed(Failed):
    message = "Fence agent {agent} could not do its work: {reason}"
    wire = "fenceAgent"


class Fence(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked for, as on the wire."""

    addr: str
    port: int | str
    agent: str
    username: str
    password: str
    action: str
    secure: bool = False
    options: str = ""
    policy: dict[str, Any] | None = None


def fence(root: Root, asked: Fence, lives: Lives) -> dict[str, Any]:
    """Return the reply of fenceNode, with an envelope of its own. For worker threads. Raises NoSuchAction, AgentFailed."""
    if asked.action not in ACTIONS:
        raise NoSuchAction(what=f"fence action {asked.action!r}", reason=f"expected one of {', '.join(ACTIONS)}")
    if asked.action == "status":
        return _status(_run(root, asked))
    if domain := _seen_alive(asked.policy or {}, lives):
        log.warning(
            "Left alone address=%s action=%s: it is alive on storage domain %s", asked.addr, asked.action, domain
        )
        return {"operationStatus": "skipped"}
    code, said = _run(root, asked)
    return {**_envelope(code, said), "power": "unknown", "operationStatus": "initiated"}


def _run(root: Root, asked: Fence) -> tuple[int, str]:
    """Return the agent's exit status and what it said."""
    try:
        ended = root.call(
            "fence.run",
            timeout=ANSWERED,
            agent=asked.agent,
            address=asked.addr,
            username=asked.username,
            password=asked.password,
            deed=asked.action,
            port=str(asked.port),
            secure=asked.secure,
            options=asked.options,
            patience=PATIENCE,
        )
    except ActionError as error:
        raise AgentFailed(agent=asked.agent, reason=error) from error
    code, said = int(ended["code"]), _line(str(ended["output"]))
    log.info("Agent ended agent=%s address=%s action=%s code=%d", asked.agent, asked.addr, asked.action, code)
    if code not in (0, 2):
        log.warning("Agent could not do it agent=%s address=%s reason=%s", asked.agent, asked.addr, said or "not told")
    return code, said


def _status(ended: tuple[int, str]) -> dict[str, Any]:
    code, said = ended
    if code not in POWER:
        return _envelope(code, said)
    return {"power": POWER[code]}


def _envelope(code: int, said: str) -> dict[str, Any]:
    if code == 0:
        return {}
    known = code if code in POWER else STRANGE
    return {"status": {"code": known, "message": said or f"the agent ended with exit status {code}"}}


def _seen_alive(policy: dict[str, Any], lives: Lives) -> str:
    """Return a storage domain of the policy on which the host is seen alive, '' when there is none."""
    found = policy.get("storageDomainHostIdMap", {})
    if not isinstance(found, dict):
        raise Invalid(what="policy.storageDomainHostIdMap", reason="expected a struct of host ids by storage domains")
    answers = {domain: lives(domain, _host_id(number)) for domain, number in found.items()}
    if unseen := [domain for domain, answer in answers.items() if answer is None]:
        # Where nothing is seen nothing speaks against it; guests wait for the host to be fenced.
        log.warning("It cannot be seen whether the host is alive on these storage domains: %s", ", ".join(unseen))
    return next((domain for domain, answer in answers.items() if answer), "")


def _host_id(value: Any) -> int:
    if isinstance(value, bool) or not str(value).isascii() or not str(value).isdigit():
        raise Invalid(what="policy.storageDomainHostIdMap", reason=f"not a host id: {str(value)[:50]!r}")
    return int(value)


def _line(said: str) -> str:
    """Return an agent's output in one line."""
    line = " ".join(said.split())
    return "".join(character for character in line if character.isprintable())[:LONGEST]
