"""Leases: those that this process holds, by the domain they are on.

It promises that a lease counts as held only while nobody else can have it: on another host, if it was got from sanlock, and in
any case on this one.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import select
import threading
from collections.abc import Callable

from drivers.storage.keeper import sanlocked

RESOURCE = "SDM"


class Leases:
    """`on_loss(reason)` is called in a thread of its own when sanlock itself has gone."""

    def __init__(self, on_loss: Callable[[str], None]) -> None:
        self._on_loss = on_loss
        self._lock = threading.RLock()
        self._flocks: dict[str, int] = {}
        self._disks: dict[str, list[tuple[str, int]]] = {}
        self._registered = -1

    def held(self) -> list[str]:
        """Return the domains whose leases are held."""
        return sorted(self._flocks)

    def acquire(self, domain: str, path: str, offset: int, *, sanlock: bool) -> None:
        """Get the lease. That it is held already is no error; one that is held on this host alone is got from sanlock, too, if
        that is wanted now. Raises OSError; EWOULDBLOCK when somebody else has it."""
        with self._lock:
            flock = self._flocks.get(domain, -1)
            held = flock >= 0
            if not held:
                flock = _flocked(path)
            try:
                if sanlock and domain not in self._disks:
                    self._register()
                    sanlocked.acquire(self._registered, domain, RESOURCE, [(path, offset)])
                    self._disks[domain] = [(path, offset)]
            except OSError:
                if not held:
                    os.close(flock)
                raise
            self._flocks[domain] = flock

    def release(self, domain: str) -> None:
        """Give the lease back. That it is not held is no error. Raises OSError; it is held no more all the same, but other
        hosts may not see that: sanlock forgets it first, and then tells the storage."""
        with self._lock:
            disks = self._disks.pop(domain, None)
            try:
                if disks is not None:
                    sanlocked.release(self._registered, domain, RESOURCE, disks)
            finally:
                flock = self._flocks.pop(domain, -1)
                if flock >= 0:
                    os.close(flock)
                if not self._disks:
                    self._unregister()

    def drop(self) -> None:
        """Hold nothing any more, without asking anybody: sanlock gives back what it can when its socket closes."""
        with self._lock:
            self._unregister()
            self._disks.clear()
            flocks, self._flocks = self._flocks, {}
        for flock in flocks.values():
            os.close(flock)

    def _register(self) -> None:
        if self._registered < 0:
            self._registered = sanlocked.register()
            threading.Thread(target=self._watch, args=(self._registered,), daemon=True).start()

    def _unregister(self) -> None:
        if self._registered >= 0:
            # The thread that watches it wakes up; the number is free a moment later.
            registered, self._registered = self._registered, -1
            os.close(registered)

    def _watch(self, registered: int) -> None:
        """Wait until sanlock closes its end. It says nothing there but answers, which are waited for where it is asked."""
        poll = select.poll()
        with contextlib.suppress(OSError):
            poll.register(registered, select.POLLHUP)
        while self._registered == registered:
            if any(events & (select.POLLHUP | select.POLLERR) for _, events in poll.poll(1000)):
                if self._registered == registered:
                    self._on_loss("sanlock has ended")
                return


def _flocked(path: str) -> int:
    fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(fd)
        raise OSError(errno.EWOULDBLOCK, "another daemon on this machine holds it", path) from error
    except OSError:
        os.close(fd)
        raise
    return fd
