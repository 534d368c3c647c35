"""Files: what the kernel and the system tell about this host, read as text.

It promises that what is missing, unreadable or of an unforeseen form reads as empty, and never raises: hosts differ, and no
one of these facts is worth failing a whole answer for. All paths lie below one root, so that tests can lay out a host.
"""

from __future__ import annotations

import os


class Files:
    """Reads below `root`. Only for file systems of the kernel's own and small local files: nothing here may block."""

    def __init__(self, root: str = "/") -> None:
        self._root = root.rstrip("/")

    def path(self, path: str) -> str:
        return self._root + path

    def exists(self, path: str) -> bool:
        return os.path.exists(self.path(path))

    def text(self, path: str) -> str:
        """Return the stripped content of the file, or ''."""
        try:
            with open(self.path(path), encoding="utf-8", errors="replace") as file:
                return file.read().strip()
        except OSError:
            return ""

    def number(self, path: str, default: int = 0) -> int:
        text = self.text(path)
        return int(text) if text.removeprefix("-").isdigit() else default

    def lines(self, path: str) -> list[str]:
        return self.text(path).splitlines()

    def names(self, path: str) -> list[str]:
        """Return the sorted names in the directory, or []."""
        try:
            return sorted(os.listdir(self.path(path)))
        except OSError:
            return []

    def target(self, path: str) -> str:
        """Return the last part of where the symbolic link points, or ''."""
        try:
            return os.path.basename(os.readlink(self.path(path)))
        except OSError:
            return ""

    def real(self, path: str) -> str:
        """Return the path with all symbolic links followed."""
        return os.path.realpath(self.path(path)).removeprefix(os.path.realpath(self._root or "/").rstrip("/"))

    def pairs(self, path: str, separator: str) -> dict[str, str]:
        """Return the file's lines of the form `key<separator>value`, without quotes around the values."""
        split = (line.partition(separator) for line in self.lines(path))
        return {key.strip(): value.strip().strip("\"'") for key, found, value in split if found}


def cpu_list(text: str) -> list[int]:
    """Return the numbers of a list as the kernel writes it: '0-2,5' is [0, 1, 2, 5]."""
    numbers: list[int] = []
    for part in filter(None, text.split(",")):
        first, _, last = part.strip().partition("-")
        if first.isdigit() and (not last or last.isdigit()):
            numbers += range(int(first), int(last or first) + 1)
    return numbers
