"""A client that opens a connection per call and never repeats one, so that a lost answer is seen."""

from __future__ import annotations

import socket
import threading
import time
import xmlrpc.client
from typing import Any, NamedTuple


class Answer(NamedTuple):
    """One call: when it began, how long it took (seconds), and why it failed, if it did."""

    began: float
    took: float
    error: str


def call(port: int, verb: str, *arguments: Any) -> dict[str, Any]:
    """Call a verb on a connection of its own, once. Raises OSError or ValueError when there is no whole answer."""
    body = xmlrpc.client.dumps(arguments, verb).encode()
    head = f"POST /RPC2 HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: text/xml\r\nContent-Length: {len(body)}\r\n"
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        connection.sendall(f"{head}Connection: close\r\n\r\n".encode() + body)
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    head, _, body = answer.partition(b"\r\n\r\n")  # type: ignore[assignment]
    if not answer.startswith(b"HTTP/1.1 200"):
        raise ValueError(f"no answer but {answer[:60]!r}")
    try:
        reply: dict[str, Any] = xmlrpc.client.loads(body)[0][0]  # type: ignore[assignment]
    except Exception as error:
        # A parser's many ways to say that an answer is cut off or no answer at all.
        raise ValueError(f"half an answer: {error!r}") from error
    if reply["status"]["code"] != 0:
        raise ValueError(f"{verb}: {reply['status']['message']} (code {reply['status']['code']})")
    return reply


class Caller:
    """Calls verbs in a loop, in a thread of its own, and remembers how each call went."""

    def __init__(self, port: int, vm_id: str) -> None:
        self.answers: list[Answer] = []
        self._calls = [("ping",), ("getVmStats", vm_id), ("list",), ("getAllVmStats",)]
        self._port = port
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="caller")

    def __enter__(self) -> Caller:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        number = 0
        while not self._stop.wait(0.002):
            self.answers.append(self._once(*self._calls[number % len(self._calls)]))
            number += 1

    def _once(self, verb: str, *arguments: Any) -> Answer:
        began = time.monotonic()
        error = ""
        try:
            call(self._port, verb, *arguments)
        except (OSError, ValueError) as failure:
            error = f"{verb}: {failure}"
        return Answer(began, time.monotonic() - began, error)
