"""Notes of the data that clients are bringing to this host: files of its own, so that they outlive it.

A task that carries a client's data is this host's alone, and a reboot loses it. It promises that what such a task may leave
beside a volume is noted before it is there, until it is gone, and has a name of its own: nobody else can know whose it is, and
by then another host may be at work on the same volume.
"""

from __future__ import annotations

import contextlib
import os

_BETWEEN = "_"
_LENGTH = 12


class Notes:
    """For workers. They are kept in a directory beneath `lib_dir`."""

    def __init__(self, lib_dir: str) -> None:
        self._directory = os.path.join(lib_dir, "parts")

    def write(self, sd: str, image: str, volume: str) -> str:
        """Return what is to stand in the name of what comes: `<volume>.<this>.part`. Raises OSError; then nothing may come."""
        if known := self.token(sd, image, volume):
            return known
        os.makedirs(self._directory, mode=0o700, exist_ok=True)
        token = os.urandom(6).hex()
        fd = os.open(self._path(sd, image, volume), os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            os.write(fd, token.encode())
            os.fsync(fd)
        finally:
            os.close(fd)
        self._sync()
        return token

    def token(self, sd: str, image: str, volume: str) -> str:
        """Return what `write` has returned; '' when nothing is noted."""
        try:
            with open(self._path(sd, image, volume), encoding="ascii", errors="replace") as file:
                token = file.read(_LENGTH)
        except FileNotFoundError:
            return ""
        return token if len(token) == _LENGTH and token.isalnum() else ""

    def remove(self, sd: str, image: str, volume: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path(sd, image, volume))

    def of(self, sd: str) -> list[tuple[str, str]]:
        """Return image and volume of each note about the domain."""
        try:
            names = sorted(os.listdir(self._directory))
        except FileNotFoundError:
            return []
        words = [name.split(_BETWEEN) for name in names]
        return [(word[1], word[2]) for word in words if len(word) == 3 and word[0] == sd.lower()]

    def _sync(self) -> None:
        fd = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def _path(self, sd: str, image: str, volume: str) -> str:
        return os.path.join(self._directory, _BETWEEN.join((sd.lower(), image, volume)))
