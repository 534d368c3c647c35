"""A connection to a guest: lines come in, lines go out, and neither can be made to cost more than a little.

It promises that a guest cannot have more than one line of at most `LONGEST` bytes kept for it, and no more of the loop's time
than a trickle: one that floods us is read slowly, and waits. Imported after the first answer.
"""

from __future__ import annotations

import os
import select
import time
from collections.abc import Callable
from typing import Any

from drivers.base import Host
from drivers.errors import NotResponding

LONGEST = 1 << 20
"""Bytes of a line, as the protocol has it."""
CHUNK = 1 << 13
BURST = 1 << 19
RATE = 1 << 18
"""Bytes a second that are read of one guest for good. At first, and after it has been quiet, it may send BURST at once."""
PER_LINE = 256
"""Bytes that a line counts for above its own: the work is in the lines."""
MOST_UNSENT = 1 << 16
"""Bytes that wait for a guest which does not take them."""
AT_FULL_RATE = 4
"""Guests that may be at RATE for good at the same time. If there are more, they share that."""


class Floods:
    """How many guests send more than they should. Those who do not are read at once, however many do."""

    def __init__(self) -> None:
        self.waiting = 0

    def rest(self, debt: float) -> float:
        """Return the seconds after which a guest that has overspent `debt` bytes is listened to again."""
        return debt / RATE * max(1.0, self.waiting / AT_FULL_RATE)


class Lines:
    """Cuts what arrives into lines. One that grows too long is thrown away, up to its end, and counted in `lost`."""

    def __init__(self, begun: bytes = b"", *, skipping: bool = False) -> None:
        self.begun = bytearray(begun)
        self.skipping = skipping
        self.lost = 0

    def feed(self, data: bytes) -> list[bytes]:
        """Return the lines that `data` completes, without their ends. Empty ones are passed over."""
        *ends, rest = data.split(b"\n")
        lines = [self._complete(end) for end in ends]
        self._begin(rest)
        return [line for line in lines if line.strip()]

    def _complete(self, end: bytes) -> bytes:
        self._begin(end)
        line = b"" if self.skipping else bytes(self.begun)
        self.begun.clear()
        self.skipping = False
        return line

    def _begin(self, part: bytes) -> None:
        if self.skipping:
            return
        self.begun += part
        if len(self.begun) > LONGEST:
            self.begun = bytearray()
            self.skipping = True
            self.lost += 1


class Channel:
    """One connection, on a descriptor that somebody else opens and closes. All calls come from the loop's thread.

    `heard(lines)` is told what comes, `ended()` that nothing more will.
    """

    def __init__(
        self,
        host: Host,
        fd: int,
        lines: Lines,
        unsent: bytes,
        heard: Callable[[list[bytes]], None],
        ended: Callable[[], None],
        floods: Floods | None = None,
    ) -> None:
        self.lines = lines
        self.unsent = bytearray(unsent)
        self._host = host
        self._fd = fd
        self._heard = heard
        self._ended = ended
        self._events = 0
        self._allowance = float(BURST)
        self._reckoned = time.monotonic()
        self._floods = floods or Floods()
        self._rest: Any = None

    def start(self) -> None:
        """Begin to listen. May be called again."""
        if self._rest is None:
            self._watch()

    def stop(self) -> None:
        """Do nothing any more, until `start`."""
        if self._rest is not None:
            self._rest.cancel()
            self._wake()
        self._unwatch()

    def send(self, line: bytes) -> None:
        """Send the line, or keep it until the guest takes it. Raises NotResponding when too much is waiting already."""
        if len(self.unsent) + len(line) > MOST_UNSENT:
            raise NotResponding(what="the guest agent", reason="it takes nothing of what is sent to it")
        self.unsent += line
        self._flush()
        self.start()

    def _watch(self) -> None:
        wanted = select.EPOLLIN | (select.EPOLLOUT if self.unsent else 0)
        if not self._events:
            self._host.poller.watch(self._fd, wanted, self._ready)
        elif wanted != self._events:
            self._host.poller.change(self._fd, wanted)
        self._events = wanted

    def _unwatch(self) -> None:
        # Not only without events: a hang-up is reported for whatever is watched.
        if self._events:
            self._host.poller.unwatch(self._fd)
            self._events = 0

    def _ready(self, events: int) -> None:
        if events & select.EPOLLOUT:
            self._flush()
            self._watch()
        if events & ~select.EPOLLOUT:
            self._read()

    def _flush(self) -> None:
        try:
            del self.unsent[: os.write(self._fd, self.unsent)]
        except BlockingIOError:
            return
        except OSError:
            # It is broken: reading will tell.
            self.unsent.clear()

    def _read(self) -> None:
        try:
            data = os.read(self._fd, CHUNK)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.stop()
            self._ended()
            return
        self._spend(len(data) + PER_LINE * data.count(b"\n"))
        lines = self.lines.feed(data)
        if lines:
            self._heard(lines)

    def _spend(self, cost: int) -> None:
        now = time.monotonic()
        self._allowance = min(BURST, self._allowance + RATE * (now - self._reckoned)) - cost
        self._reckoned = now
        if self._allowance < 0:
            self._unwatch()
            self._floods.waiting += 1
            self._rest = self._host.later(self._floods.rest(-self._allowance), self._rested)

    def _rested(self) -> None:
        self._wake()
        # The rest has paid for what was read, and for no more, however long it was.
        self._allowance, self._reckoned = 0.0, time.monotonic()
        self._watch()

    def _wake(self) -> None:
        self._rest = None
        self._floods.waiting -= 1
