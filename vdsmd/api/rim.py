"""The rim: listening sockets and the connections that come from them, all in the loop's thread.

It promises that a client is either answered completely or was never accepted, so that a drain before an exec loses no
call: whoever has not been accepted stays with the listening socket, which outlives us; and that no client can take more
than its share, be it by connections, silence, or haste.
"""

from __future__ import annotations

import errno
import logging
import math
import socket
import time
from collections.abc import Callable
from typing import Protocol

from vdsmd.api.connection import Connection
from vdsmd.api.http import Body, Limits
from vdsmd.api.shared import Carry, SecureStream, Serve, Shared, Stream
from vdsmd.api.xmlrpc import Decoder
from vdsmd.loop import READ, Loop, Timer

log = logging.getLogger("rim")

ACCEPT_AT_ONCE = 128
REFUSED_AT_ONCE = 64
"""How many connections beyond the limit are told so; any more are closed without a word."""
WAIT_FOR_FDS = 0.5
_SHORTAGES = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class Tls(Protocol):
    """Makes plain connections secure ones (`tls.server_context`)."""

    def wrap(self, sock: socket.socket) -> SecureStream:
        """Return the secure form of a connection that has just been accepted. Takes the socket over."""
        ...


class Listener:
    """A listening socket of somebody else's, and how its clients are treated."""

    __slots__ = ("local", "sock", "tls")

    def __init__(self, sock: socket.socket, tls: Tls | None, local: bool) -> None:
        self.sock = sock
        self.tls = tls
        self.local = local


class Rim:
    """Accepts, reads, has calls served, and writes. Not thread-safe: everything happens in the loop's thread."""

    def __init__(
        self,
        loop: Loop,
        serve: Serve,
        *,
        limits: Limits | None = None,
        new_body: Callable[[], Body] = Decoder,
        carry: Carry | None = None,
    ) -> None:
        """`carry`: has what PUT and GET ask for; without it, they are refused."""
        self._loop = loop
        self._limits = limits or Limits()
        self._shared = Shared(loop, serve, self._limits, new_body, carry)
        self._shared.forget = self._forget
        self._shared.changed = self._look
        self._listeners: list[Listener] = []
        self._accepting = True
        self._connections: set[Connection] = set()
        self._sweeper: Timer | None = None
        self._shortage: Timer | None = None
        self._short = False
        self._drained: Callable[[], None] | None = None
        self._drain_begun = 0.0
        self._looking = False
        self._look_again: Timer | None = None

    def listen(self, sock: socket.socket, *, tls: Tls | None = None, local: bool = False) -> None:
        """Accept from this listening socket. local: its clients may do what is only for this host's operators."""
        sock.setblocking(False)
        if sock.family != socket.AF_UNIX:
            # Inherited by every connection. An accepted one has its first bytes already: whoever has connected and not
            # yet sent anything (for a second) waits in the kernel, where an exec cannot hurt him.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        listener = Listener(sock, tls, local)
        self._listeners.append(listener)
        if self._accepting:
            self._watch(listener)

    @property
    def busy(self) -> int:
        """How many clients wait for an answer, or are just asking."""
        return sum(connection.busy for connection in self._connections)

    @property
    def connections(self) -> int:
        return len(self._connections)

    # Before an exec

    def wind_down(self) -> None:
        """Make every answer from now on its connection's last. Done ahead of a drain, it leaves hardly any connection
        open on which a call might come in just when it is closed. Clients notice nothing but a new connection per call.
        """
        self._shared.leaving = True

    def pause_accepting(self) -> None:
        """Leave new connections in the kernel."""
        if self._accepting:
            self._accepting = False
            for listener in self._listeners:
                self._loop.unwatch(listener.sock.fileno())
        if self._shortage is not None:
            self._shortage.cancel()
            self._shortage = None

    def resume_accepting(self) -> None:
        """Undo `pause_accepting`, `wind_down` and `drain`: we stay."""
        self._shared.leaving = False
        self._drained = None
        self._cancel_look()
        if not self._accepting:
            self._accepting = True
            for listener in self._listeners:
                self._watch(listener)

    def drain(self, done: Callable[[], None]) -> None:
        """Accept nobody, answer what has been asked or is just being asked, close all connections, and call `done()`.

        `done` is called by the loop, as soon as nobody waits for anything any more: at once when nobody does.
        """
        self.pause_accepting()
        self._shared.leaving = True
        self._drained = done
        self._drain_begun = time.monotonic()
        self._look()

    def close_all(self) -> None:
        """Close every connection at once and listen no more. The listening sockets stay their owner's."""
        self.pause_accepting()
        self._cancel_look()
        for connection in list(self._connections):
            connection.drop()
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None

    def _look(self) -> None:
        """See whether the drain is over."""
        if self._drained is None or self._looking:
            return
        self._looking = True
        self._cancel_look()
        waits = [self._let_go(connection) for connection in list(self._connections)]
        self._looking = False
        until = min((moment for moment in waits if moment > 0), default=None)
        if until is None:
            self._end_drain()
        elif until < math.inf:
            self._look_again = self._loop.call_later(max(0.0, until - time.monotonic()), self._look)

    def _let_go(self, connection: Connection) -> float:
        """Close the connection if nothing more can be expected from it. Return until when to wait for it, 0 if not."""
        connection.pick_up()
        until = connection.patience(self._drain_begun)
        if until > time.monotonic():
            return until
        connection.finish()
        return 0

    def _end_drain(self) -> None:
        done, self._drained = self._drained, None
        for connection in list(self._connections):
            connection.drop()
        if done is not None:
            # By the loop, so that whoever called us is not in the middle of something.
            self._look_again = self._loop.call_later(0, done)

    def _cancel_look(self) -> None:
        if self._look_again is not None:
            self._look_again.cancel()
            self._look_again = None

    # Accepting

    def _watch(self, listener: Listener) -> None:
        self._loop.watch(listener.sock.fileno(), READ, lambda _events: self._accept(listener))

    def _accept(self, listener: Listener) -> None:
        for _ in range(ACCEPT_AT_ONCE):
            try:
                sock, address = listener.sock.accept()
            except BlockingIOError:
                self._short = False
                return
            except OSError as error:
                if error.errno in _SHORTAGES and not self._find_room(error):
                    return
                continue  # that one was gone before we came to it
            sock.setblocking(False)
            self._welcome(sock, _peer(sock, address), listener)

    def _welcome(self, sock: socket.socket, peer: str, listener: Listener) -> None:
        room = self._make_room()
        if not room and (listener.tls or len(self._connections) >= self._limits.connections + REFUSED_AT_ONCE):
            sock.close()
            return
        try:
            stream: Stream = listener.tls.wrap(sock) if listener.tls else sock
        except OSError as error:
            log.info("TLS handshake refused client=%s reason=%s", peer, error)
            sock.close()
            return
        secure = listener.tls is not None
        connection = Connection(self._shared, stream, peer=peer, local=listener.local, secure=secure)
        self._connections.add(connection)
        if self._sweeper is None:
            self._sweeper = self._loop.call_later(self._limits.sweep, self._sweep)
        if not room:
            connection.refuse(503, f"{self._limits.connections} clients are being served; try again later")
        elif not secure:
            connection.pick_up()

    def _make_room(self) -> bool:
        """See that there is room for one more, if need be by closing whoever has been idle for longest."""
        return len(self._connections) < self._limits.connections or self._drop_oldest_idle()

    def _drop_oldest_idle(self) -> bool:
        idle = [connection for connection in self._connections if connection.idle]
        for connection in sorted(idle, key=lambda connection: connection.since):
            connection.pick_up()  # a call may just have arrived
            if connection.idle:
                connection.drop()
                return True
        return False

    def _find_room(self, error: OSError) -> bool:
        """No descriptor is left. Close whoever is idle; if nobody is, the listeners rest, or the loop would spin."""
        if not self._short:
            log.error("No connection can be accepted for a while open=%d error=%s", len(self._connections), error)
        self._short = True
        if self._drop_oldest_idle():
            return True
        self.pause_accepting()
        self._shortage = self._loop.call_later(WAIT_FOR_FDS, self._accept_again)
        return False

    def _accept_again(self) -> None:
        self._shortage = None
        if not self._accepting:
            self._accepting = True
            for listener in self._listeners:
                self._watch(listener)

    # Connections

    def _forget(self, connection: Connection) -> None:
        self._connections.discard(connection)

    def _sweep(self) -> None:
        now = time.monotonic()
        for connection in list(self._connections):
            connection.sweep(now)
        self._sweeper = self._loop.call_later(self._limits.sweep, self._sweep) if self._connections else None


def _peer(sock: socket.socket, address: object) -> str:
    """Name the client for the log: address and port, or the process and user at the other end of a local socket."""
    if isinstance(address, tuple) and address:
        return f"{address[0]}:{address[1]}"
    told = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    return f"local:pid={int.from_bytes(told[:4], 'little')},uid={int.from_bytes(told[4:8], 'little')}"
