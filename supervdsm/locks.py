"""One at a time: two actions that would work on the same thing.

It promises that a lock ends with the process that has it, however that ends. Only slow actions may lock: each has a process of
its own.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager

from supervdsm.places import private
from supervdsm.registry import Context


@contextmanager
def alone(context: Context, what: str) -> Iterator[None]:
    """Wait until nobody else is at work on `what`. Nothing but the action's time-out limits the wait."""
    byte = int.from_bytes(
        hashlib.sha256(what.encode()).digest()[:7], "big"
    )  # of one file, so that no file stays behind
    fd = os.open(f"{private(context)}/locks", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.lockf(fd, fcntl.LOCK_EX, 1, byte)
        yield
    finally:
        os.close(fd)
