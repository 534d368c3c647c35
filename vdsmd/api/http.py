"""HTTP/1 as bytes: requests out of what arrives in pieces, and the heads of answers. It does no input or output.

It promises that however the bytes are cut, the same requests come out, and that what cannot be served is one `Refusal`
with its status and a reason a person understands, after which nothing more is read from that client.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Protocol

import httptools
import msgspec

PATHS = (b"/", b"/RPC2")
_CARRIED = (b"PUT", b"GET")

_REASONS = {
    200: "OK",
    206: "Partial Content",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    408: "Request Timeout",
    411: "Length Required",
    413: "Content Too Large",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
    503: "Service Unavailable",
}

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """How much of us one client, and all of them, may use. Sizes in bytes, times in seconds."""

    body: int = 10 * 2**20
    head: int = 64 * 2**10
    connections: int = 1000
    streams: int = 16
    """Images that are carried at a time."""
    silence: float = 60.0
    """For a whole request to arrive, for the next one to begin, and for a client to take more of its answer."""
    handshake: float = 10.0
    linger: float = 5.0
    """For a client to take the last answer and close, before the connection is closed under it."""
    sweep: float = 1.0
    """How often connections are looked at for these times."""
    grace: float = 2.0
    """That a drain waits for the rest of a request, and for the first one of a client who has just connected."""
    just_now: float = 0.02
    """After an answer, in which a client that keeps its connection is likely to be sending its next call."""
    keep_alive: bool = True


class Body(Protocol):
    """What makes something of a request's body while it arrives."""

    def feed(self, data: bytes) -> None: ...


class Carried:
    """The head of a PUT or GET, of which the body is not held in memory. `early`: what of it came with the head."""

    __slots__ = ("early", "expects", "headers", "length", "method")

    def __init__(self, method: str, headers: dict[str, str]) -> None:
        self.method = method
        self.headers = headers
        """By name, in small letters."""
        self.length: int | None = None
        self.expects = False
        """The client waits for a `100 Continue` before it sends the body."""
        self.early = b""


class Request:
    """A request that has arrived completely, but for what is `carried`. `peer` and `local` say where from."""

    __slots__ = ("body", "carried", "flow", "keep_alive", "local", "old", "peer")

    def __init__(self, body: Body) -> None:
        self.body = body
        self.carried: Carried | None = None
        self.flow = ""
        self.keep_alive = False
        self.old = False
        self.peer = ""
        self.local = False


class Refusal(msgspec.Struct, frozen=True):
    """Why a client is answered without having been served. The connection ends with it."""

    status: int
    text: str

    def encode(self) -> bytes:
        body = f"{self.text}\n".encode()
        allow = "Allow: GET, POST, PUT\r\n" if self.status == 405 else ""
        head = (
            f"HTTP/1.1 {self.status} {_REASONS[self.status]}\r\nContent-Type: text/plain; charset=utf-8\r\n"
            f"{allow}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        )
        return head.encode() + body


def answer(body: bytes, *, old: bool, last: bool) -> bytes:
    """Return the bytes of an answer. old: to an HTTP/1.0 client; last: the connection ends with it."""
    connection = b"Connection: close\r\n" if last else b"Connection: keep-alive\r\n" if old else b""
    return b"HTTP/1.1 200 OK\r\nContent-Type: text/xml\r\nContent-Length: %d\r\n%b\r\n%b" % (
        len(body),
        connection,
        body,
    )


def told(
    status: int, body: bytes, *, kind: str = "application/json", length: int | None = None, task: str = ""
) -> bytes:
    """Return an answer to a PUT or GET, its connection's last. `length`: of a body that is sent later."""
    count = len(body) if length is None else length
    named = f"Task-Id: {task}\r\n" if task else ""
    head = f"HTTP/1.1 {status} {_REASONS[status]}\r\nContent-Type: {kind}\r\n{named}Content-Length: {count}\r\n"
    return f"{head}Connection: close\r\n\r\n".encode() + body


class _Refused(Exception):
    """Stops the parser. It comes out as one of its own errors."""


class Incoming:
    """The requests of one connection, in the order in which they arrived."""

    def __init__(self, limits: Limits, new_body: Callable[[], Body], *, carries: bool = False) -> None:
        """carries: a PUT or GET is a request as soon as its head has come. Nothing may be fed any more once it is served."""
        self.requests: deque[Request] = deque()
        self.refusal: Refusal | None = None
        self.midway = False
        """Some of a request has come, and not all."""
        self.expects = False
        """The client waits for a `100 Continue` before it sends the body."""
        self._limits = limits
        self._new_body = new_body
        self._carries = carries
        self._in_body = False
        self._head = 0
        self._parser: httptools.HttpRequestParser | None = httptools.HttpRequestParser(self)

    def feed(self, data: bytes) -> None:
        if self.refusal is not None or self._parser is None:
            return
        # No more than this and one piece: a head that begins within this piece is counted from the next one on.
        self._head += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self.refusal = Refusal(400, "no other protocol is offered here")
        except httptools.HttpParserError as error:
            # Also how the parser passes on what its callbacks raise; then the refusal is there already.
            if self.refusal is None:
                self.refusal = Refusal(400, f"this is not HTTP: {error}")
        if self.midway and not self._in_body and self._head > self._limits.head:
            self.refusal = Refusal(431, f"the request's head is larger than {self._limits.head} bytes")

    def close(self) -> None:
        """Forget the parser, which refers to us."""
        self._parser = None

    # What the parser calls

    def on_message_begin(self) -> None:
        self._request = Request(self._new_body())
        self._named: dict[str, str] | None = None
        self._path = b""
        self._length: int | None = None
        self._chunked = False
        self._received = 0
        self._head = 0
        self.midway = True

    def on_url(self, url: bytes) -> None:
        self._path += url
        if self._carries and self._named is None and self._parser is not None:
            method = self._parser.get_method()
            self._named = {} if method in _CARRIED else None

    def on_header(self, name: bytes, value: bytes) -> None:
        match name.lower():
            case b"content-length":
                self._length = int(value)
            case b"transfer-encoding":
                self._chunked = True
            case b"expect":
                self.expects = value.lower() == b"100-continue"
            case b"flowid":
                self._request.flow = value[:100].decode("ascii", "replace").partition(" ")[0]
            case _ if self._named is not None:
                self._named[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        parser = self._parser
        assert parser is not None
        if self._named is not None:
            self._begin_to_carry(parser.get_method().decode(), self._named)
            return
        if self._path not in PATHS and _path(self._path) not in PATHS:
            self._refuse(404, "nothing is here; calls go to / or /RPC2")
        if parser.get_method() != b"POST":
            self._refuse(405, "calls are made with POST")
        if parser.should_upgrade():
            self._refuse(400, "no other protocol is offered here")
        if self._length is None and not self._chunked:
            self._refuse(411, "the length of the request is not given")
        if self._length is not None and self._length > self._limits.body:
            self._refuse_size()
        self._in_body = True
        self._request.old = parser.get_http_version() == "1.0"
        self._request.keep_alive = self._limits.keep_alive and parser.should_keep_alive()

    def on_body(self, data: bytes) -> None:
        carried = self._request.carried
        if carried is not None:
            carried.early += data
            return
        self._received += len(data)
        if self._received > self._limits.body:
            self._refuse_size()
        self._request.body.feed(data)

    def on_message_complete(self) -> None:
        if self._request.carried is None:
            self.requests.append(self._request)
        self.midway = self._in_body = self.expects = False
        self._head = 0

    def _begin_to_carry(self, method: str, headers: dict[str, str]) -> None:
        carried = Carried(method, headers)
        carried.length = None if self._chunked else self._length
        carried.expects, self.expects = self.expects, False
        self._request.carried = carried
        self._request.old = self._parser is not None and self._parser.get_http_version() == "1.0"
        self.requests.append(self._request)
        self.midway, self._in_body = False, True

    def _refuse_size(self) -> None:
        self._refuse(413, f"the request is larger than {self._limits.body} bytes")

    def _refuse(self, status: int, text: str) -> None:
        self.refusal = Refusal(status, text)
        raise _Refused


def _path(target: bytes) -> bytes:
    """Return the path of a request's target, which may be absolute and may have a query."""
    path = target.partition(b"?")[0]
    if path.startswith((b"http://", b"https://")):
        path = b"/" + path.split(b"/", 3)[3] if path.count(b"/") > 2 else b"/"
    return path
