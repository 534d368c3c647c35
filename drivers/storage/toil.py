"""What children do for tasks that no program of the system does: erase a file's data, and carry them over HTTP.

    python -m drivers.storage.toil erase PATH
    python -m drivers.storage.toil fetch URL PATH [NAME: VALUE ...]      (headers of the request)
    python -m drivers.storage.toil send URL PATH [NAME: VALUE ...]

It promises to say how far it is (a percentage, in a line of its own), to end with a status other than 0 when the work is not
done, and then to say why in the last line of its errors. It is a program of its own: the daemon never imports it.
"""

from __future__ import annotations

import http.client
import os
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator

from drivers.storage.pour import Progress

CHUNK = 1 << 20
PATIENCE = 60.0
"""Seconds that the other side may be silent."""
SCHEMES = ("http://", "https://")


def erase(path: str) -> None:
    """Overwrite with zeroes what the file holds; its holes stay."""
    fd = os.open(path, os.O_WRONLY | os.O_NOFOLLOW)
    size = os.fstat(fd).st_size
    progress = Progress(sum(end - start for start, end in _extents(fd, size)))
    for start, end in _extents(fd, size):
        for offset in range(start, end, CHUNK):
            progress.add(os.pwrite(fd, bytes(min(CHUNK, end - offset)), offset))
    os.fsync(fd)


def _extents(fd: int, size: int) -> Iterator[tuple[int, int]]:
    end = 0
    while end < size:
        try:
            start = os.lseek(fd, end, os.SEEK_DATA)
        except OSError:
            return  # no more data
        end = os.lseek(fd, start, os.SEEK_HOLE)
        yield start, end


def fetch(url: str, path: str, headers: dict[str, str]) -> None:
    """Write what the URL gives into the file, from its beginning."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o660)
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=PATIENCE) as reply:
        length = int(reply.headers.get("Content-Length") or 0)
        progress, got = Progress(length), 0
        while data := reply.read(CHUNK):
            view = memoryview(data)
            while view:
                view = view[os.write(fd, view) :]
            got += len(data)
            progress.add(len(data))
    if length and got != length:
        raise OSError(f"{got} bytes came, and {length} were promised")
    os.fsync(fd)


class _Body:
    """A file as the body of a request, of which sending is seen."""

    def __init__(self, fd: int, size: int) -> None:
        self._file = os.fdopen(fd, "rb")
        self._progress = Progress(size)

    def read(self, count: int = CHUNK) -> bytes:
        data = self._file.read(CHUNK if count < 0 else count)
        self._progress.add(len(data))
        return data


def send(url: str, path: str, headers: dict[str, str]) -> None:
    """Put the file to the URL."""
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    size = os.fstat(fd).st_size
    headers = {"Content-Length": str(size), "Content-Type": "application/octet-stream"} | headers
    request = urllib.request.Request(url, data=_Body(fd, size), headers=headers, method="PUT")
    with urllib.request.urlopen(request, timeout=PATIENCE) as reply:
        reply.read()


def main(argv: list[str]) -> int:
    deed, *rest = argv
    try:
        if deed == "erase":
            erase(rest[0])
            return 0
        url, path, *lines = rest
        if not url.startswith(SCHEMES):
            raise ValueError("only http and https are carried")
        headers = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        {"fetch": fetch, "send": send}[deed](url, path, headers)
    except (OSError, ValueError, http.client.HTTPException, urllib.error.URLError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
