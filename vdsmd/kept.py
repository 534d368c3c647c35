"""The kept release: a copy of the running code, for the next run to go back to when it cannot take over.

It promises that the copy is of the code that runs: when a file has changed since this run began, there is no copy.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import zlib
from collections.abc import Iterator

from state.release import ROOT

log = logging.getLogger("kept")

PACKAGES = ("vdsmd", "state", "drivers", "supervdsm")
FOLDER = "kept"


def keep(lib_dir: str, began: float) -> str:
    """Return the directory of a copy of our code, made if need be; '' when there can be none. `began`: the time of day (epoch)
    at which this run began to read its files. Older copies are removed. For worker threads."""
    folder = os.path.join(lib_dir, FOLDER)
    if ROOT.startswith(folder + os.sep):
        return ROOT  # we are the copy: the release after us has gone back to us
    try:
        return _keep(folder, began)
    except OSError as error:
        log.warning("The running release cannot be kept: a re-exec that fails late cannot go back reason=%s", error)
        return ""


def _keep(folder: str, began: float) -> str:
    files = sorted(_files())
    changed = [path for path in files if os.stat(os.path.join(ROOT, path)).st_ctime >= began]
    if changed:
        log.warning(
            "The running release is not on disk any more: a re-exec that fails late cannot go back file=%s", changed[0]
        )
        return ""
    contents = {path: _read(os.path.join(ROOT, path)) for path in files}
    name = f"{_digest(contents):08x}"
    target = os.path.join(folder, name)
    if not os.path.isdir(target):
        _write(target, contents)
    for other in os.listdir(folder):
        if other != name:
            shutil.rmtree(os.path.join(folder, other), ignore_errors=True)
    return target


def _files() -> Iterator[str]:
    for package in PACKAGES:
        for folder, _, names in os.walk(os.path.join(ROOT, package)):
            for name in names:
                if name.endswith((".py", ".json")):
                    yield os.path.relpath(os.path.join(folder, name), ROOT)


def _digest(contents: dict[str, bytes]) -> int:
    value = 0
    for path, data in contents.items():
        value = zlib.crc32(data, zlib.crc32(path.encode(), value))
    return value


def _write(target: str, contents: dict[str, bytes]) -> None:
    """Make the copy beside its place first: it is there whole, or not at all."""
    fresh = f"{target}.new"
    shutil.rmtree(fresh, ignore_errors=True)
    with contextlib.ExitStack() as undo:
        undo.callback(shutil.rmtree, fresh, ignore_errors=True)
        for path, data in contents.items():
            place = os.path.join(fresh, path)
            os.makedirs(os.path.dirname(place), exist_ok=True)
            with open(place, "wb") as file:
                file.write(data)
        os.rename(fresh, target)
        undo.pop_all()


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()
