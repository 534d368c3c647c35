"""A client that never retries, so that a lost call is seen. One connection per call, or one for all.

As a program it is one load generator: `python -m scripts.benchmarks.client ADDRESS KIND ARGUMENT` calls in a loop until its
standard input is closed, then prints one JSON object: calls, failures, and the slowest calls with their times.
"""

from __future__ import annotations

import json
import socket
import sys
import threading
import time
import uuid
from collections.abc import Callable
from typing import Any

from vdsmd.api.xmlrpc import decode_reply, encode_call

TIMEOUT = 60.0
SLOW = 0.005


class Client:
    """Calls verbs on 127.0.0.1:`port`. Raises OSError when an answer is lost, whatever the reason."""

    def __init__(self, port: int, *, keep_alive: bool = False) -> None:
        self._port = port
        self._keep_alive = keep_alive
        self._connection: socket.socket | None = None

    def call(self, verb: str, *arguments: Any) -> Any:
        return decode_reply(self.exchange(request(verb, *arguments, keep_alive=self._keep_alive)))

    def must(self, verb: str, *arguments: Any) -> dict[str, Any]:
        """Call a verb and insist on success."""
        reply: dict[str, Any] = self.call(verb, *arguments)
        if reply["status"]["code"]:
            raise RuntimeError(f"{verb}: {reply['status']}")
        return reply

    def exchange(self, sent: bytes) -> bytes:
        """Send a whole request; return the body of the answer."""
        connection = self._connection or socket.create_connection(("127.0.0.1", self._port), timeout=TIMEOUT)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.sendall(sent)
        body = _receive(connection)
        if self._keep_alive:
            self._connection = connection
        else:
            connection.close()
        return body


def request(verb: str, *arguments: Any, keep_alive: bool = False) -> bytes:
    """Return the bytes of a whole HTTP request."""
    body = encode_call(verb, arguments)
    connection = b"" if keep_alive else b"Connection: close\r\n"
    head = b"POST /RPC2 HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/xml\r\n%sContent-Length: %d\r\n\r\n"
    return head % (connection, len(body)) + body


def _receive(connection: socket.socket) -> bytes:
    got = b""
    while b"\r\n\r\n" not in got:
        got += _some(connection)
    head, _, body = got.partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200"):
        raise ConnectionError(f"answered {head[:80]!r}")
    (length,) = (int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:"))
    parts, have = [body], len(body)
    while have < length:
        parts.append(_some(connection))
        have += len(parts[-1])
    return b"".join(parts)


def _some(connection: socket.socket) -> bytes:
    data = connection.recv(1 << 18)
    if not data:
        raise ConnectionResetError("the connection ended before the answer")
    return data


def percentile(values: list[float], share: float) -> float:
    """Return the value below which that share of the values lies."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


class Tally:
    """What a load generator saw."""

    def __init__(self) -> None:
        self.calls = 0
        self.failures: list[str] = []
        self.slow: list[tuple[float, float]] = []
        self.took: list[float] = []

    def time(self, call: Callable[[], object]) -> None:
        """Make the call, and count it."""
        begun = time.monotonic()
        try:
            call()
        except (OSError, RuntimeError, ValueError) as error:
            self.failures.append(f"{type(error).__name__}: {error}")
        took = time.monotonic() - begun
        self.calls += 1
        self.took.append(took)
        if took > SLOW:
            self.slow.append((begun, took))


def reader(client: Client, _argument: str, tally: Tally) -> None:
    """Read in a loop."""
    for call in (("ping",), ("list",), ("getAllVmStats",)):
        tally.time(lambda c=call: client.must(*c))  # type: ignore[misc]


def prober(client: Client, _argument: str, tally: Tally) -> None:
    """Ask for the list and for all statistics in turn, in a loop: sees the pause."""
    tally.time(lambda: client.must("list"))
    tally.time(lambda: client.must("getAllVmStats"))


def pauser(client: Client, vm_id: str, tally: Tally) -> None:
    """Change a machine's state in a loop."""
    tally.time(lambda: client.must("pause", vm_id))
    tally.time(lambda: client.must("cont", vm_id))


def maker(client: Client, _argument: str, tally: Tally) -> None:
    """Make and destroy machines in a loop."""
    vm_id = str(uuid.uuid4())
    tally.time(lambda: client.must("create", machine(vm_id, memory=16, paused=True)))
    tally.time(lambda: client.must("destroy", vm_id))


def helper(client: Client, _argument: str, tally: Tally) -> None:
    """Have root's helper called in a loop."""
    tally.time(lambda: client.must("vdsmd.helper"))


def machine(vm_id: str, *, memory: int, paused: bool = False, **more: object) -> dict[str, object]:
    """Return the parameters of a small machine without a disk."""
    small = {"vmId": vm_id, "vmName": f"bench-{vm_id[:8]}", "memSize": memory, "smp": 1, "display": "vnc"}
    return {**small, "kvmEnable": False, "launchPaused": paused, "devices": [], **more}


KINDS = {"reader": reader, "prober": prober, "pauser": pauser, "maker": maker, "helper": helper}


def main() -> None:
    port, kind, argument = int(sys.argv[1]), KINDS[sys.argv[2]], sys.argv[3]
    ended = threading.Event()

    def wait_for_the_end() -> None:
        sys.stdin.read()
        ended.set()

    threading.Thread(target=wait_for_the_end, daemon=True).start()
    client, tally = Client(port), Tally()
    while not ended.is_set():
        kind(client, argument, tally)
    told = {"calls": tally.calls, "failures": tally.failures[:20], "failed": len(tally.failures), "slow": tally.slow}
    print(json.dumps({**told, "p50": percentile(tally.took, 0.5), "p99": percentile(tally.took, 0.99)}))


if __name__ == "__main__":
    main()
