"""The caller's side of the helper: one call is one action.

It promises that a call ends: with the action's value, with the error that the action raised, or with one that says why there is
no answer. Each call waits on a channel of its own, so threads may call at once and a slow call holds up no other.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import select
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import msgspec

from supervdsm import wire
from supervdsm.errors import (
    MEANINGS,
    ActionError,
    AlreadyExists,
    Busy,
    Failed,
    HelperGone,
    Invalid,
    NoHelper,
    NotAllowed,
    NotFound,
    TimedOut,
    Unsupported,
)

__all__ = [
    "ActionError",
    "AlreadyExists",
    "Busy",
    "Client",
    "Failed",
    "HelperGone",
    "Invalid",
    "NoHelper",
    "NotAllowed",
    "NotFound",
    "TimedOut",
    "Unsupported",
    "Without",
]

log = logging.getLogger("supervdsm.client")

PATIENCE = 330.0
"""Seconds that a call without a time-out waits for its answer: longer than any action may take (`registry.LONGEST`)."""
RETURN = 3.0
"""Seconds that a call waits for a helper that is not there to come back."""
LOOK_AGAIN = 0.05


class Client:
    """A way to a helper: over one end of a socket pair (`fd`, which stays the caller's to close), or to a service by the path
    of its socket. May be used by several threads at once."""

    def __init__(
        self, fd: int | None = None, path: str | None = None, on_gone: Callable[[], None] | None = None
    ) -> None:
        assert (fd is None) != (path is None), "either a descriptor or a path"
        self.path = path or ""
        self.gone = False
        """Whether the helper at the other end of the pair has been seen to have ended."""
        self._on_gone = on_gone
        self._number = -1 if fd is None else fd
        # A duplicate: the named descriptor belongs to whoever holds it, and may be closed or handed on while a call waits.
        self._socket = None if fd is None else wire.with_credentials(socket.socket(fileno=os.dup(fd)))
        self._lock = threading.Lock()

    def fileno(self) -> int:
        """Return the descriptor that was given, or the connection's, -1 while there is none."""
        if not self.path:
            return self._number
        connection = self._socket
        return -1 if connection is None else connection.fileno()

    def call(self, action: str, *, timeout: float | None = None, **arguments: Any) -> Any:
        """Have an action done, and return its value, or the descriptor that it answers with: a number, the caller's to close.

        `timeout`: seconds to wait for the answer. Raises ActionError: what the action raised; NoHelper and Invalid when nothing
        was done; TimedOut and HelperGone when that is not known.
        """
        deadline = time.monotonic() + (PATIENCE if timeout is None else timeout)
        request = _encode(action, arguments)
        with self._ask(action, request, deadline) as ours:
            # Only the helper, or the packet on its way there, still has the other end: if that goes, we are told at once.
            ours.settimeout(max(deadline - time.monotonic(), 0.001))
            try:
                packet = wire.receive(ours)
            except TimeoutError:
                raise TimedOut(f"{action}: no answer from supervdsm within {timeout or PATIENCE:g} s") from None
            except OSError as error:
                raise self._lost(action) from error
        if not packet.data:
            raise self._lost(action)
        return _answer(action, packet)

    def close(self) -> None:
        """Close the connection. A later call by path makes another."""
        with self._lock:
            if self._socket is not None:
                self._socket.close()
                self._socket = None

    def _ask(self, action: str, request: bytes, deadline: float) -> socket.socket:
        """Send a request; return the channel on which the answer comes."""
        try:
            ours, theirs = wire.pair()
            with theirs, contextlib.ExitStack() as undo:
                undo.callback(ours.close)
                self._send(action, request, theirs.fileno(), deadline)
                undo.pop_all()
        except OSError as error:
            raise NoHelper(f"{action}: supervdsm cannot be called: {error}") from error
        return ours

    def _send(self, action: str, request: bytes, channel: int, deadline: float) -> None:
        connection = self._connection(action, deadline)
        try:
            _send(action, connection, request, channel, deadline)
        except (BrokenPipeError, ConnectionError) as error:
            if not self.path:
                self._lost(action)
                raise NoHelper(f"{action}: supervdsm has ended") from error
            # It has ended since the last call. A packet that was not sent is not done twice when it is sent again.
            _send(action, self._connection(action, deadline, instead_of=connection), request, channel, deadline)

    def _connection(self, action: str, deadline: float, instead_of: socket.socket | None = None) -> socket.socket:
        with self._lock:
            # The old one is not closed here: another thread may be using it. It closes when the last one lets go of it.
            if self._socket is None or self._socket is instead_of:
                if not self.path:
                    raise NoHelper(f"{action}: the connection to supervdsm is closed")
                self._socket = _connect(action, self.path, min(deadline, time.monotonic() + RETURN))
            return self._socket

    def _lost(self, action: str) -> HelperGone:
        """Return the error. Over a pair, take note unless it is only this call that has lost its answer."""
        if not self.path and not self.gone and self._ended():
            self.gone = True
            if self._on_gone is not None:
                self._on_gone()
        return HelperGone(f"{action}: supervdsm ended before it had answered")

    def _ended(self) -> bool:
        connection = self._socket
        if connection is None:
            return True
        poll = select.poll()
        poll.register(connection, 0)
        return bool(poll.poll(0))  # hung up


class Without:
    """Stands where a client would, when there is no helper."""

    def call(self, action: str, *, timeout: float | None = None, **arguments: Any) -> Any:
        """Raise NoHelper."""
        raise NoHelper(f"{action} needs root, and there is no supervdsm that would do it")


def _encode(action: str, arguments: dict[str, Any]) -> bytes:
    try:
        request = msgspec.json.encode({"action": action, "arguments": arguments})
    except (TypeError, ValueError, OverflowError) as error:
        raise Invalid(f"{action}: arguments that cannot be sent: {error}") from error
    if len(request) > wire.MOST:
        raise Invalid(f"{action}: a request of {len(request)} bytes, and {wire.MOST} are the most")
    return request


def _connect(action: str, path: str, deadline: float) -> socket.socket:
    while True:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            connection.settimeout(max(deadline - time.monotonic(), 0.001))
            connection.connect(path)
            connection.settimeout(None)
            break
        except OSError as error:
            connection.close()
            if time.monotonic() + LOOK_AGAIN > deadline or isinstance(error, PermissionError):
                raise NoHelper(f"{action} needs root, and supervdsm does not answer at {path}: {error}") from error
            time.sleep(LOOK_AGAIN)
    _pid, uid = wire.peer(connection)
    if uid != 0:
        connection.close()
        raise NoHelper(f"{action} needs root, and {path} is a socket of user {uid}")
    return wire.with_credentials(connection)


def _send(action: str, connection: socket.socket, request: bytes, channel: int, deadline: float) -> None:
    while True:
        try:
            return wire.send(connection, request, [channel])
        except BlockingIOError:
            _wait_for_room(action, connection, deadline)


def _wait_for_room(action: str, connection: socket.socket, deadline: float) -> None:
    poll = select.poll()
    poll.register(connection, select.POLLOUT)
    if not poll.poll(max(math.ceil((deadline - time.monotonic()) * 1000), 0)):
        raise TimedOut(f"{action}: supervdsm takes no calls; nothing was done")


def _answer(action: str, packet: wire.Packet) -> Any:
    fds = packet.fds
    try:
        reply = msgspec.json.decode(packet.data, type=dict[str, Any])
        if "descriptor" in reply and fds:
            return fds.pop()
    except msgspec.DecodeError as error:
        raise Failed(f"{action}: supervdsm's answer makes no sense: {error}") from error
    finally:
        wire.close(fds)
    if "error" in reply:
        raise _error(action, reply["error"])
    return reply.get("value")


def _error(action: str, told: dict[str, str]) -> ActionError:
    error = MEANINGS.get(told["type"], Failed)(told["text"])
    error.remote_traceback = told.get("traceback", "")
    if error.remote_traceback:
        log.debug("An action failed action=%s\n%s", action, error.remote_traceback)
    return error
