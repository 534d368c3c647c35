"""Reader: the one thread that listens to all helpers.

It promises that whoever waits for a helper hears of its answer, or of its end, at once, and that the thread waits for nothing
but words of helpers, so that it ends as soon as it is told to.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import threading
from collections.abc import Callable
from typing import Any

from drivers.errors import Busy
from drivers.storage.helpers.process import Process
from state import threads

log = logging.getLogger("storage.remotes")

THREAD = "storage"

Heard = Callable[[list[dict[str, Any]]], None]
Ended = Callable[[ValueError | None], None]
"""Called with what was wrong with its words, or None when it has just ended."""


class Reader:
    """Everything but the callbacks of `follow` may be called from any thread; these are called in the reader's."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._epoll.register(self._wake, select.EPOLLIN)
        self._followed: dict[int, tuple[Process, Heard, Ended]] = {}
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._stopping = False

    def start(self) -> None:
        self._stopping = False
        if self._thread is None:
            self._thread = threads.start(THREAD, self._run)

    def stop(self, deadline: float) -> None:
        """Raises Busy."""
        self._stopping = True
        os.eventfd_write(self._wake, 1)
        if self._thread is not None and not threads.join(self._thread, deadline):
            raise Busy(what=f"thread {THREAD}", reason="it did not end")
        self._thread = None

    def follow(self, process: Process, heard: Heard, ended: Ended) -> None:
        with self._lock:
            self._followed[process.fd] = (process, heard, ended)
            self._epoll.register(process.fd, select.EPOLLIN)

    def leave(self, process: Process) -> bool:
        """Listen to it no more. Say whether that is news."""
        with self._lock:
            known = self._ignore(process)
            if known:
                del self._followed[process.fd]
            return known

    def _ignore(self, process: Process) -> bool:
        """Have the kernel tell nothing more of it, if its number is not another's by now. Say whether it is not."""
        followed = self._followed.get(process.fd)
        if followed is None or followed[0] is not process:
            return False
        with contextlib.suppress(FileNotFoundError):  # done already
            self._epoll.unregister(process.fd)
        return True

    def _run(self) -> None:
        while not self._stopping:
            for fd, _events in self._epoll.poll():
                followed = self._followed.get(fd)
                if fd == self._wake:
                    os.eventfd_read(self._wake)
                elif followed is not None:
                    self._read(*followed)

    def _read(self, process: Process, heard: Heard, ended: Ended) -> None:
        try:
            reports = process.receive()
        except (EOFError, ValueError) as error:
            with self._lock:
                self._ignore(process)
            ended(error if isinstance(error, ValueError) else None)
            return
        try:
            heard(reports)
        except Exception:
            # The edge of the thread: what goes wrong with one helper's reports must not make all others unheard.
            log.exception("Reports cannot be taken in helper=%s", process.name)
