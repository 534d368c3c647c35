"""The event journal: what happened here that operators and clients may want to know of, numbered.

It promises that a number is given once, over re-execs and crashes; and that whoever asks for what came after a number gets
all of it, or is told which numbers cannot be told any more. Noting an event never fails and never costs an event its number:
where the disk is full, events are kept in memory until it is not.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from itertools import islice

import msgspec

from state.process import boot_id
from state.records import Record
from vdsmd.segments import Event, Mark, Segments, Tail, seal

log = logging.getLogger("journal")

IN_MEMORY = 4096
LONGEST_PAGE = 1000
LONGEST_TEXT = 2000
LEAP = 1000
"""So many numbers are given up after a power failure: events that had been read may never have reached the disk."""


class JournalRecord(Record):
    """Where the numbers go on. `journal` names the sequence they belong to."""

    journal: str = ""
    next: int = 1


class Page(msgspec.Struct, frozen=True):
    """Events in order. `missed` are the ranges of numbers, both ends included, between the asked-for one and `read_to` that
    cannot be told; `read_to` is what to ask for next. `first` and `last` are the numbers that there are at all."""

    journal: str
    events: list[Event]
    missed: list[tuple[int, int]]
    first: int
    last: int
    read_to: int


class Journal:
    """An owner. `note` and `read` are for any thread; the rest is the loop's."""

    name = "journal"
    record = JournalRecord

    def __init__(self, path: str, *, submit: Callable[..., None], limits: Callable[[], tuple[float, int]]) -> None:
        self._segments = Segments(path, limits)
        self._submit = submit
        self._lock = threading.Lock()
        self._known = False
        self._unsynced = False
        self._journal = ""
        self._next = 1
        self._memory: deque[Event] = deque(maxlen=IN_MEMORY)
        self._unsaved: deque[bytes] = deque(maxlen=IN_MEMORY)
        self._failing = False

    def note(self, name: str, /, **fields: object) -> None:
        """This has happened. Any thread; never raises."""
        try:
            told = {field: _text(value) for field, value in fields.items()}
            with self._lock:
                number = self._add(name, told)
            log.info("%s number=%d %s", name, number, " ".join(f"{field}={value}" for field, value in told.items()))
        except Exception:
            # Whoever notes an event has better things to do than to fail over it.
            log.exception("An event could not be noted name=%s", name)

    def read(self, since: int, limit: int = LONGEST_PAGE) -> Page:
        """Return at most `limit` events with numbers above `since`; a negative one counts from the end. May read from disk:
        not for the loop's thread."""
        with self._lock:
            self._find_end(JournalRecord())
            kept, last = list(self._memory), self._next - 1
        if since < 0:
            since = max(0, last + since)
        limit = max(0, min(limit, LONGEST_PAGE))
        oldest = kept[0].number if kept else last + 1
        events = list(islice(self._segments.events(since, oldest), limit)) if since + 1 < oldest else []
        events += islice((event for event in kept if event.number > since), limit - len(events))
        read_to = max(since, last) if len(events) < limit else events[-1].number if events else since
        return Page(
            journal=self._journal,
            events=events,
            missed=_missed(since, events, read_to),
            first=min([oldest, *self._segments.readable()[:1]]),
            last=last,
            read_to=read_to,
        )

    @property
    def end(self) -> dict[str, str]:
        """Say where the journal ends, without reading it: a follower asks for this, and for events when it has changed."""
        return {"journal": self._journal, "last": str(self._next - 1)}

    def close(self) -> None:
        """The daemon ends: not even a power failure takes anything from here on."""
        with self._lock:
            try:
                self._segments.sync()
                self._write_mark(closed=not self._unsaved)
                self._segments.sync_mark()
            except OSError as error:
                log.error("The end of the event journal may not have reached the disk error=%s", error)

    # An owner

    def snapshot(self) -> JournalRecord:
        with self._lock:
            return JournalRecord(journal=self._journal, next=self._next)

    def restore(self, record: Record) -> None:
        assert isinstance(record, JournalRecord)
        with self._lock:
            self._find_end(record)

    def recover(self) -> None:
        with self._lock:
            self._find_end(JournalRecord())

    def start(self) -> None:
        if self._unsynced:
            self._unsynced = False
            self._submit(self._sync_mark)

    def unsafe(self) -> str | None:
        return None

    def settle(self) -> None:
        """Nothing to settle."""

    def resume(self) -> None:
        """Nothing to resume."""

    def quiesce(self, deadline: float) -> None:
        """Nothing of ours runs beside the loop."""

    # Help. The lock is held

    def _add(self, name: str, fields: dict[str, str]) -> int:
        self._find_end(JournalRecord())
        event = Event(self._next, time.time(), name, fields)
        self._unsaved.append(seal(event))
        self._next += 1
        self._save()
        self._memory.append(event)
        return event.number

    def _save(self) -> None:
        """Write what has not been written yet: this event, or all since the disk became full."""
        try:
            self._segments.append(b"".join(self._unsaved), self._next - len(self._unsaved))
        except OSError as error:
            self._keep_number(error)
            return
        self._unsaved.clear()
        if self._failing:
            self._failing = False
            log.info("Events are written again last=%d", self._next - 1)

    def _keep_number(self, error: OSError) -> None:
        """Events are in memory only. Their numbers must not be given again, even if we are killed now."""
        if not self._failing:
            self._failing = True
            log.error("Events cannot be written and are kept in memory error=%s", error)
        try:
            self._write_mark()
        except OSError as second:
            log.debug("The mark of the event journal cannot be written either error=%s", second)

    def _write_mark(self, *, closed: bool = False) -> None:
        self._segments.write_mark(Mark(self._journal, boot_id(), self._next - 1, closed))

    def _sync_mark(self) -> None:
        """In a worker: forget on disk, too, that the previous run ended well."""
        with self._lock:
            self._write_mark()
        self._segments.sync_mark()

    def _find_end(self, record: JournalRecord) -> None:
        """Find out where the numbers go on. What is on disk counts too after a hand-off: a run that failed to take over may
        have noted events after the record was made."""
        if self._known:
            return
        self._known = True
        self._journal, self._next = record.journal, record.next
        tail = Tail()
        try:
            tail = self._segments.tail()
            self._next = max(self._next, tail.last + 1)
            if not record.journal:
                self._begin(tail)
        except OSError as error:
            self._next = max(self._next, int(time.time()))  # nobody knows how far they have gone, but not so far
            log.error("The event journal cannot be read, numbers go on at %d error=%s", self._next, error)
        self._journal = self._journal or os.urandom(8).hex()
        if tail.torn:
            self._add("journal.cut", {"bytes": str(len(tail.torn))})

    def _begin(self, tail: Tail) -> None:
        """There was no hand-off: go on from what the previous run, of whatever end, has left on disk."""
        mark = self._segments.read_mark()
        if mark is not None:
            self._journal = mark.journal
            self._next = max(self._next, mark.number + 1)
        kept = mark is not None and (mark.boot == boot_id() or (mark.closed and mark.number == tail.last))
        if not kept and self._next > 1:
            self._next += LEAP
            log.warning("The end of the event journal may be lost, numbers go on at %d", self._next)
        self._journal = self._journal or os.urandom(8).hex()
        self._write_mark()
        self._unsynced = True


def _missed(since: int, events: list[Event], read_to: int) -> list[tuple[int, int]]:
    missed = []
    for number in [*(event.number for event in events), read_to + 1]:
        if number > since + 1:
            missed.append((since + 1, number - 1))
        since = number
    return missed


def _text(value: object) -> str:
    """Return value as text that every reader can hold."""
    return str(value)[:LONGEST_TEXT].encode(errors="replace").decode()
