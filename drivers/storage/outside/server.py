"""The helper's server: takes calls from the daemon's socket and has threads make them.

It promises that the thread that reads the socket never touches the storage, so that there is always one that hears the
daemon go, and that each call is answered once, in the order in which they end.
"""

from __future__ import annotations

import os
import queue
import threading
from typing import Any

from drivers.storage.outside.deeds import DEEDS
from drivers.storage.outside.frames import PACKET, REPORT, Assembler, packets
from drivers.storage.outside.probe import Probe, try_direct

Call = tuple[int, dict[str, Any]]


class Server:
    """One helper. The first message says what its root is: {"root", "slots", "probe"}, the last being what is looked at."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._root = ""
        self._slots = 1
        self._probe: Probe | None = None
        self._calls: queue.SimpleQueue[Call] = queue.SimpleQueue()
        self._sending = threading.Lock()
        self._counting = threading.Lock()
        self._idle = 0
        self._threads = 0

    def serve(self) -> None:
        """Return when the daemon's end is closed."""
        assembler = Assembler()
        while packet := self._packet():
            message = assembler.feed(packet)
            if message is not None:
                self._take(*message)

    def _packet(self) -> bytes:
        try:
            return os.read(self._fd, PACKET)
        except ConnectionError:
            return b""

    def _take(self, number: int, message: dict[str, Any]) -> None:
        if "root" in message:
            self._root, self._slots = message["root"], message["slots"]
            self._probe = Probe(self._root, message["probe"], lambda told: self._send(REPORT, told))
        elif "watch" in message and self._probe is not None:
            self._probe.watch(message["watch"])
        else:
            self._enqueue((number, message))

    def _enqueue(self, call: Call) -> None:
        with self._counting:
            if self._idle <= self._calls.qsize() and self._threads < self._slots:
                self._threads += 1
                threading.Thread(target=self._work, name=f"slot-{self._threads}", daemon=True).start()
        self._calls.put(call)

    def _work(self) -> None:
        while True:
            with self._counting:
                self._idle += 1
            number, message = self._calls.get()
            with self._counting:
                self._idle -= 1
            self._send(number, self._answer(message))

    def _answer(self, message: dict[str, Any]) -> dict[str, Any]:
        try:
            return {"value": self._do(message["op"], message["arguments"])}
        except OSError as error:
            return {"errno": error.errno, "error": error.strerror or str(error), "path": _path(error)}
        except Exception as error:
            # The edge of the helper: what we did wrong must be told to who asked, and cost no other call anything.
            return {"failure": f"{type(error).__name__}: {error}"}

    def _do(self, op: str, arguments: dict[str, Any]) -> Any:
        if op == "try_direct":
            return try_direct(self._root)
        return DEEDS[op](self._root, **arguments)

    def _send(self, number: int, message: dict[str, Any]) -> None:
        with self._sending:
            for packet in packets(number, message):
                try:
                    os.write(self._fd, packet)
                except OSError:
                    return  # the daemon has gone; the reading thread sees it too


def _path(error: OSError) -> str:
    name = error.filename
    return os.fsdecode(name) if isinstance(name, str | bytes) else ""
