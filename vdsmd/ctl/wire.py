"""Wire: one call to the daemon over a plain socket.

It promises that a call is sent once: where an answer is lost, it is said that nothing is known about it, and nothing is
repeated.
"""

from __future__ import annotations

import socket
import time
from typing import Any

from vdsmd.api import xmlrpc

LONGEST_HEAD = 65536
PIECE = 262144


class Unreachable(Exception):
    """Nobody answers there. Nothing has been sent."""


class Lost(Exception):
    """The connection ended before the answer was complete. Whether the call was carried out is not known."""


class Refused(Exception):
    """The daemon answered that it did not do what was asked."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(f"{message} (code {code})")
        self.code = code
        self.message = message


class Address:
    """Where a daemon is: a local socket's path, or host and port with a TLS context or without."""

    def __init__(self, *, path: str = "", host: str = "", port: int = 0, tls: Any = None) -> None:
        self.path = path
        self.host = host
        self.port = port
        self.tls = tls

    def __str__(self) -> str:
        return self.path or f"{self.host} port {self.port}{' (TLS)' if self.tls else ''}"

    def connect(self, timeout: float) -> socket.socket:
        """Return a connected socket. Raises OSError."""
        if not self.path:
            plain = socket.create_connection((self.host, self.port), timeout)
            wrapped: socket.socket = self.tls.wrap_socket(plain, server_hostname=self.host) if self.tls else plain
            return wrapped
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.settimeout(timeout)
            _connect_local(sock, self.path, time.monotonic() + timeout)
        except OSError:
            sock.close()
            raise
        return sock


class Client:
    """Calls verbs, over one connection for as long as the daemon keeps it open."""

    def __init__(self, address: Address, timeout: float) -> None:
        self.address = address
        self._timeout = timeout
        self._sock: socket.socket | None = None

    def call(self, verb: str, *args: object) -> dict[str, Any]:
        """Return the reply without its envelope. Raises Refused, Unreachable, Lost, xmlrpc.Unsendable."""
        body = xmlrpc.encode_call(verb, args)
        try:
            reply = xmlrpc.decode_reply(self._exchange(body))
        except xmlrpc.Fault as fault:
            raise Refused(fault.code, fault.text) from fault
        except xmlrpc.Malformed as error:
            raise Lost(f"{self.address} does not speak our protocol: {error}") from error
        if not isinstance(reply, dict):
            return {"value": reply}
        status = reply.pop("status", {"code": 0, "message": ""})
        if status["code"] != 0:
            raise Refused(status["code"], status["message"])
        return reply

    def close(self) -> None:
        if self._sock is not None:
            self._sock.close()
            self._sock = None

    def _exchange(self, body: bytes) -> bytes:
        sock = self._connected()
        host = self.address.host or "localhost"
        head = f"POST /RPC2 HTTP/1.1\r\nHost: {host}\r\nContent-Type: text/xml\r\nContent-Length: {len(body)}\r\n\r\n"
        try:
            sock.sendall(head.encode() + body)
            answer, keep = _receive(sock)
        except TimeoutError:
            self.close()
            raise Lost(
                f"{self.address} did not answer within {self._timeout:g} s; it may still do what was asked"
            ) from None
        except OSError as error:
            self.close()
            raise Lost(f"the connection to {self.address} ended before the answer came: {error}") from error
        except Lost:
            self.close()
            raise
        if not keep:
            self.close()
        return answer

    def _connected(self) -> socket.socket:
        if self._sock is None:
            try:
                self._sock = self.address.connect(self._timeout)
            except OSError as error:
                raise Unreachable(f"no vdsmd answers at {self.address}: {error.strerror or error}") from error
        return self._sock


def _connect_local(sock: socket.socket, path: str, deadline: float) -> None:
    """A full queue of a local socket is told at once, and not waited for by the kernel; so we do."""
    while True:
        try:
            sock.connect(path)
            return
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)


def _receive(sock: socket.socket) -> tuple[bytes, bool]:
    """Return the body of one HTTP answer, and whether the connection stays open."""
    data = b""
    while b"\r\n\r\n" not in data:
        if len(data) > LONGEST_HEAD:
            raise Lost("what answers there is not a vdsmd: its header does not end")
        data += _piece(sock)
    head, _, body = data.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    if first[:5] != "HTTP/" or first[9:12] != "200":
        raise Lost(f"the other side answered with {first[:80]!r}")
    length = headers.get("content-length", "")
    if not length.isdigit():
        raise Lost("the other side answered without a length")
    pieces, missing = [body], int(length) - len(body)
    while missing > 0:
        pieces.append(_piece(sock))
        missing -= len(pieces[-1])
    return b"".join(pieces), headers.get("connection", "").lower() != "close" and first[:8] == "HTTP/1.1"


def _piece(sock: socket.socket) -> bytes:
    piece = sock.recv(PIECE)
    if not piece:
        raise Lost("the daemon closed the connection before its answer was complete")
    return piece
