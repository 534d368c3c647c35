"""Changing a volume's metadata: verbs do, machines do, and tasks that are at work on its image.

It promises that of two changes on this host each keeps what the other has set. For worker threads.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any
from weakref import WeakValueDictionary

import msgspec

from drivers.storage.errors import StorageHangs
from drivers.storage.helpers.files import Files
from drivers.storage.images.chains import Domains, meta, opened
from drivers.storage.images.volume_metadata import Volume, decode, encode

PATIENCE = 60.0
"""Seconds for who is at it to be done: two calls on the storage."""
_locks: WeakValueDictionary[str, threading.Lock] = WeakValueDictionary()
_guard = threading.Lock()


def read_meta(files: Files, image: str, volume: str) -> Volume:
    return decode(files.read(meta(image, volume)), volume)


def change_meta(domains: Domains, sd: str, image: str, volume: str, **fields: Any) -> None:
    """Set fields of a volume's metadata, in one atomic write."""
    turn_meta(domains, sd, image, volume, lambda there: msgspec.structs.replace(there, **fields))


def turn_meta(domains: Domains, sd: str, image: str, volume: str, turned: Callable[[Volume], Volume]) -> None:
    """Put in the place of a volume's metadata what `turned` makes of them."""
    domain, files = opened(domains, sd)
    with _alone(f"{sd}/{volume}".lower()):
        changed = turned(read_meta(files, image, volume))
        files.write(meta(image, volume), encode(changed, domain.version))


@contextlib.contextmanager
def _alone(what: str) -> Iterator[None]:
    with _guard:
        lock = _locks.get(what)
        if lock is None:
            lock = _locks[what] = threading.Lock()
    if not lock.acquire(timeout=PATIENCE):
        raise StorageHangs(what=what, reason="somebody else is still at it")
    try:
        yield
    finally:
        lock.release()
