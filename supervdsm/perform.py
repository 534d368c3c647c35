"""One call from its bytes to its reply, and the line in the log that says who asked for what and how it ended.

It promises that whatever an action does or raises, there is a reply.
"""

from __future__ import annotations

import json
import logging
import select
import socket
import time
import traceback
from typing import Any, NamedTuple

from supervdsm import wire
from supervdsm.errors import MEANINGS, ActionError, Failed, Invalid
from supervdsm.registry import ACTIONS, Action, Context, Descriptor

log = logging.getLogger("supervdsm.call")

LONGEST_SHOWN = 120
LONGEST_LINE = 1000
LONGEST_TEXT = 8000


class Reply(NamedTuple):
    data: bytes
    fds: list[int]
    """The descriptors that go with it; closed once it is sent."""
    outcome: str


class Call:
    """What was asked, by whom, and where the answer goes."""

    def __init__(self, caller: str, pid: int, channel: socket.socket, request: bytes) -> None:
        self.caller, self.pid, self.channel, self.request = caller, pid, channel, request
        self.action, self.arguments = "-", "-"
        """For the log."""
        self._began = time.monotonic()
        self.answered = False

    def understand(self) -> tuple[Action, dict[str, Any]]:
        """Return the action and its arguments, checked. Raises NotAllowed, Invalid."""
        try:
            told = json.loads(self.request.decode("utf-8"), parse_constant=_no_number)
            name, given = told["action"], told["arguments"]
            sound = len(told) == 2 and type(name) is str and type(given) is dict
        except (ValueError, TypeError, KeyError, RecursionError):
            sound = False
        if not sound:
            raise Invalid("not a request that makes sense")
        action = ACTIONS.get(name)
        if action is None:
            self.action = _shown(name)
            raise Invalid(f"there is no action {name[:LONGEST_SHOWN]!r}")
        self.action = name
        # One that the action does not know may be a secret with its name misspelt.
        plain = action.arguments.keys() - action.secret
        shown = (f"{_shown(key)[1:-1]}={_shown(given[key]) if key in plain else '***'}" for key in given)
        self.arguments = " ".join(shown)[:LONGEST_LINE]
        action.check(self.caller, given)
        return action, given

    def is_wanted(self) -> bool:
        """Say whether somebody still waits for the answer."""
        poll = select.poll()
        poll.register(self.channel, 0)
        return not poll.poll(0)

    def answer(self, reply: Reply) -> None:
        """Send the reply, close everything that belongs to the call, and log its end."""
        outcome = reply.outcome
        try:
            wire.send(self.channel, reply.data, reply.fds)
        except OSError as error:
            outcome = f"{outcome} (the answer was not wanted: {error})"
        wire.close(reply.fds)
        self.channel.close()
        self.answered = True
        log.info(
            "call caller=%s pid=%d action=%s arguments=[%s] outcome=%s ms=%.2f",
            self.caller, self.pid, self.action, self.arguments, outcome, (time.monotonic() - self._began) * 1000,
        )  # fmt: skip


def perform(action: Action, context: Context, arguments: dict[str, Any]) -> Reply:
    """Do the action, and return the reply."""
    try:
        value = action.function(context, **arguments)
        if isinstance(value, Descriptor):
            return Reply(b'{"descriptor": true}', [value.fd], "ok")
        data = json.dumps({"value": value}, allow_nan=False).encode()
        if len(data) > wire.MOST:
            raise Failed(f"the action was done, but its answer is too large: {len(data)} bytes")
        return Reply(data, [], "ok")
    except ActionError as error:
        return refusal(error, traceback.format_exc())
    except Exception as error:
        # The edge: what nobody has thought of fails this call, and no other.
        trace = traceback.format_exc()
        # In one line: its text may be a caller's.
        log.error("An action failed unexpectedly action=%s traceback=%s", action.name, ascii(trace[-LONGEST_TEXT:]))
        return refusal(Failed(f"{action.name}: {type(error).__name__}: {error}"), trace)


def refusal(error: ActionError, trace: str = "") -> Reply:
    """Return the reply that raises the error at the caller's."""
    kind = next(name for name in (base.__name__ for base in type(error).__mro__) if name in MEANINGS)
    text = str(error)[:LONGEST_TEXT]
    told = {"type": kind, "text": text, "traceback": trace[-LONGEST_TEXT:]}
    return Reply(json.dumps({"error": told}).encode(), [], f"{kind}: {_shown(text)}")


def received(packet: wire.Packet) -> Reply:
    """Return the reply that came from a process of ours."""
    error = json.loads(packet.data).get("error") if packet.data.startswith(b'{"error"') else None
    return Reply(packet.data, packet.fds, f"{error['type']}: {_shown(error['text'])}" if error else "ok")


def _shown(value: Any) -> str:
    """Return the value for a line of the log: printable ASCII, and not too much of it."""
    text = ascii(value)
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}...({len(text)})"


def _no_number(text: str) -> None:
    raise ValueError(f"{text} is no number")
