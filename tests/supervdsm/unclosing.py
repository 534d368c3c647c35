"""A file system, a program, whose only file does not close as long as SWITCH exists. Arguments: MOUNTPOINT SWITCH."""

from __future__ import annotations

import os
import stat
import sys
import threading
from typing import Any

import mfusepy


class Unclosing(mfusepy.Operations):  # type: ignore[misc]
    def __init__(self, switch: str) -> None:
        self._switch = switch
        self._pause = threading.Event()

    def getattr(self, path: str, fh: int | None = None) -> dict[str, Any]:
        return {"st_mode": stat.S_IFDIR | 0o755 if path == "/" else stat.S_IFREG | 0o666, "st_nlink": 1}

    def open(self, path: str, flags: int) -> int:
        return 0

    def flush(self, path: str, fh: int) -> int:
        while os.path.exists(self._switch):
            self._pause.wait(0.02)
        return 0


if __name__ == "__main__":
    mfusepy.FUSE(Unclosing(sys.argv[2]), sys.argv[1], foreground=True)
