"""What a connection stands on: its socket, whoever serves what comes from it, and what it has in common with the others."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from vdsmd.api.http import Body, Limits, Request
from vdsmd.loop import Loop

if TYPE_CHECKING:
    from vdsmd.api.connection import Connection

Serve = Callable[[Request, Callable[[bytes], None]], None]
"""`serve(request, reply)`: called in the loop's thread; `reply(body)` answers, at once or later, in that thread too."""


class Stream(Protocol):
    """What is used of a socket. `recv` and `send` raise BlockingIOError where they would have to wait."""

    def fileno(self) -> int: ...
    def recv(self, size: int, /) -> bytes: ...
    def send(self, data: bytes | memoryview, /) -> int: ...
    def shutdown(self, how: int, /) -> None: ...
    def close(self) -> None: ...


class SecureStream(Stream, Protocol):
    def handshake(self) -> int:
        """Go on with the handshake. Return what to wait for (READ or WRITE), or 0 when it is done. Raises OSError."""
        ...


class Carrier(Protocol):
    """Who has a connection's socket to himself, for a body that is not held in memory. All calls in the loop's thread."""

    def ready(self, events: int) -> None:
        """The socket is ready for what was wanted of it (`Connection.want`), or has hung up."""

    def sweep(self, now: float) -> None:
        """A moment to end what has taken too long."""

    def left(self) -> None:
        """The connection is gone."""


Carry = Callable[[Request, "Connection"], Carrier]
"""`carry(request, connection)`: begin to carry the body of a PUT or GET. It ends with `Connection.say` or `drop`."""


class Shared:
    """What all connections of a rim have in common."""

    __slots__ = ("carry", "changed", "forget", "leaving", "limits", "loop", "new_body", "serve")

    def __init__(
        self, loop: Loop, serve: Serve, limits: Limits, new_body: Callable[[], Body], carry: Carry | None
    ) -> None:
        self.loop = loop
        self.serve = serve
        self.limits = limits
        self.new_body = new_body
        self.carry = carry
        """None: only calls are served."""
        self.leaving = False
        """Every answer from now on is its connection's last."""
        self.changed: Callable[[], None] = _nothing
        self.forget: Callable[[Connection], None] = _nothing


def _nothing(*_: object) -> None:
    """Nobody wants to know."""
