"""The code that vdsmd runs from: ours, or a copy of it where the user may not read ours.

It promises that a copy is root's, is there whole or not at all, and is made anew only when the code has changed.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import logging
import os
import shutil
import sys
from collections.abc import Iterator

from supervdsm import paths
from supervdsm.privileges import as_user
from supervdsm.settings import ConfigError, Settings

log = logging.getLogger("supervdsm.release")

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PACKAGES = ("vdsmd", "state", "drivers", "supervdsm")
FOLDER = "release"
"""In lib_dir. `current` in it leads to the copy in force, so that a vdsmd that replaces itself finds the newest."""


def program(settings: Settings) -> tuple[list[str], dict[str, str]]:
    """Return vdsmd's command, and what its environment needs for it. Raises ConfigError, OSError."""
    interpreter, env = sys.executable, {}
    needed = os.path.realpath(sys.executable), os.__file__, settings.path
    ours = _libraries(), list(_code())
    with as_user(settings):
        hidden = [path for path in needed if not _may_read(path)]
        libraries, code = (all(map(_may_read, paths)) for paths in ours)
    if hidden:
        raise ConfigError(f"{hidden[0]} cannot be read by user {settings.context.user}, and cannot be copied")
    if not (libraries and code):
        folder = _copy(settings, libraries=not libraries)
        log.info("vdsmd runs from a copy, because its user cannot read all of %s folder=%s", ROOT, folder)
        env = {"PYTHONPATH": folder, "PYTHONSAFEPATH": "1"}
        if not libraries:
            interpreter = f"{folder}/.venv/bin/{os.path.basename(sys.executable)}"
    return [interpreter, "-m", "vdsmd", "--config", settings.path], env


def _may_read(path: str) -> bool:
    return os.access(path, os.R_OK, effective_ids=True)


def _libraries() -> list[str]:
    """Return some of what lies in the virtual environment, if we run from one."""
    specs = [importlib.util.find_spec(name) for name in ("msgspec", "httptools")]
    found = [sys.executable, *(spec.origin for spec in specs if spec is not None and spec.origin)]
    return found if sys.prefix != sys.base_prefix else []


def _code() -> Iterator[str]:
    for package in PACKAGES:
        for folder, _, names in os.walk(os.path.join(ROOT, package)):
            yield folder
            yield from (os.path.join(folder, name) for name in sorted(names) if name.endswith((".py", ".json")))


def _copy(settings: Settings, *, libraries: bool) -> str:
    """Return the directory of the copy in force, by the link that leads to it."""
    at = paths.walk(settings.context.lib_dir)
    try:
        with contextlib.suppress(FileExistsError):
            os.mkdir(FOLDER, 0o755, dir_fd=at)
        fd = os.open(FOLDER, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=at)
    finally:
        os.close(at)
    try:
        if os.fstat(fd).st_uid != 0:
            raise PermissionError(f"{settings.context.lib_dir}/{FOLDER} is not root's: remove it")
        # By its descriptor: the user may rename the directory, but then the copy goes with it.
        _make(f"/proc/self/fd/{fd}", _digest(libraries), libraries)
    finally:
        os.close(fd)
    return f"{settings.context.lib_dir}/{FOLDER}/current"


def _make(base: str, name: str, libraries: bool) -> None:
    fresh, link = f"{base}/{name}", f"{base}/current"
    before = os.readlink(link) if os.path.islink(link) else ""
    if not os.path.isdir(fresh):
        unfinished = f"{fresh}.new"
        shutil.rmtree(unfinished, ignore_errors=True)
        for package in PACKAGES:
            shutil.copytree(os.path.join(ROOT, package), f"{unfinished}/{package}")
        if libraries:
            shutil.copytree(sys.prefix, f"{unfinished}/.venv", symlinks=True)
        _open_up(unfinished)
        os.rename(unfinished, fresh)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(f"{link}.new")
    os.symlink(name, f"{link}.new")
    os.rename(f"{link}.new", link)
    for other in os.listdir(base):
        if other not in (name, before, "current"):
            shutil.rmtree(f"{base}/{other}", ignore_errors=True)


def _open_up(folder: str) -> None:
    for path, folders, names in os.walk(folder):
        os.chmod(path, 0o755)
        for name in (*folders, *names):
            if not os.path.islink(f"{path}/{name}"):
                os.chmod(f"{path}/{name}", os.stat(f"{path}/{name}").st_mode & 0o755 | 0o444)


def _digest(libraries: bool) -> str:
    told = [sys.version, os.path.realpath(sys.prefix) if libraries else ""]
    for path in sorted(_code()):
        stat = os.stat(path)
        told.append(f"{path} {stat.st_size} {stat.st_mtime_ns}")
    return hashlib.sha256("\n".join(told).encode()).hexdigest()[:16]
