"""Process: one helper process as the daemon sees it: its socket, the calls on their way, and those that were given up.

It promises that each call ends once: answered, given up by who waited, or failed because the helper was lost. Calls wait in
worker threads; one thread of `Remotes` reads for all.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import msgspec

from drivers.base import Host
from drivers.errors import Failed
from drivers.storage.errors import StorageHangs
from drivers.storage.outside.frames import PACKET, REPORT, Assembler, packets
from state.children import Exit
from state.release import ROOT

SEND_PATIENCE = 2.0
"""Seconds for a helper to take a call from the socket: the thread that does so has nothing else to do."""
_GLANCE = 20
"""Milliseconds between two looks at whether it still makes sense to wait."""


class Waiting:
    """A call on its way. `ended` is set when there is an answer, or never will be one."""

    __slots__ = ("answer", "ended", "lost", "since")

    def __init__(self) -> None:
        self.ended = threading.Event()
        self.answer: dict[str, Any] | None = None
        self.lost = ""
        self.since = time.monotonic()


class Process:
    """`serial` tells the helpers of one directory apart; `fd` is our end of the socket, held under `name`."""

    def __init__(self, key: str, serial: int, fd: int) -> None:
        self.serial = serial
        self.fd = fd
        self.name = process_name(key, serial)
        self.heard = time.monotonic()
        """When it last said anything."""
        self.gone = False
        """Whether it takes no more calls."""
        self.given_up: dict[int, float] = {}
        """Calls that nobody waits for any more, and since when they hang."""
        self._waiting: dict[int, Waiting] = {}
        self._lock = threading.Condition()
        self._sending = threading.Lock()
        self._receiving = threading.Lock()
        self._closed = False
        self._assembler = Assembler()

    @property
    def load(self) -> int:
        """How many calls it has been given and not answered."""
        return len(self._waiting) + len(self.given_up)

    @property
    def suspect(self) -> bool:
        """Whether a call hangs, and nothing has been heard since it was given up."""
        return any(since >= self.heard for since in self.given_up.values())

    def begin(self, number: int, message: dict[str, Any]) -> Waiting | None:
        """Send a call; None when the helper takes no more, and so has not got it. Raises StorageHangs."""
        waiting = Waiting()
        with self._lock:
            if self.gone:
                return None
            self._waiting[number] = waiting
        try:
            self.send(number, message)
        except OSError as error:
            with self._lock:
                self._waiting.pop(number, None)
                self.gone = self.gone or error.errno != errno.EAGAIN
            if self.gone:
                return None
            raise StorageHangs(what=self.name, reason="its helper takes no calls") from error
        return waiting

    def send(self, number: int, message: dict[str, Any], patience: float = SEND_PATIENCE) -> None:
        """Send a message. Raises OSError; EAGAIN when the helper does not take it in time."""
        with self._sending:
            for packet in packets(number, message):
                self._send(packet, time.monotonic() + patience)

    def wait_for_room(self, timeout: float) -> None:
        """Return when a call has been answered, or after so many seconds."""
        with self._lock:
            self._lock.wait(timeout)

    def retire(self) -> bool:
        """Take no more calls, unless there are some on their way. Say whether that is so now."""
        with self._lock:
            self.gone = self.gone or not self.load
            return self.gone

    def close(self, close: Callable[[], None]) -> None:
        """Have the socket closed when nobody uses it: its number may be another file's a moment later."""
        self.gone = True
        with self._sending, self._receiving:
            self._closed = True
            close()

    def give_up(self, number: int) -> None:
        """Nobody waits for this call any more. It hangs, until its answer comes all the same."""
        with self._lock:
            if self._waiting.pop(number, None) is not None:
                self.given_up[number] = time.monotonic()

    def receive(self) -> list[dict[str, Any]]:
        """Take in what has come; return reports. Raises EOFError when the helper has gone, ValueError when it raves."""
        with self._receiving:
            return [] if self._closed else self._take_in()

    def _take_in(self) -> list[dict[str, Any]]:
        reports = []
        while (packet := self._receive()) is not None:
            if not packet:
                raise EOFError
            self.heard = time.monotonic()
            message = self._assembler.feed(packet, self._is_wanted)
            if message is None:
                continue
            number, body = message
            if number == REPORT:
                reports.append(body)
            else:
                self._end(number, body)
        return reports

    def lose(self, reason: str) -> None:
        """It has ended, or is given up: whoever waits is told."""
        with self._lock:
            self.gone = True
            waiting, self._waiting = self._waiting, {}
            self.given_up.clear()
            self._lock.notify_all()
        for call in waiting.values():
            call.lost = reason
            call.ended.set()

    def _is_wanted(self, number: int) -> bool:
        return number == REPORT or number in self._waiting or number in self.given_up

    def _end(self, number: int, body: dict[str, Any]) -> None:
        with self._lock:
            self.given_up.pop(number, None)
            waiting = self._waiting.pop(number, None)
            self._lock.notify_all()
        if waiting is not None:
            waiting.answer = body
            waiting.ended.set()

    def _send(self, packet: bytes, deadline: float) -> None:
        while not self._closed:
            try:
                os.write(self.fd, packet)
                return
            except BlockingIOError:
                if time.monotonic() > deadline or self.gone:
                    raise
                poll = select.poll()
                poll.register(self.fd, select.POLLOUT)
                poll.poll(_GLANCE)
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))

    def _receive(self) -> bytes | None:
        """Return a packet, b"" at the end, None when there is none yet."""
        try:
            return os.read(self.fd, PACKET)
        except BlockingIOError:
            return None
        except OSError:
            return b""  # reset, or closed by us a moment ago: the end in any case


def process_name(key: str, serial: int) -> str:
    """Return the name of the socket and of the child."""
    return f"storage/{key}/helper/{serial}"


def spawn(host: Host, key: str, serial: int, module: str, on_exit: Callable[[Exit], None]) -> Process:
    """Start a program of ours as a child that has one end of a socket. In the loop's thread. Raises OSError."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs, ours:
        name = process_name(key, serial)
        # From our own release, whatever has become of the working directory: that of another may not know us.
        env = {**os.environ, "PYTHONPATH": ROOT, "PYTHONSAFEPATH": "1"}
        argv = [sys.executable, "-m", module, name]
        host.children.spawn(name, argv, env=env, files={3: theirs.fileno()}, on_exit=on_exit)
        ours.setblocking(False)
        return Process(key, serial, host.fds.hold(name, ours.detach()))


def adopt(
    host: Host, key: str, serial: int, on_exit: Callable[[Exit], None], *, knows_us: bool = True
) -> Process | None:
    """Take over what a previous run has spawned; None when it has ended, or must, as it would not understand us."""
    name = process_name(key, serial)
    child = host.children.take(name, on_exit=on_exit)
    if child is None or not knows_us:
        host.fds.reject(name)  # it ends when it sees that we have gone
        return None
    fd = host.fds.take(name)
    return Process(key, serial, fd) if fd is not None else None


def value_of(answer: dict[str, Any], op: str) -> Any:
    """Return what the helper returned, or raise what it met. Raises OSError, Failed."""
    if "errno" in answer:
        raise OSError(answer["errno"] or errno.EIO, answer["error"], answer["path"] or None)
    if "failure" in answer:
        raise Failed(action=f"the helper's {op}", reason=answer["failure"])
    return answer["value"]


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What a look at the storage gave. `began`: monotonic clock; `errno` 0 when all went well."""

    report: str
    began: float
    delay: float = 0.0
    metadata: bytes = b""
    space: dict[str, int] = {}
    errno: int = 0
    error: str = ""
