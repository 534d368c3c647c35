"""A rim at work in a thread of the test, and a client that sees every byte."""

from __future__ import annotations

import queue
import socket
import threading
import xmlrpc.client
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from vdsmd.api.encoding import encode_reply
from vdsmd.api.http import Limits, Request
from vdsmd.api.rim import Rim, Tls
from vdsmd.api.shared import Carry, Serve
from vdsmd.api.xmlrpc import Decoder
from vdsmd.loop import Loop

T = TypeVar("T")
PATIENCE = 60.0


class Server:
    """Serves on a TCP port of 127.0.0.1 and on a local socket until the `with` block ends."""

    def __init__(
        self,
        folder: Path,
        serve: Serve,
        limits: Limits | None = None,
        tls: Tls | None = None,
        carry: Carry | None = None,
    ) -> None:
        self.loop = Loop()
        self.rim = Rim(self.loop, serve, limits=limits, carry=carry)
        self.path = str(folder / "sock")
        self.tcp = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        self.tcp.bind(("127.0.0.1", 0))
        self.tcp.listen(1024)
        self.local = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.local.bind(self.path)
        self.local.listen(1024)
        self.rim.listen(self.tcp, tls=tls)
        self.rim.listen(self.local, local=True)
        self._thread = threading.Thread(target=self.loop.run)

    @property
    def port(self) -> int:
        return int(self.tcp.getsockname()[1])

    def __enter__(self) -> Server:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, value: object, trace: TracebackType | None) -> None:
        self.ask(self.rim.close_all)
        self.loop.call_threadsafe(self.loop.stop)
        self._thread.join(PATIENCE)
        self.tcp.close()
        self.local.close()
        self.loop.close()

    def ask(self, question: Callable[[], T]) -> T:
        """Return what `question()` returns in the loop's thread."""
        answer: queue.SimpleQueue[T] = queue.SimpleQueue()
        self.loop.call_threadsafe(lambda: answer.put(question()))
        return answer.get(timeout=PATIENCE)

    def client(self) -> Client:
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        sock.settimeout(PATIENCE)
        sock.connect(("127.0.0.1", self.port))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return Client(sock)

    def local_client(self) -> Client:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.settimeout(PATIENCE)
        sock.connect(self.path)
        return Client(sock)

    def proxy(self) -> xmlrpc.client.ServerProxy:
        return xmlrpc.client.ServerProxy(f"http://127.0.0.1:{self.port}/RPC2")


class Answer:
    def __init__(self, head: str) -> None:
        first, *lines = head.split("\r\n")
        self.status = int(first.split()[1])
        self.headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        self.body = b""

    @property
    def value(self) -> Any:
        return xmlrpc.client.loads(self.body)[0][0]


class Client:
    """A connection on which the test sends and receives what it likes."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._data = bytearray()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: object, trace: TracebackType | None) -> None:
        self.sock.close()

    def send(self, data: bytes) -> Client:
        self.sock.sendall(data)
        return self

    def call(self, name: str, *args: Any) -> Any:
        """Call a verb and return the value of its answer."""
        return self.send(request(name, *args)).answer().value

    def answer(self) -> Answer:
        """Return the next answer, complete. AssertionError when the connection ends instead."""
        while b"\r\n\r\n" not in self._data:
            self._more()
        head, _, self._data = self._data.partition(b"\r\n\r\n")
        found = Answer(head.decode())
        length = int(found.headers.get("content-length", "0"))
        while len(self._data) < length:
            self._more()
        found.body, self._data = bytes(self._data[:length]), self._data[length:]
        return found

    def ended(self) -> bool:
        """Wait for the other side's end. Say whether nothing came before it."""
        return not self._data and self.sock.recv(1) == b""

    def _more(self) -> None:
        data = self.sock.recv(65536)
        assert data, f"the connection ended after {bytes(self._data[:200])!r}"
        self._data += data


def request(name: str, *args: Any, path: str = "/RPC2", version: str = "1.1", headers: str = "") -> bytes:
    return post(xmlrpc.client.dumps(args, name).encode(), path=path, version=version, headers=headers)


def post(body: bytes, *, path: str = "/RPC2", version: str = "1.1", headers: str = "") -> bytes:
    head = f"POST {path} HTTP/{version}\r\nHost: here\r\nContent-Length: {len(body)}\r\n{headers}\r\n"
    return head.encode() + body


def echo(asked: Request, reply: Callable[[bytes], None]) -> None:
    """Answer with what was called, and by whom."""
    assert isinstance(asked.body, Decoder)
    name, args = asked.body.call()
    reply(encode_reply({"name": name, "args": args, "flow": asked.flow, "local": asked.local}))


class Later:
    """Serves by remembering; the test answers when it wants to."""

    def __init__(self, server: Callable[[], Server]) -> None:
        self._server = server
        self.asked: list[tuple[str, Callable[[bytes], None]]] = []

    def __call__(self, asked: Request, reply: Callable[[bytes], None]) -> None:
        assert isinstance(asked.body, Decoder)
        self.asked.append((asked.body.call()[0], reply))

    def answer(self, index: int, value: Any = "done") -> None:
        self._server().ask(lambda: self.asked[index][1](encode_reply(value)))
