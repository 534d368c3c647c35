"""Verbs about the daemon itself, for operators: what it is doing, what it holds, and replacing its code."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import msgspec

from drivers.errors import Invalid
from vdsmd.api.table import Reply, verb
from vdsmd.api.wire import Number

if TYPE_CHECKING:
    from vdsmd.daemon import Daemon

HELPER_TIMEOUT = 30.0


@verb("vdsmd.status", quick=True, gated=False)
def status(daemon: Daemon) -> Reply:
    """Return what the daemon is doing.

    `info` holds generation, release, owners, children, descriptors and the last re-exec's outcome: `info.reexec` has
    `number`, `state` (idle, rehearsing, pending, quiescing, done, refused, cancelled), `reason`, `waits_for`,
    `pause_ms` and `steps`.
    """
    return {"info": _sendable(daemon.status())}


@verb("vdsmd.reexec", quick=True, gated=False, local=True)
def reexec(daemon: Daemon, now: bool = False) -> Reply:
    """Ask for the running code to be replaced by what is on disk.

    Guests, and everything else that the daemon holds, go on. Returns the request's `number` at once; what
    becomes of it is told by `vdsmd.status`. With `now`, it is refused when it would have to wait for a safe point.
    """
    return {"number": daemon.request_reexec(now=now)}


@verb("vdsmd.cancel", quick=True, gated=False, local=True)
def cancel(daemon: Daemon) -> Reply:
    """Take back a re-exec that is pending. An error when there is none."""
    if not daemon.cancel_reexec():
        raise Invalid(what="cancelling the re-exec", reason="none is waiting")
    return {}


@verb("vdsmd.helper", gated=False, cli="host helper")
def helper(daemon: Daemon) -> Reply:
    """Call supervdsm, which does what needs root, and return how that went.

    `way` says where it is; `answer` is its own, and `ms` the milliseconds that it took. An error says why there is no answer.
    """
    begun = time.monotonic()
    answer = daemon.helper.call("ping", timeout=HELPER_TIMEOUT)
    return {"way": daemon.helper.describe(), "answer": answer, "ms": f"{(time.monotonic() - begun) * 1000:.1f}"}


@verb("vdsmd.state", quick=True, gated=False, local=True)
def state(daemon: Daemon) -> Reply:
    """Return all that would survive a re-exec now.

    `state` is JSON text, as in the hand-off: an object of each owner's record. The wire cannot hold all that JSON can.
    """
    return {"state": msgspec.json.encode(daemon.snapshot_plain()).decode()}


@verb("vdsmd.events", gated=False, local=True)
def events(daemon: Daemon, since: Number = 0, limit: Number = 1000) -> Reply:
    """Return what has happened after the event with this number, in order.

    `events` has at most `limit` of them, and never more than 1000: each with `number`, `time` (seconds since 1970), `name`
    and `fields` (a struct of strings). `missed` lists the ranges of numbers, as pairs [from, to], between `since` and
    `read_to` that cannot be told any more: lost, or too old to be kept. Ask for `read_to` next; with a negative `since`, for
    the last so many. `first` and `last` are the numbers there are. `journal` is the name of the sequence: when it
    changes, or `last` is less than `since`, numbers have begun anew. All numbers of events are strings of digits. Whether
    there is something new is told, at less cost, by `journal` and `last` in `info.events` of `vdsmd.status`.
    """
    page = daemon.journal.read(since, limit)
    return {
        "events": [{**msgspec.structs.asdict(event), "number": str(event.number)} for event in page.events],
        "missed": [[str(low), str(high)] for low, high in page.missed],
        "first": str(page.first),
        "last": str(page.last),
        "read_to": str(page.read_to),
        "journal": page.journal,
    }


def _sendable(value: Any) -> Any:
    """Return value in the wire's own kinds: large numbers (start times of processes) as digits, nothing as ''."""
    if isinstance(value, dict):
        return {key: _sendable(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_sendable(item) for item in value]
    if isinstance(value, int) and not -(2**31) <= value < 2**31:
        return str(value)
    return "" if value is None else value
