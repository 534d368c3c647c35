"""StateDirectory: small files that are whole or not there.

It promises that a reader, also one after a crash, sees the old bytes or the new ones, and that nothing is deleted silently:
what cannot be used is set aside under another name, with a message.
"""

from __future__ import annotations

import logging
import os
import time

log = logging.getLogger("state.directory")

ASIDE = "set-aside"


class StateDirectory:
    """Files under `path`, mode 0600 in directories of mode 0700. `below` gives a directory inside."""

    def __init__(self, path: str) -> None:
        self.path = path
        os.makedirs(path, mode=0o700, exist_ok=True)

    def below(self, name: str) -> StateDirectory:
        return StateDirectory(os.path.join(self.path, name))

    def write(self, name: str, data: bytes, *, sync: bool = False, mode: int = 0o600) -> None:
        """Replace the file `name` by data, atomically. Raises OSError (ENOSPC for one) and then leaves the old file.

        `sync`: also force it to the disk; pointless on tmpfs, where a state directory belongs.
        """
        path = os.path.join(self.path, name)
        fresh = f"{path}.new"
        fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
        try:
            _write_all(fd, data)
            if sync:
                os.fsync(fd)
        except OSError:
            os.unlink(fresh)
            raise
        finally:
            os.close(fd)
        os.rename(fresh, path)

    def read(self, name: str) -> bytes | None:
        """Return the file's bytes, or None when there is none."""
        try:
            with open(os.path.join(self.path, name), "rb") as file:
                return file.read()
        except FileNotFoundError:
            return None

    def names(self) -> list[str]:
        """Return the names of the files directly here, unfinished and set-aside ones left out."""
        with os.scandir(self.path) as entries:
            return sorted(e.name for e in entries if e.is_file() and not e.name.endswith((".new", f".{ASIDE}")))

    def remove(self, name: str) -> None:
        """Delete the file if it is there."""
        try:
            os.unlink(os.path.join(self.path, name))
        except FileNotFoundError:
            return

    def set_aside(self, name: str, reason: str) -> None:
        """Move an unusable file out of the way, and say so. It is kept for whoever wants to know what happened."""
        path = os.path.join(self.path, name)
        aside = f"{path}.{time.time_ns()}.{ASIDE}"
        try:
            os.rename(path, aside)
        except OSError as error:
            log.error("Cannot set aside a file that is of no use file=%s reason=%s error=%s", path, reason, error)
        else:
            log.error("Set aside a file that is of no use file=%s kept=%s reason=%s", path, aside, reason)


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
