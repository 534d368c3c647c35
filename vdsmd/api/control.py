"""Verbs about the daemon itself, for operators: what it is doing, what it holds, and replacing its code."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from drivers.errors import Invalid
from vdsmd.api.table import Reply, verb

if TYPE_CHECKING:
    from vdsmd.daemon import Daemon


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


@verb("vdsmd.state", quick=True, gated=False, local=True)
def state(daemon: Daemon) -> Reply:
    """Return all that would survive a re-exec now.

    `state` is JSON text, as in the hand-off: an object of each owner's record. The wire cannot hold all that JSON can.
    """
    return {"state": msgspec.json.encode(daemon.snapshot_plain()).decode()}


def _sendable(value: Any) -> Any:
    """Return value in the wire's own kinds: large numbers (start times of processes) as digits, nothing as ''."""
    if isinstance(value, dict):
        return {key: _sendable(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_sendable(item) for item in value]
    if isinstance(value, int) and not -(2**31) <= value < 2**31:
        return str(value)
    return "" if value is None else value
