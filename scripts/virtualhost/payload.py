"""The payload: this checkout, its Python packages and the demo guest, as a tar archive that a virtual host has for a disk.

It promises that everything lies in the host where it lies here, so that paths in it are right there, too.
"""

from __future__ import annotations

import os
import tarfile
from pathlib import Path

SKIPPED = {"mypy", "mypyc", "ruff", "pip", "atheris"}
"""Packages that check the code, and weigh more than all others together."""
KEPT = {".ci", ".gitignore", ".venv"}
"""The entries of the checkout, among those with a leading dot, that come along."""


def pack(checkout: Path, target: Path) -> None:
    """Write the archive."""
    venv = (checkout / ".venv").resolve()
    with tarfile.open(target, "w", format=tarfile.PAX_FORMAT) as archive:
        for place in reversed(checkout.relative_to("/").parents):
            _add_folder(archive, Path("/") / place)
        _add_folder(archive, checkout)
        for entry in sorted(checkout.iterdir()):
            if not entry.name.startswith(".") or entry.name in KEPT:
                _add(archive, entry)
        if venv.is_relative_to(checkout) and venv != checkout / ".venv":
            for place in (checkout / ".cache", venv.parent):
                _add_folder(archive, place)
            _add(archive, venv)
        guest = Path(os.environ.get("VDSMD_CACHE", checkout / ".cache")) / "guest"
        archive.add(guest, str(checkout / ".cache" / "guest"))


def _add_folder(archive: tarfile.TarFile, place: Path) -> None:
    """Add the directory alone: open for all, because a daemon without privileges reads what is in it."""
    if place != Path("/"):
        entry = archive.gettarinfo(str(place))
        entry.mode |= 0o055
        archive.addfile(entry)


def _add(archive: tarfile.TarFile, place: Path) -> None:
    archive.add(place, filter=_wanted)


def _wanted(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
    name = entry.name.rpartition("/")[2]
    if "/site-packages/" in entry.name and (name in SKIPPED or name.partition("-")[0] in SKIPPED):
        return None
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = "root"
    return entry
