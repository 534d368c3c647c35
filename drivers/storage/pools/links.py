"""Links: the directory of a pool in the repository, with a link to each of its domains, and one to its master.

    <repository>/<spUUID>/<sdUUID>   <repository>/<spUUID>/mastersd

It promises never to touch anything there that is no link. The repository itself is a local directory: nothing here waits for
storage, as no link is followed.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping

MASTER = "mastersd"


class Links:
    def __init__(self, repository: Callable[[], str]) -> None:
        self._repository = repository

    def directory(self, pool: str) -> str:
        return os.path.join(self._repository(), pool)

    def make(self, pool: str, places: Mapping[str, str], master: str) -> None:
        """Have links to exactly these domains, by id. One of which the place is not known ('') is left as it may be."""
        directory = self.directory(pool)
        os.makedirs(directory, mode=0o755, exist_ok=True)
        wanted = dict(places)
        if master in places:
            wanted[MASTER] = places[master]
        for name in set(os.listdir(directory)) - wanted.keys():
            _remove(os.path.join(directory, name))
        for name, place in wanted.items():
            if place:
                _point(os.path.join(directory, name), place)

    def remove(self, pool: str, *, directory: bool) -> None:
        """Remove the links of a pool and, with `directory`, what held them, if nothing else is in there."""
        path = self.directory(pool)
        with contextlib.suppress(FileNotFoundError):
            for name in os.listdir(path):
                _remove(os.path.join(path, name))
            if directory:
                with contextlib.suppress(OSError):
                    os.rmdir(path)


def _remove(path: str) -> None:
    if os.path.islink(path):
        os.unlink(path)


def _point(path: str, place: str) -> None:
    if os.path.islink(path) and os.readlink(path) == place:
        return
    fresh = f"{path}.new"
    _remove(fresh)
    os.symlink(place, fresh)
    os.rename(fresh, path)
