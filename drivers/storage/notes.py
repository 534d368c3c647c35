"""Notes of the data that clients are bringing to this host: files of its own, so that they outlive it.

A task that carries a client's data is this host's alone, and a reboot loses it. It promises that what such a task may leave
beside a volume (`.part`) is noted before it is there, until it is gone: nobody else can know whose it is.
"""

from __future__ import annotations

import contextlib
import os

_BETWEEN = "_"


class Notes:
    """For workers. They are kept in a directory beneath `lib_dir`."""

    def __init__(self, lib_dir: str) -> None:
        self._directory = os.path.join(lib_dir, "parts")

    def write(self, sd: str, image: str, volume: str) -> None:
        """Raises OSError; then nothing may be brought."""
        os.makedirs(self._directory, mode=0o700, exist_ok=True)
        fd = os.open(self._path(sd, image, volume), os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def has(self, sd: str, image: str, volume: str) -> bool:
        return os.path.exists(self._path(sd, image, volume))

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

    def _path(self, sd: str, image: str, volume: str) -> str:
        return os.path.join(self._directory, _BETWEEN.join((sd.lower(), image, volume)))
