"""Segments: events as lines of JSON on disk, in files of limited size and number.

It promises that a line is whole or does not count: each ends with a checksum, one that was cut short is cut off, and a
write that fails leaves the file as it was.

    <number of its first event>.jsonl    {"number":7,"time":1760000000.5,"name":"vm.status","fields":{...},"crc":"89abcdef"}
    mark                                 how far the numbers have gone, for when the lines do not tell
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import zlib
from collections.abc import Callable, Iterator

import msgspec

from state.records import UNREADABLE

log = logging.getLogger("journal")

SUFFIX = ".jsonl"
MARK = "mark"
MARK_SIZE = 160
"""Always the same, so that it can be written again where it stands when the disk is full."""
TAIL = 65536
_SEAL = len(b',"crc":"01234567"}')


class Event(msgspec.Struct, frozen=True):
    """Something that happened. `time` is in seconds since 1970."""

    number: int
    time: float
    name: str
    fields: dict[str, str]


class Mark(msgspec.Struct, frozen=True):
    """`journal` names the sequence of numbers; `boot` is the boot it was written in. `closed`: the daemon ended by itself
    and everything up to `number` has reached the disk."""

    journal: str
    boot: str
    number: int
    closed: bool = False


class Tail(msgspec.Struct, frozen=True):
    """The last number that was given away, as far as lines tell, and what was cut off behind the last whole line."""

    last: int = 0
    torn: bytes = b""


def seal(event: Event) -> bytes:
    """Return the event as a line."""
    body = msgspec.json.encode(event)
    return body[:-1] + b',"crc":"%08x"}\n' % zlib.crc32(body)


def unseal(line: bytes) -> Event | None:
    """Return the event of a line (without its end), or None when the line is damaged."""
    body = line[:-_SEAL] + b"}"
    if line[-_SEAL:] != b',"crc":"%08x"}' % zlib.crc32(body):
        return None
    try:
        return msgspec.json.decode(body, type=Event)
    except UNREADABLE:
        return None


class Segments:
    """The files in one directory. `limits` returns the size in MiB at which a file is full, and how many full ones stay."""

    def __init__(self, path: str, limits: Callable[[], tuple[float, int]]) -> None:
        self._path = path
        self._limits = limits
        self._fd = -1

    def numbers(self) -> list[int]:
        """Return the number of the first event of each file, in order. Raises OSError."""
        try:
            names = os.listdir(self._path)
        except FileNotFoundError:
            return []
        stems = (name.removesuffix(SUFFIX) for name in names if name.endswith(SUFFIX))
        return sorted(int(stem) for stem in stems if stem.isascii() and stem.isdigit())

    def append(self, lines: bytes, first: int) -> None:
        """Write lines, of which the first has this number, in one go. Raises OSError; then nothing has been written."""
        size = self._make_room(len(lines), first)
        try:
            if os.write(self._fd, lines) != len(lines):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(self._fd, size)
            self.close()
            raise

    def tail(self) -> Tail:
        """Open the last file, cut off a torn line, and return how far the numbers have gone. Lines that are damaged have
        used up a number each. Raises OSError."""
        numbers = self.numbers()
        if not numbers:
            return Tail()
        torn = self._open(numbers[-1])
        size = os.fstat(self._fd).st_size
        used = int(bool(torn))
        for length in (TAIL, size):
            lines = os.pread(self._fd, min(length, size), max(0, size - length)).splitlines()
            for damaged, line in enumerate(reversed(lines)):
                event = unseal(line)
                if event is not None:
                    return Tail(event.number + damaged + used, torn)
        return Tail(numbers[-1] - 1 + len(lines) + used, torn)

    def readable(self) -> list[int]:
        """Return the same for readers: what cannot be seen is missing, and they are told so by its numbers."""
        try:
            return self.numbers()
        except OSError as error:
            log.warning("Events cannot be read directory=%s error=%s", self._path, error)
            return []

    def events(self, since: int, before: int) -> Iterator[Event]:
        """Yield the events between these numbers, neither included, in order. Damaged lines are passed over."""
        numbers = self.readable()
        for number, following in zip(numbers, [*numbers, before][1:], strict=True):
            if number >= before or following <= since + 1:
                continue
            for event in self._read(number):
                if since < event.number < before:
                    since = event.number
                    yield event

    def read_mark(self) -> Mark | None:
        """Return the mark, or None when there is none that is of use. Raises OSError."""
        try:
            with open(os.path.join(self._path, MARK), "rb") as file:
                return msgspec.json.decode(file.read(), type=Mark)
        except FileNotFoundError:
            return None
        except UNREADABLE as error:
            log.error("The mark of the event journal is of no use and is made anew reason=%s", error)
            return None

    def write_mark(self, mark: Mark) -> None:
        """Replace the mark. Raises OSError."""
        os.makedirs(self._path, mode=0o700, exist_ok=True)
        fd = os.open(os.path.join(self._path, MARK), os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.pwrite(fd, msgspec.json.encode(mark).ljust(MARK_SIZE - 1) + b"\n", 0)
            os.ftruncate(fd, MARK_SIZE)  # one that was damaged may have been longer
        finally:
            os.close(fd)

    def sync_mark(self) -> None:
        """Have the mark reach the disk. Raises OSError."""
        fd = os.open(os.path.join(self._path, MARK), os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def sync(self) -> None:
        """Have all lines reach the disk. Raises OSError."""
        if self._fd >= 0:
            os.fsync(self._fd)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _make_room(self, length: int, first: int) -> int:
        """Have a file open that takes so many bytes more, and return its size."""
        if self._fd < 0:
            self._open(max(self.numbers(), default=first))
        limit, keep = self._limits()
        now = os.fstat(self._fd)
        if now.st_nlink and (not now.st_size or now.st_size + length <= limit * 2**20):
            return now.st_size
        self._open(first)
        for number in self.numbers()[: -keep - 1]:
            with contextlib.suppress(OSError):
                os.unlink(self._name(number))
        return os.fstat(self._fd).st_size

    def _open(self, number: int) -> bytes:
        """Open a file, or make it. Cut off a line at its end that is not whole, and return it."""
        self.close()
        os.makedirs(self._path, mode=0o700, exist_ok=True)
        fd = os.open(self._name(number), os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            torn = _cut(fd)
        except OSError:
            os.close(fd)
            raise
        self._fd = fd
        return torn

    def _read(self, number: int) -> Iterator[Event]:
        try:
            with open(self._name(number), "rb") as file:
                for line in file:
                    event = unseal(line.removesuffix(b"\n"))
                    if event is not None:
                        yield event
        except OSError as error:
            # Removed meanwhile, or the disk is at fault: its numbers are missing, and the reader is told which.
            log.warning("Events cannot be read file=%s error=%s", self._name(number), error)

    def _name(self, number: int) -> str:
        return os.path.join(self._path, f"{number:012d}{SUFFIX}")


def _cut(fd: int) -> bytes:
    size = os.fstat(fd).st_size
    for length in (1, TAIL, size):
        end = os.pread(fd, min(length, size), max(0, size - length))
        _, newline, torn = end.rpartition(b"\n")
        if newline or length >= size:
            break
    if torn:
        os.ftruncate(fd, size - len(torn))
        log.error("An event was cut short and is lost line=%r", torn[:200])
    return torn
