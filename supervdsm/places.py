"""Paths that callers name: reached from an allowed root down, component by component, through descriptors.

It promises that what an action gets is a descriptor of something strictly below that root, with no link followed on the way,
and (unless asked otherwise) no other file system entered. The directories belong to the callers, who may swap anything at any
time, so a checked name is worth nothing: an action acts on the descriptor, or on a name in a descriptor's directory.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

from supervdsm.errors import NotAllowed
from supervdsm.meanings import meaning
from supervdsm.paths import walk
from supervdsm.registry import Context

STEP = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC


@contextmanager
def below(roots: Sequence[str], path: str, *, other_mounts: bool = False) -> Iterator[int]:
    """Give a descriptor (O_PATH) of what `path` names, strictly below one of the roots. Act on it through `magic()`.

    `other_mounts`: it may lie on a file system that is mounted below the root. Raises NotAllowed and NotFound.
    """
    root, names = _split(roots, path)
    with ExitStack() as held:
        with meaning(path):
            fd = _reach(held, root, names, path, other_mounts)
        yield fd


@contextmanager
def parent_below(roots: Sequence[str], path: str) -> Iterator[tuple[int, str]]:
    """Give a descriptor of the directory that holds `path`, and its name there. What has the name is not looked at.

    The directory is on the root's own file system. Raises NotAllowed and NotFound.
    """
    root, names = _split(roots, path)
    with ExitStack() as held:
        with meaning(os.path.dirname(path)):
            fd = _reach(held, root, names[:-1], path, False)
        yield fd, names[-1]


def magic(fd: int) -> str:
    """Return a path that leads to exactly what the descriptor is of, whatever its names are by now."""
    return f"/proc/self/fd/{fd}"


def real(fd: int) -> str:
    """Return the name by which the kernel knows it now: to compare and to tell, not to act on."""
    return os.readlink(magic(fd))


def mount_id(fd: int) -> int:
    """Return the mount that it was reached through. Other than a device number it tells bind mounts apart, too."""
    with open(f"/proc/self/fdinfo/{fd}", encoding="ascii") as info:
        return next(int(line.split()[1]) for line in info if line.startswith("mnt_id:"))


def private(context: Context) -> str:
    """Return root's own directory, made if missing. Raises NotAllowed when it is anything but a directory of root's alone."""
    with meaning(context.private_dir):
        try:
            os.mkdir(context.private_dir, 0o700)
        except FileExistsError:
            pass
        status = os.lstat(context.private_dir)
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o077:
        raise NotAllowed(f"{context.private_dir} is not a directory of root's alone")
    return context.private_dir


def plain(path: str) -> list[str]:
    """Return the names in an absolute path. Raises NotAllowed for one that says anything but where it leads."""
    names = path.split("/")
    if names[0] or not path.isprintable() or any(name in ("", ".", "..") for name in names[1:]):
        raise NotAllowed(f"not a plain absolute path: {path!r}")
    return names[1:]


def _split(roots: Sequence[str], path: str) -> tuple[str, list[str]]:
    names = plain(path)
    for root in roots:
        above = [name for name in root.split("/") if name]
        if above and len(names) > len(above) and names[: len(above)] == above:
            return root, names[len(above) :]
    raise NotAllowed(f"{path} is not below {' or '.join(roots)}")


def _reach(held: ExitStack, root: str, names: list[str], path: str, other_mounts: bool) -> int:
    fd = walk(root)
    held.callback(os.close, fd)
    mount = mount_id(fd)
    for name in names:
        fd = os.open(name, STEP, dir_fd=fd)
        held.callback(os.close, fd)
        if stat.S_ISLNK(os.fstat(fd).st_mode):
            raise NotAllowed(f"{path}: {name} is a link")
        if mount_id(fd) != mount and not other_mounts:
            raise NotAllowed(f"{path}: {name} is a mount point")
    return fd
