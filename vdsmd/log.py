"""Logging: one line per message into <log_dir>/vdsm.log, and to standard error while in the foreground.

A log that cannot be written never hurts the daemon. One that has been moved away (by logrotate, say) goes on in a new file.
"""

from __future__ import annotations

import logging
import os
import sys
from io import TextIOWrapper

FORMAT = "%(asctime)s %(levelname)s %(name)s %(message)s"


class LogFile(logging.FileHandler):
    """A file that follows rotation: when the old one has been moved away, it goes on in a new one of the same name."""

    def emit(self, record: logging.LogRecord) -> None:
        if self._moved():
            try:
                self.reopen()
            except OSError:
                pass  # the old file will do until the next message
        super().emit(record)

    def _open(self) -> TextIOWrapper:
        stream = super()._open()
        self._file = _identity(os.fstat(stream.fileno()))
        return stream

    def _moved(self) -> bool:
        try:
            return _identity(os.stat(self.baseFilename)) != self._file
        except OSError:
            return True

    def reopen(self) -> None:
        self.acquire()
        try:
            fresh = self._open()
            self.stream, old = fresh, self.stream
            if old is not None:
                old.close()
        finally:
            self.release()


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def configure(log_dir: str, level: str, *, foreground: bool) -> None:
    """Send all messages to the log file and, in the foreground, to standard error. Raises OSError."""
    logging.raiseExceptions = False
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    os.makedirs(log_dir, exist_ok=True)
    handlers: list[logging.Handler] = [LogFile(os.path.join(log_dir, "vdsm.log"), encoding="utf-8", errors="replace")]
    if foreground:
        handlers.append(logging.StreamHandler(sys.stderr))
    formatter = logging.Formatter(FORMAT)
    root = logging.getLogger()
    for handler in handlers:
        handler.setFormatter(formatter)
        root.addHandler(handler)
    root.setLevel(level)


def reopen() -> None:
    """Go on in a new log file at once, whether or not somebody has moved the old one away."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, LogFile):
            handler.reopen()
