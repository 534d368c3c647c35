"""PUT and GET: a client brings an image's data, or takes them, on the management port (the contract's HTTP image streaming).

    client == socket == Transfer == pipe == child (drivers.storage.pour) == volume

It promises that the data are neither held in memory nor written or read by the daemon; that a PUT is answered 200 only when
the data are in their place, and a GET that breaks off is no whole answer; and that the task, named in `Task-Id`, ends with its
client.
No connection survives a re-exec, so it waits for the end of what is being carried, and nothing new is begun meanwhile.
"""

from __future__ import annotations

import logging
import os
import re
import time
from functools import partial
from typing import TYPE_CHECKING

import msgspec

from drivers.errors import DriverError
from drivers.storage.contract import is_uuid
from drivers.storage.edge import failing
from drivers.storage.errors import DomainActionFailed, StorageHangs
from drivers.storage.images import streaming
from drivers.storage.tasks.contract import State
from drivers.storage.tasks.engine import Attendance
from drivers.storage.tasks.errors import Departing
from drivers.storage.tasks.record import Task
from vdsmd.api import codes
from vdsmd.api.connection import Connection
from vdsmd.api.http import CONTINUE, Carried, Limits, Request, told
from vdsmd.api.transfer import Download, Upload, new_pipe
from vdsmd.loop import Loop

if TYPE_CHECKING:
    from vdsmd.daemon import Daemon

log = logging.getLogger("api")

TIMEOUT = 150.0
"""Seconds. Longer than what the storage gets to answer, so that it is said that it does not."""
IDS = ("Storage-Pool-Id", "Storage-Domain-Id", "Image-Id")
_RANGE = re.compile(r"bytes=0-([0-9]{1,18})")
_SIZE = re.compile(r"[0-9]{1,18}")


class Refused(Exception):
    """A request that is answered without a task: with which status, and which of the wire's codes."""

    def __init__(self, status: int, code: int, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.code = code


class Wish(msgspec.Struct, frozen=True):
    """What a request asks for. `ids`: pool, domain, image, volume ('': the last). `length`: bytes; None for all there are."""

    ids: tuple[str, str, str, str]
    length: int | None


def wish(carried: Carried) -> Wish:
    """Return what the head asks for. Raises Refused."""
    headers = carried.headers
    if carried.method == "PUT" and carried.length is None:
        raise Refused(411, codes.MISSING_PARAMETER, "Content-Length is missing: how much is to come must be known")
    pool, domain, image = (_id(name, headers.get(name.lower(), "")) for name in IDS)
    volume = _id("Volume-Id", headers["volume-id"]) if headers.get("volume-id") else ""
    length = _promised(carried) if carried.method == "PUT" else _wanted(headers)
    return Wish((pool, domain, image, volume), length)


def _id(name: str, text: str) -> str:
    if not text:
        raise Refused(400, codes.MISSING_PARAMETER, f"the header {name} is missing")
    if not is_uuid(text):
        raise _invalid(name, f"{text[:100]!r} is not a UUID")
    return text


def _promised(carried: Carried) -> int:
    length = carried.length or 0
    if not length:
        raise _invalid("Content-Length", "an image of no bytes is none")
    if _size(carried.headers) not in (None, length):
        raise _invalid("Size", f"it is not {length}, as Content-Length says")
    return length


def _wanted(headers: dict[str, str]) -> int | None:
    limits = [size] if (size := _size(headers)) is not None else []
    if "range" in headers:
        found = _RANGE.fullmatch(headers["range"].replace(" ", ""))
        if found is None:
            raise _invalid("Range", "only bytes=0-<last> is given out: one range, from the beginning")
        limits.append(int(found[1]) + 1)
    return min(limits, default=None)


def _size(headers: dict[str, str]) -> int | None:
    text = headers.get("size")
    if text is None:
        return None
    if _SIZE.fullmatch(text) is None:
        raise _invalid("Size", "it is not a number of bytes")
    return int(text)


def _invalid(header: str, reason: str) -> Refused:
    return Refused(400, codes.number("InvalidParameterException"), f"the header {header}: {reason}")


class Streams:
    """All that is being carried. Lives in the loop's thread."""

    def __init__(self, daemon: Daemon, loop: Loop, limits: Limits) -> None:
        self.daemon = daemon
        self.loop = loop
        self.limits = limits
        self.going: set[Exchange] = set()

    def carry(self, request: Request, connection: Connection) -> Exchange:
        exchange = Exchange(self, request, connection)
        exchange.begin()
        return exchange


class Exchange:
    """One PUT or GET, from its head to its answer. A `Carrier`."""

    def __init__(self, streams: Streams, request: Request, connection: Connection) -> None:
        assert request.carried is not None
        self._streams = streams
        self._connection = connection
        self._carried = request.carried
        self._what = f"{request.carried.method} client={connection.peer} flow={request.flow}"
        self._gone = False
        self._transfer: Upload | Download | None = None
        self._ack = -1
        self._fds: tuple[int, ...] = ()
        self._lent: tuple[int, ...] = ()
        self._status = 500
        """With which a task is answered that has failed."""
        self._task_id = ""
        self._task: Task | None = None
        self._began = time.monotonic()

    def begin(self) -> None:
        streams = self._streams
        try:
            asked = wish(self._carried)
            if len(streams.going) >= streams.limits.streams:
                raise Refused(503, codes.UNAVAILABLE, f"{streams.limits.streams} images are being carried already")
        except Refused as refused:
            self._refuse(refused.status, refused.code, str(refused))
            return
        pool, domain, image, volume = asked.ids
        log.info(
            "call stream=%s pool=%s domain=%s image=%s volume=%s bytes=%s",
            self._what, pool, domain, image, volume, asked.length,
        )  # fmt: skip
        try:
            self._open_pipes()
        except OSError as error:
            _close(self._lent)
            self._refuse(503, codes.UNAVAILABLE, f"no pipe is to be had: {error}")
            self._end()
            return
        streams.going.add(self)
        streams.daemon.workers.submit(partial(self._open, asked), self._opened, timeout=TIMEOUT)

    # As a carrier

    def ready(self, events: int) -> None:
        if self._transfer is not None:
            self._transfer.ready(events)
        else:
            self._connection.drop()  # nothing was wanted of it, so it has hung up

    def sweep(self, now: float) -> None:
        if self._transfer is not None:
            self._transfer.sweep(now)

    def left(self) -> None:
        log.info("The client left stream=%s task=%s", self._what, self._task_id)
        self._end()

    # In a worker

    def _open(self, asked: Wish) -> tuple[str, int, int]:
        """Begin the task; return its id, how much is to be carried, and how much there is."""
        lent, self._lent = self._lent, ()
        attendance = Attendance(fds=lent, ended=self._ended)
        daemon = self._streams.daemon
        try:
            daemon.storage.parts.pools.get(asked.ids[0])
            with failing(DomainActionFailed, f"carrying image {asked.ids[2]}", asked.ids[1]):
                if self._carried.method == "PUT":
                    return streaming.begin_receiving(daemon.tasks, asked.ids, asked.length or 0, attendance)
                return streaming.begin_giving(daemon.tasks, daemon.storage.domains, asked.ids, asked.length, attendance)
        except BaseException:
            # Whatever it was, it is raised on: nobody else will close them.
            _close(lent)
            raise

    # In the loop's thread

    def _open_pipes(self) -> None:
        reader, writer = new_pipe()
        if self._carried.method == "PUT":
            self._fds, self._lent = (writer,), (reader,)
            return
        self._fds, self._lent = (reader,), (writer,)
        theirs, ours = new_pipe()
        self._fds, self._lent = (reader, ours), (writer, theirs)

    def _opened(self, result: tuple[str, int, int] | None, error: Exception | None) -> None:
        if result is None:
            _close(self._lent)  # where no worker ever came to it
            self._lent = ()
            self._failed(error)
            return
        self._task_id, length, size = result
        if self._gone:
            return
        if self._task is not None:
            self._conclude(self._task)
            return
        fds, self._fds = self._fds, ()
        make = Upload if self._carried.method == "PUT" else Download
        silence = self._streams.limits.silence
        self._transfer = make(self._streams.loop, self._connection, fds[0], length, silence, self._over)
        if isinstance(self._transfer, Upload):
            self._receive(self._transfer)
        else:
            self._ack = fds[1]
            kind = f"application/octet-stream\r\nContent-Range: bytes 0-{length - 1}/{size}"
            kind = kind if length else "application/octet-stream"
            self._transfer.begin(told(206, b"", kind=kind, length=length, task=self._task_id))

    def _receive(self, upload: Upload) -> None:
        if self._carried.expects:
            try:
                self._connection.stream.send(CONTINUE)
            except OSError:
                self._connection.drop()
                return
        upload.begin(self._carried.early)

    def _over(self, reason: str, status: int) -> None:
        """All has passed, or nothing more will. The task's end is still to come."""
        transfer = self._transfer
        self._status = status
        if isinstance(transfer, Download) and transfer.said:
            if not reason:
                os.write(self._ack, b"\0")
                self._answered(206, codes.OK, "")
                self._connection.conclude()
            else:
                log.warning("A stream breaks off stream=%s task=%s reason=%s", self._what, self._task_id, reason)
                self._connection.drop()
            self._end()
        elif self._task is not None:
            self._conclude(self._task)  # it was told of first

    def _ended(self, task: Task) -> None:
        """The task has ended, or will not before a re-exec; maybe before we know that it is ours."""
        self._task = task
        if self._task_id and not self._gone:
            self._conclude(task)

    def _conclude(self, task: Task) -> None:
        transfer = self._transfer
        if isinstance(transfer, Download) and not transfer.ended:
            return  # what is in the pipe is still to be taken
        if task.state is State.FINISHED:
            self._answer(200, codes.OK, "OK")
            return
        if not task.is_final:
            text = f"The task has not ended, and is not waited for any more: {task.message or 'it is being stopped'}"
            self._answer(500, codes.number(StorageHangs.wire), text)
            return
        self._answer(self._status, codes.number(task.error) if task.error else codes.UNEXPECTED, task.message)

    def _failed(self, error: Exception | None) -> None:
        if self._gone:
            return
        if not isinstance(error, DriverError):
            log.error("Unexpected failure stream=%s", self._what, exc_info=error)
        status = 503 if isinstance(error, Departing) else 500
        self._answer(status, codes.code_of(error) if error else codes.UNEXPECTED, str(error))

    def _refuse(self, status: int, code: int, text: str) -> None:
        log.info("Refused stream=%s status=%d reason=%s", self._what, status, text)
        self._connection.say(told(status, _status(code, text)))

    def _answer(self, status: int, code: int, text: str) -> None:
        self._answered(status, code, text)
        self._connection.say(told(status, _status(code, text), task=self._task_id))
        self._end()

    def _answered(self, status: int, code: int, text: str) -> None:
        spent = time.monotonic() - self._began
        log.info(
            "answer stream=%s task=%s status=%d code=%d seconds=%.1f message=%r",
            self._what, self._task_id, status, code, spent, text,
        )  # fmt: skip

    def _end(self) -> None:
        """Let go of all that is ours. What of the child's was not lent yet is the worker's to close."""
        self._gone = True
        self._streams.going.discard(self)
        if self._transfer is not None:
            self._transfer.close()
        _close(self._fds)
        self._fds = ()
        if self._ack >= 0:
            os.close(self._ack)
            self._ack = -1


def _close(fds: tuple[int, ...]) -> None:
    for fd in fds:
        os.close(fd)


def _status(code: int, text: str) -> bytes:
    """Return the reply's status, in its envelope and without: clients look for it at either place."""
    status = {"code": code, "message": text}
    return msgspec.json.encode({"status": status, **status})
