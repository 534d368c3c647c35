"""What children do for tasks that no program of the system does: erase a file's data, copy them, and carry them over HTTP.

    python -m drivers.storage.toil erase PATH
    python -m drivers.storage.toil copy MOST SOURCE PATH                     (at most so many bytes)
    python -m drivers.storage.toil fetch MOST URL PATH [NAME: VALUE ...]     (headers of the request)
    python -m drivers.storage.toil send URL PATH [NAME: VALUE ...]

It promises to say how far it is (a percentage, in a line of its own), to end with a status other than 0 when the work is not
done, and then to say why in the last line of its errors; and that neither a URL nor what it leads on to is anything but http
or https. It is a program of its own: the daemon never imports it.
"""

from __future__ import annotations

import http.client
import os
import stat
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

from drivers.storage.pour import Progress

CHUNK = 1 << 20
SECRETS = ("authorization", "cookie", "proxy-authorization")
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


def copy(source: str, path: str, most: int) -> None:
    """Write into the file what another has: a regular one, that everybody on this host may read."""
    with open(os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
        there = os.fstat(file.fileno())
        if not stat.S_ISREG(there.st_mode) or not there.st_mode & stat.S_IROTH:
            raise OSError(f"{source} is no file that everybody on this host may read")
        _write(path, file.read, there.st_size, most)


def fetch(url: str, path: str, headers: dict[str, str], most: int) -> None:
    """Write what the URL gives into the file, from its beginning."""
    with _asked(urllib.request.Request(url, headers=headers)) as reply:
        _write(path, reply.read, int(reply.headers.get("Content-Length") or 0), most)


class _Redirects(urllib.request.HTTPRedirectHandler):
    """The library would take what a client told one server to another."""

    def redirect_request(self, req: urllib.request.Request, *args: Any) -> urllib.request.Request | None:
        asked = super().redirect_request(req, *args)
        if asked is not None and (asked.type, asked.host) != (req.type, req.host):
            asked.headers = {name: value for name, value in asked.headers.items() if name.lower() not in SECRETS}
        return asked


def _asked(request: urllib.request.Request) -> Any:
    """Return the reply. The library would follow a redirection to ftp, too."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler,
        urllib.request.HTTPHandler,
        urllib.request.HTTPSHandler,
        _Redirects,
        urllib.request.HTTPDefaultErrorHandler,
        urllib.request.HTTPErrorProcessor,
        urllib.request.UnknownHandler,
    ):
        opener.add_handler(handler())
    return opener.open(request, timeout=PATIENCE)


def _write(path: str, read: Callable[[int], bytes], length: int, most: int) -> None:
    """Write what can be read, `length` bytes (0: as many as there are) and at most `most`, and have it on the medium."""
    if length > most:
        raise OSError(f"{length} bytes are too many: the volume can take {most}")
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o660)
    progress, got = Progress(length), 0
    while data := read(CHUNK):
        got += len(data)
        if got > most:
            raise OSError(f"more came than the {most} bytes that the volume can take")
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view) :]
        progress.add(len(data))
    if length and got != length:
        raise OSError(f"{got} bytes came, and {length} were promised")
    if not got:
        raise OSError("nothing came")
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
    with _asked(request) as reply:
        reply.read()


def _url(text: str) -> str:
    if not text.startswith(SCHEMES):
        raise ValueError("only http and https are carried")
    return text


def _headers(lines: list[str]) -> dict[str, str]:
    return {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}


def main(argv: list[str]) -> int:
    try:
        match argv:
            case ["erase", path]:
                erase(path)
            case ["copy", most, source, path]:
                copy(source, path, int(most))
            case ["fetch", most, url, path, *lines]:
                fetch(_url(url), path, _headers(lines), int(most))
            case ["send", url, path, *lines]:
                send(_url(url), path, _headers(lines))
            case _:
                raise ValueError(f"there is no such work: {argv}")
    except (OSError, ValueError, http.client.HTTPException, urllib.error.URLError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
