"""The helper's log: standard error, and `<log_dir>/supervdsm.log`.

It promises that the daemon's user, whose directory that is, cannot have root write anywhere else. A file that has been moved
away (by logrotate, say) is followed by a new one.
"""

from __future__ import annotations

import logging
import os
import sys

from supervdsm import paths

FORMAT = "%(asctime)s %(levelname)s %(name)s %(message)s"
NAME = "supervdsm.log"


class LogFile(logging.StreamHandler):  # type: ignore[type-arg]
    def __init__(self, folder: str) -> None:
        self._folder = folder
        super().__init__(_open(folder))

    def emit(self, record: logging.LogRecord) -> None:
        if self._moved():
            try:
                self.reopen()
            except OSError:
                pass  # the old file will do until the next message
        super().emit(record)

    def fileno(self) -> int:
        return int(self.stream.fileno())

    def reopen(self) -> None:
        """Go on in a new file of the same name."""
        fresh = paths.open_log(self._folder, NAME)
        os.dup2(fresh, self.fileno(), inheritable=False)
        os.close(fresh)

    def _moved(self) -> bool:
        try:
            there, ours = os.lstat(os.path.join(self._folder, NAME)), os.fstat(self.fileno())
        except OSError:
            return True
        return (there.st_dev, there.st_ino) != (ours.st_dev, ours.st_ino)


def _open(folder: str):  # type: ignore[no-untyped-def]
    return open(paths.open_log(folder, NAME), "a", encoding="utf-8", errors="backslashreplace")


def configure(log_dir: str) -> LogFile | None:
    """Send all messages to standard error and to the file; return the file's handler, None when it cannot be had."""
    logging.raiseExceptions = False
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    root = logging.getLogger()
    root.setLevel(logging.INFO)
    formatter = logging.Formatter(FORMAT)
    stderr = logging.StreamHandler(sys.stderr)
    stderr.setFormatter(formatter)
    root.addHandler(stderr)
    try:
        file = LogFile(log_dir)
    except OSError as error:
        logging.getLogger("supervdsm").warning("Logging to standard error alone reason=%s", error)
        return None
    file.setFormatter(formatter)
    root.addHandler(file)
    return file
