"""A body on its way between a client and a child's pipe: as fast as the slower of the two, never more than a pipe full of it.

It promises that neither waits in the loop's thread, that one turn of the loop moves no more than `TURN` bytes of a client's, so
that others get theirs, and that a plain connection's bytes never come into this process: the kernel moves them (splice).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import socket
import time
from collections.abc import Callable

from vdsmd.api.connection import CHUNK, Connection
from vdsmd.loop import READ, WRITE, Loop

TURN = 128 * 2**10
PIPE = 2**20
_GONE = select.EPOLLHUP | select.EPOLLERR
_LOWEST = 10
"""No descriptor that is lent to a child has a number that means something else in the child."""


def new_pipe() -> tuple[int, int]:
    """Return both ends of a pipe, as large as we may have it."""
    reader, writer = map(_raised, os.pipe2(os.O_CLOEXEC))
    with contextlib.suppress(OSError):  # a limit of ours; then it is a smaller one
        fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, PIPE)
    return reader, writer


Over = Callable[[str, int], None]


def _raised(fd: int) -> int:
    """Return it under another number, if its own is too low."""
    if fd >= _LOWEST:
        return fd
    try:
        return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _LOWEST)
    finally:
        os.close(fd)


class Transfer:
    """One body. `over(reason, status)` is called once: '' when all has passed, else why not, and the HTTP status that says so.
    The pipe is closed by then."""

    pipe_event = 0
    client_event = 0

    def __init__(self, loop: Loop, connection: Connection, pipe: int, length: int, silence: float, over: Over) -> None:
        self.since = time.monotonic()
        self._loop = loop
        self._connection = connection
        self._stream = connection.stream
        self._plain = isinstance(self._stream, socket.socket)
        self._pipe = pipe
        self._whole = self._left = length
        self._silence = silence
        self._over = over
        self._rest = memoryview(b"")
        self._waits_for_pipe = False
        self.ended = False
        os.set_blocking(pipe, False)

    def ready(self, events: int) -> None:
        """The client is ready, or gone."""
        if events & _GONE:
            self._connection.drop()
        elif not self.ended:
            self._move()

    def sweep(self, now: float) -> None:
        if not self.ended and not self._waits_for_pipe and now - self.since > self._silence:
            self.end(f"the client was silent for {self._silence:g} s", 408)

    def close(self) -> None:
        """Give up. Nobody is told."""
        if not self.ended:
            self.ended = True
            if self._waits_for_pipe:
                self._loop.unwatch(self._pipe)
            os.close(self._pipe)

    def end(self, reason: str, status: int = 500) -> None:
        if not self.ended:
            self.close()
            self._connection.want(0)
            self._over(reason, status)

    def _wait_for_pipe(self) -> None:
        self._waits_for_pipe = True
        self._connection.want(0)
        self._loop.watch(self._pipe, self.pipe_event, self._pipe_ready)

    def _wait_for_client(self) -> None:
        if self._waits_for_pipe:
            self._waits_for_pipe = False
            self._loop.unwatch(self._pipe)
        self.since = time.monotonic()
        self._connection.want(self.client_event)

    def _pipe_ready(self, _events: int) -> None:
        self._move()

    def _move(self) -> None:
        """Move what goes at once, and no more than our share of this turn."""
        budget = TURN
        try:
            while budget > 0 and (self._left or self._rest):
                count = self._step(budget)
                if not count:
                    self._ended_early()
                    return
                budget -= count
        except BlockingIOError:
            # Which of the two was it? If nothing has moved, the other one than that which we were called for.
            if budget == TURN:
                self._wait_for_client() if self._waits_for_pipe else self._wait_for_pipe()
                return
        except OSError as error:
            self._broken(error)
            return
        self.since = time.monotonic()
        if not self._left and not self._rest:
            self.end("")

    def _step(self, most: int) -> int:
        """Move up to `most` bytes, and return how many; 0 at the end of where they come from."""
        raise NotImplementedError

    def _ended_early(self) -> None:
        raise NotImplementedError

    def _broken(self, error: OSError) -> None:
        raise NotImplementedError


class Upload(Transfer):
    """From the client to the pipe. `begin` with what has come already."""

    pipe_event = WRITE
    client_event = READ

    def begin(self, early: bytes) -> None:
        self._rest = memoryview(early)[: self._left]
        self._left -= len(self._rest)
        self._wait_for_client()
        if not self._left or self._rest:
            self._move()

    def _step(self, most: int) -> int:
        if not self._rest:
            if self._plain:
                count = os.splice(self._stream.fileno(), self._pipe, min(most, self._left), flags=os.SPLICE_F_NONBLOCK)
                self._left -= count
                return count
            self._rest = memoryview(self._stream.recv(CHUNK))[: self._left]
            self._left -= len(self._rest)
            if not self._rest:
                return 0
        count = os.write(self._pipe, self._rest)
        self._rest = self._rest[count:]
        return count

    def _ended_early(self) -> None:
        self.end(f"{self._whole - self._left} bytes came, and {self._whole} were promised", 400)

    def _broken(self, error: OSError) -> None:
        if isinstance(error, BrokenPipeError):
            self.end("the volume takes no more")  # the task says why
        else:
            self._connection.drop()


class Download(Transfer):
    """From the pipe to the client. The head is sent as soon as there is something to follow it."""

    pipe_event = READ
    client_event = WRITE

    def begin(self, head: bytes) -> None:
        self._head = head
        self.said = False
        if self._left:
            self._wait_for_pipe()
        else:
            self._say_head()
            self._wait_for_client()

    def _say_head(self) -> None:
        self._rest = memoryview(self._head)
        self.said = True

    def _pipe_ready(self, events: int) -> None:
        if not self.said:
            if not events & READ:
                self.end("nothing came from the volume")
                return
            self._say_head()
        self._move()

    def _step(self, most: int) -> int:
        if not self._rest:
            if self._plain:
                count = os.splice(self._pipe, self._stream.fileno(), min(most, self._left), flags=os.SPLICE_F_NONBLOCK)
                self._left -= count
                return count
            self._rest = memoryview(os.read(self._pipe, min(CHUNK, self._left)))
            self._left -= len(self._rest)
            if not self._rest:
                return 0
        count = self._stream.send(self._rest)
        self._rest = self._rest[count:]
        return count

    def _ended_early(self) -> None:
        self.end(f"the volume gave {self._whole - self._left} bytes of {self._whole}")

    def _broken(self, error: OSError) -> None:
        self._connection.drop()
