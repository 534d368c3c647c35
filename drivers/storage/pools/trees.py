"""Copying small directories between domains, through their helpers."""

from __future__ import annotations

import contextlib

from drivers.storage.helpers.files import Files

LONGEST = 1 << 24
"""Bytes of a file that is copied in one piece: what a pool keeps in its master domain is far smaller."""


def copy_tree(source: Files, target: Files, path: str) -> None:
    """Copy a directory with the files and directories in it, leaving out links and all else. Raises OSError."""
    with contextlib.suppress(FileExistsError):
        target.make_directory(path)
    for name, stat in source.scan(path).items():
        place = f"{path}/{name}"
        if stat.is_directory:
            copy_tree(source, target, place)
        elif stat.is_file:
            target.write(place, source.read(place, length=LONGEST))
