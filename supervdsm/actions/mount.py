"""Mount and unmount storage below `<repository>/mnt`, and nowhere else.

It promises that what is mounted shows on the very directory that was checked or not at all, whatever the caller does to
its directories meanwhile: mount(8) sees only a directory of root's own, and the result is then bound to a descriptor. They are
made in the mount namespace of the helper, so the daemons must live in the same one to see them.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager

from supervdsm.errors import ActionError, AlreadyExists, Failed, NotAllowed, NotFound, Unsupported
from supervdsm.filesystems import checked
from supervdsm.locks import alone
from supervdsm.meanings import meaning
from supervdsm.mounts import DETACH, FORCE, at, bind, in_use, mounts, number, unmount
from supervdsm.places import STEP, magic, mount_id, parent_below, plain, private, real
from supervdsm.programs import Ended, find, run
from supervdsm.registry import HSMD, VDSMD, Context, action
from supervdsm.sysfs import read

DEEPEST = 3  # blockSD/<domain>/master
PATIENCE = 60.0
"""Seconds for mount(8), which by itself takes more than two minutes to give up an NFS server that is away."""
MOST_PATIENCE = 180.0

SAID: tuple[tuple[str, type[ActionError]], ...] = (
    ("does not exist", NotFound),
    ("No such file or directory", NotFound),
    ("unknown filesystem type", Unsupported),
    ("need a /sbin/mount.", Unsupported),
)
"""mount(8) has one exit status for nearly all failures, and tells them apart in words (in English: we set its locale)."""


@action("mount.mount", callers=(VDSMD, HSMD), slow=True, timeout=MOST_PATIENCE + 30, secret=("password",))
def mount(
    context: Context,
    kind: str,
    source: str,
    target: str,
    options: str = "",
    password: str = "",
    patience: float = PATIENCE,
) -> bool:
    """Mount `source`, a file system of type `kind` (see `supervdsm.filesystems`), at `target` below `<repository>/mnt`.

    The directory above the target must exist; the target is made when missing. `options` is a list as mount(8) takes it, with
    commas; nosuid and nodev always come last. `password` is for cifs, and never among the options. mount(8) is ended after
    `patience` seconds. False: just that was mounted there already. Raises NotAllowed, Unsupported, NotFound, AlreadyExists
    (something else is mounted there), Busy, TimedOut and Failed.
    """
    row, checked_options = checked(kind, source, options)
    if row.local:
        source = _device(context, source)
    with _place(context, target) as (directory, name), alone(context, target):
        there = at(f"{real(directory)}/{name}")
        if there is not None:
            if there.kind in row.mounted and _same(there.source, source):
                return False
            raise AlreadyExists(f"{target}: {there.source} ({there.kind}) is mounted there")
        with _mount_point(directory, name, target) as fd, _staged(context, target) as staging:
            _run_mount(staging, kind, source, checked_options, password, min(max(patience, 1.0), MOST_PATIENCE))
            with meaning(target):
                bind(staging, fd)
    return True


@action("mount.unmount", callers=(VDSMD, HSMD), slow=True, timeout=60)
def unmount_target(context: Context, target: str, force: bool = False, lazy: bool = False) -> bool:
    """Unmount what is mounted at `target` below `<repository>/mnt`; its directory stays. False: nothing was mounted there.

    `force`: give up requests to a server that does not answer; `lazy`: take it out of sight now, and let it go when
    nobody uses it any more. Raises NotAllowed, NotFound, Busy and Failed.
    """
    with _place(context, target) as (directory, name), alone(context, target):
        if at(f"{real(directory)}/{name}") is None:
            return False
        with meaning(target):
            unmount(f"{magic(directory)}/{name}", (FORCE if force else 0) | (DETACH if lazy else 0))
    return True


@action("mount.list", callers=(VDSMD, HSMD))
def list_mounts(context: Context) -> list[dict[str, str]]:
    """Return what is mounted below the repository: target, source, kind, options and device ("major:minor") of each."""
    return [there._asdict() for there in mounts() if _is_ours(context, there.target)]


@contextmanager
def _place(context: Context, target: str) -> Iterator[tuple[int, str]]:
    """Give the target's directory and its name there. Other mounts are not entered, so one that hangs does not hang us."""
    root = f"{context.repository.rstrip('/')}/mnt"
    with parent_below([context.repository], target) as place:
        depth = len(plain(target)) - len(plain(root))
        if not target.startswith(f"{root}/") or depth > DEEPEST:
            raise NotAllowed(f"{target} is not a place for a mount: those are below {root}")
        yield place


@contextmanager
def _mount_point(directory: int, name: str, target: str) -> Iterator[int]:
    """Give a descriptor of the directory to mount on. One that was missing goes again when the mount fails."""
    made = False
    with meaning(target):
        try:
            os.mkdir(name, 0o755, dir_fd=directory)  # root's, so nobody writes to it by mistake when nothing is mounted
            made = True
        except FileExistsError:
            pass
        fd = os.open(name, STEP, dir_fd=directory)
    try:
        if not stat.S_ISDIR(os.fstat(fd).st_mode):
            raise NotAllowed(f"{target} is not a directory")
        if mount_id(fd) != mount_id(directory):
            raise AlreadyExists(f"{target} has been mounted on meanwhile")
        yield fd
    except ActionError:
        if made:
            _remove(directory, name)
        raise
    finally:
        os.close(fd)


def _remove(directory: int, name: str) -> None:
    try:
        os.rmdir(name, dir_fd=directory)
    except OSError:
        pass  # its owner has put something else there meanwhile


@contextmanager
def _staged(context: Context, target: str) -> Iterator[str]:
    """Give a directory of root's own to mount on first. One that is left of a helper that was killed is cleared here."""
    staging = f"{private(context)}/mount-{hashlib.sha256(target.encode()).hexdigest()[:16]}"
    _clear(staging)
    with meaning(staging):
        os.mkdir(staging, 0o700)
    try:
        yield staging
    finally:
        _clear(staging)


def _clear(staging: str) -> None:
    with meaning(staging):
        while at(staging) is not None:
            unmount(staging, DETACH)
        try:
            os.rmdir(staging)
        except FileNotFoundError:
            pass


def _run_mount(staging: str, kind: str, source: str, options: list[str], password: str, patience: float) -> None:
    environment = {"PASSWD": password} if password else {}  # where mount.cifs looks for it; only root can read it there
    arguments = ("-t", kind, "-o", ",".join(options), "--", source, staging)
    ended = run(find("mount"), *arguments, environment=environment, timeout=patience)
    if ended.code:
        raise _meant(ended, source, staging)
    if at(staging) is None:
        raise Failed(f"{source}: mount(8) reports success, but nothing is mounted")


def _meant(ended: Ended, source: str, staging: str) -> ActionError:
    text = " ".join(ended.output.replace(staging, "the mount point").split())[-500:] or ended.last_line()
    kind = next((kind for words, kind in SAID if words in ended.output), Failed)
    return kind(f"{source}: {text}")


def _device(context: Context, source: str) -> str:
    """Return the kernel's own name of the block device that the source leads to, with which this host may do nothing else. By
    its number: the source may lead elsewhere the next moment (/dev/shm is everybody's)."""
    with meaning(source):
        status = os.stat(source)
    if not source.startswith("/dev/") or not stat.S_ISBLK(status.st_mode):
        raise NotAllowed(f"{source} is not a block device")
    known = (read(f"/sys/dev/block/{number(status)}/uevent") or "").splitlines()
    path = next((f"/dev/{line.removeprefix('DEVNAME=')}" for line in known if line.startswith("DEVNAME=")), "")
    with meaning(path):
        if os.lstat(path).st_rdev != status.st_rdev:
            raise NotAllowed(f"{source} is not what the kernel calls {path}")
    target = in_use().get(number(status))
    if target is not None and not _is_ours(context, target):
        raise NotAllowed(f"{source} is this host's own: it is mounted at {target}")
    return path


def _is_ours(context: Context, target: str) -> bool:
    return target.startswith((f"{os.path.realpath(context.repository)}/", f"{context.private_dir}/mount-"))


def _same(one: str, other: str) -> bool:
    if one.startswith("/dev/"):
        return os.path.realpath(one) == os.path.realpath(other)
    return one.rstrip("/") == other.rstrip("/")
