"""What carries the bytes of an image between a volume and the daemon, which has a client at its other side.

    python -m drivers.storage.pour in PATH LENGTH SPARSE ROOM     (from descriptor 6; SPARSE: 0 or 1; ROOM: to be allocated)
    python -m drivers.storage.pour out PATH LENGTH                (to descriptor 6; descriptor 7 says that the client has all)

It promises to end with status 0 only when exactly LENGTH bytes have come and are on the medium, or have gone and were taken by
the client; to say how far it is, in percent; and to say what was wrong in the last line of its errors. It is a program of its
own, with few imports: clients wait for its start. The daemon never imports it.
"""

from __future__ import annotations

import os
import sys

CHUNK = 1 << 20
BLOCK = 64 << 10
"""What is all zeroes and as large as this becomes a hole."""
ZEROES = bytes(CHUNK)
BYTES, TAKEN = 6, 7


class ClientLeft(Exception):
    pass


class Progress:
    """Says how far it is, whenever another hundredth is done."""

    def __init__(self, whole: int) -> None:
        self._whole = whole
        self._done = 0
        self._told = 0

    def add(self, count: int) -> None:
        self._done += count
        percent = min(100, self._done * 100 // self._whole) if self._whole else 0
        if percent > self._told:
            self._told = percent
            sys.stdout.write(f"{percent}%\n")
            sys.stdout.flush()


def pour_in(path: str, length: int, *, sparse: bool, room: int) -> None:
    """Write what comes into the file, from its beginning."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o660)
    if room:
        os.posix_fallocate(fd, 0, room)
    progress = Progress(length)
    got = _pour_sparsely(fd, progress) if sparse else _pour(fd, progress)
    if got != length:
        raise ClientLeft(f"the client left: {got} bytes came, and {length} were promised")
    if sparse:
        os.ftruncate(fd, length)
    os.fsync(fd)


def _pour(fd: int, progress: Progress) -> int:
    got = 0
    while count := os.splice(BYTES, fd, CHUNK):
        got += count
        progress.add(count)
    return got


def _pour_sparsely(fd: int, progress: Progress) -> int:
    got = 0
    with open(BYTES, "rb", buffering=CHUNK) as source:
        while data := source.read(CHUNK):
            for start, end in _filled(data):
                _write(fd, memoryview(data)[start:end], got + start)
            got += len(data)
            progress.add(len(data))
    return got


def _filled(data: bytes) -> list[tuple[int, int]]:
    """Return the stretches of whole blocks in which anything is not zero."""
    if data == ZEROES[: len(data)]:
        return []
    found: list[tuple[int, int]] = []
    for start in range(0, len(data), BLOCK):
        end = min(start + BLOCK, len(data))
        if not data[start] and data[start:end] == ZEROES[: end - start]:
            continue
        if found and found[-1][1] == start:
            found[-1] = (found[-1][0], end)
        else:
            found.append((start, end))
    return found


def _write(fd: int, data: memoryview, offset: int) -> None:
    while data:
        count = os.pwrite(fd, data, offset)
        data, offset = data[count:], offset + count


def pour_out(path: str, length: int) -> None:
    """Give the file's first bytes away."""
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    os.posix_fadvise(fd, 0, length, os.POSIX_FADV_SEQUENTIAL)
    progress, left = Progress(length), length
    while left:
        try:
            count = os.splice(fd, BYTES, min(CHUNK, left))
        except BrokenPipeError:
            raise ClientLeft(f"the client left: it did not take the last {left} bytes") from None
        if not count:
            raise OSError(f"the volume has {left} bytes less than it had")
        left -= count
        progress.add(count)
    if not os.read(TAKEN, 1):
        raise ClientLeft("the client left: it did not take the last bytes")


def _is_open(fd: int) -> bool:
    """Whether the daemon has lent it: not where this is the work of one that is gone, begun once more."""
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def main(argv: list[str]) -> int:
    deed, path, length, *rest = argv
    try:
        if not _is_open(BYTES):
            raise ClientLeft("the client left before it began")
        if deed == "in":
            pour_in(path, int(length), sparse=rest[0] == "1", room=int(rest[1]))
        else:
            pour_out(path, int(length))
    except (OSError, ClientLeft) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
