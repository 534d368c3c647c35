"""Images: from what a caller says of a disk's data to the path that QEMU opens.

It promises one place that knows how data is found: here by path, and by storage domain where there is a driver for those.
"""

from __future__ import annotations

from typing import Any, Protocol

from drivers.vm.errors import ImageUnavailable

Struct = dict[str, Any]


class Images(Protocol):
    """Calls may block: they are made in worker threads."""

    def prepare(self, drive: Struct) -> str:
        """Return the path of the data that is meant, ready to be opened. Raises ImageUnavailable."""

    def mark(self, drive: Struct, volume: str, *, legal: bool) -> None:
        """Say for everyone, in the volume's own metadata, whether a machine may be started from it."""

    def release(self, drive: Struct) -> None:
        """No machine on this host uses the data any more."""


class Paths:
    """Data that is where it is: there is no storage domain to ask, and nowhere to write down what is legal."""

    def prepare(self, drive: Struct) -> str:
        found = _named(drive)
        if not found.startswith("/"):
            raise ImageUnavailable(reason="it is not named by an absolute path, and there is no storage domain to ask")
        return found

    def mark(self, drive: Struct, volume: str, *, legal: bool) -> None:
        """The file is all there is."""

    def release(self, drive: Struct) -> None:
        """Nothing was made for it."""


def _named(drive: Struct) -> str:
    if drive.get("path"):
        return str(drive["path"])
    if drive.get("GUID"):
        return f"/dev/mapper/{drive['GUID']}"
    return f"/dev/disk/by-uuid/{drive['UUID']}" if drive.get("UUID") else ""
