"""The probe: looks at the storage again and again, on a thread of its own, and reports how that went.

It promises a report per look, and that a look which hangs is told by the silence: nothing here can tell.
"""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import threading
import time
from collections.abc import Callable
from typing import Any

from drivers.storage.outside.beneath import opened
from drivers.storage.outside.deeds import space
from drivers.storage.outside.frames import LONGEST

TEST_FILE = "__DIRECT_IO_TEST__"
_PAGE = 4096


class Probe:
    """Reads `path` every `delay` seconds. `report` is called in its thread."""

    def __init__(self, root: str, path: str, report: Callable[[dict[str, Any]], None]) -> None:
        self._root = root
        self._path = path
        self._report = report
        self._delay = 0.0
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    def watch(self, delay: float) -> None:
        """Look every `delay` seconds from now on; 0: no more. The first look is at once."""
        with self._changed:
            self._delay = delay
            self._changed.notify()
            if delay and self._thread is None:
                self._thread = threading.Thread(target=self._run, name="probe", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        while True:
            with self._changed:
                if not self._delay:
                    self._thread = None
                    return
            self._report(self._look())
            with self._changed:
                if self._delay:
                    self._changed.wait(self._delay)

    def _look(self) -> dict[str, Any]:
        began = time.monotonic()
        told: dict[str, Any] = {"report": "check", "began": began}
        try:
            told["metadata"] = read_direct(self._root, self._path)
            told["delay"] = time.monotonic() - began
            told["space"] = space(self._root, "")
        except OSError as error:
            told["errno"], told["error"] = error.errno or errno.EIO, str(error)
        return told


def read_direct(root: str, path: str) -> bytes:
    """Return the file's bytes as the storage has them, not the kernel's memory of them, where the file system can do that."""
    try:
        with opened(root, path, os.O_RDONLY | os.O_DIRECT) as fd, mmap.mmap(-1, LONGEST) as buffer:
            return buffer[: os.preadv(fd, [buffer], 0)]
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
    with opened(root, path, os.O_RDONLY) as fd:
        return os.pread(fd, LONGEST, 0)


def try_direct(root: str) -> bool:
    """Write and read the test file in the root. Return whether the file system takes direct I/O. Raises OSError when it cannot
    be written and read at all."""
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW
    with opened(root, TEST_FILE, flags, 0o644) as fd:
        os.pwrite(fd, b"\0" * _PAGE, 0)
        os.fsync(fd)
    direct = True
    with mmap.mmap(-1, _PAGE) as page:
        try:
            with opened(root, TEST_FILE, os.O_RDWR | os.O_DIRECT) as fd:
                os.pwritev(fd, [page], 0)
                os.preadv(fd, [page], 0)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            direct = False
    with contextlib.suppress(PermissionError), opened(root, TEST_FILE, os.O_RDONLY) as fd:
        os.fchmod(fd, 0o644)
    return direct
