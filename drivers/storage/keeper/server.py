"""The keeper's server: takes calls from the daemon's socket and has threads make them.

It promises that leases are given back only when no child of a task works any more: when they are lost, when the daemon has
gone, and when it says so itself.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from typing import Any

from drivers.storage.keeper import sanlocked
from drivers.storage.keeper.leases import RESOURCE, Leases
from drivers.storage.keeper.work import end_work
from drivers.storage.outside.frames import PACKET, REPORT, Assembler, packets
from drivers.storage.tasks import tether

GRACE = 10.0
"""Seconds that the daemon gets to stop what it does itself, before a lease that is lost is given back. sanlock gives more."""


class Server:
    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._work = ""
        self._sending = threading.Lock()
        self._losing = threading.Lock()
        self._leases = Leases(self.lose)
        self._ops: dict[str, Callable[..., Any]] = {
            "available": sanlocked.available,
            "initialise": self._initialise,
            "join": sanlocked.join,
            "leave": sanlocked.leave,
            "joined": sanlocked.joined,
            "lives": sanlocked.lives,
            "owner": self._owner,
            "acquire": self._acquire,
            "release": self._leases.release,
            "held": self._leases.held,
            "drop": self._leases.drop,
        }

    def serve(self) -> None:
        """Return when the daemon's end is closed."""
        assembler = Assembler()
        while packet := self._packet():
            message = assembler.feed(packet)
            if message is not None:
                threading.Thread(target=self._answer, args=message, daemon=True).start()

    def lose(self, reason: str) -> None:
        """Give all leases back, as soon as nothing works under them."""
        with self._losing:
            if not self._leases.held():
                return
            end_work(self._work)
            self._send(REPORT, {"lost": reason})
            deadline = time.monotonic() + GRACE
            while self._leases.held() and time.monotonic() < deadline:
                time.sleep(0.02)
            end_work(self._work)
            self._leases.drop()

    def close(self) -> None:
        """The daemon has gone."""
        if self._leases.held():
            end_work(self._work)
        self._leases.drop()

    def _acquire(self, work: str, **arguments: Any) -> None:
        """`work`: the directory in which tasks keep track of their children."""
        with self._losing:  # what is about to be given back is not to be had again
            if not self._work:
                tether.hold(work)
            self._work = work
        self._leases.acquire(**arguments)

    def _initialise(self, **arguments: Any) -> None:
        """`resource`: what the lease is called, a domain's own unless said otherwise."""
        sanlocked.initialise(**{"resource": RESOURCE, **arguments})

    def _owner(self, lockspace: str, path: str, offset: int, sector: int, align: int) -> list[int]:
        return list(sanlocked.owner(lockspace, RESOURCE, path, offset, sector, align))

    def _packet(self) -> bytes:
        try:
            return os.read(self._fd, PACKET)
        except ConnectionError:
            return b""

    def _answer(self, number: int, message: dict[str, Any]) -> None:
        try:
            answer = {"value": self._ops[message["op"]](**message["arguments"])}
        except OSError as error:
            answer = {"errno": error.errno, "error": error.strerror or str(error), "path": ""}
        except Exception as error:
            # The edge of the keeper: what we did wrong must be told to who asked, and cost no lease.
            answer = {"failure": f"{type(error).__name__}: {error}"}
        self._send(number, answer)

    def _send(self, number: int, message: dict[str, Any]) -> None:
        with self._sending:
            for packet in packets(number, message):
                try:
                    os.write(self._fd, packet)
                except OSError:
                    return  # the daemon has gone; the reading thread sees it too
