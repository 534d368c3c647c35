"""sanlock, through the distribution's binding, for the keeper alone: a call may wait for as long as the storage does.

It promises OSErrors for whatever goes wrong, ENOSYS when there is no binding, ECONNREFUSED when sanlock does not run.
"""

from __future__ import annotations

import contextlib
import errno
import importlib
from collections.abc import Iterator
from typing import Any

Disks = list[tuple[str, int]]


def _binding() -> Any:
    try:
        return importlib.import_module("sanlock")
    except ImportError as error:
        raise OSError(errno.ENOSYS, f"there is no sanlock here: {error}") from error


@contextlib.contextmanager
def _asked() -> Iterator[Any]:
    """Give the binding, and raise its errors as OSErrors."""
    binding = _binding()
    try:
        yield binding
    except binding.SanlockException as error:
        number, *texts = error.args
        # Beyond the numbers of the system are sanlock's own, which are negative.
        known = number if isinstance(number, int) and number in errno.errorcode else errno.EIO
        raise OSError(known, f"{': '.join(map(str, texts))} ({number})") from error


def available() -> str:
    """Return '' when sanlock answers, or why it does not."""
    try:
        with _asked() as sanlock:
            sanlock.get_lockspaces()
    except OSError as error:
        return error.strerror or str(error)
    return ""


def initialise(
    lockspace: str, ids: str, leases: str, resource: str, offset: int, sector: int, align: int, io_timeout: int
) -> None:
    """Write leases that nobody holds, into files that have none. A path that is '' is left alone; `io_timeout` as in `join`."""
    name = lockspace.encode()
    with _asked() as sanlock:
        if ids:
            sanlock.write_lockspace(name, ids, iotimeout=io_timeout, align=align, sector=sector)
        if leases:
            sanlock.write_resource(name, resource.encode(), [(leases, offset)], align=align, sector=sector)


def join(lockspace: str, host_id: int, ids: str, io_timeout: int) -> None:
    """Have this host's id in the lockspace, waiting for it. `io_timeout`: of sanlock's own I/O in seconds, 0 as it likes."""
    name = lockspace.encode()
    with _asked() as sanlock:
        if sanlock.inq_lockspace(name, host_id, ids, wait=True):
            return
        try:
            sanlock.add_lockspace(name, host_id, ids, iotimeout=io_timeout)
        except sanlock.SanlockException as error:
            if error.errno not in (errno.EEXIST, errno.EINPROGRESS):
                raise
            if not sanlock.inq_lockspace(name, host_id, ids, wait=True):
                raise


def leave(lockspace: str) -> None:
    """Give this host's id in the lockspace back. That it has none there is no error."""
    with _asked() as sanlock:
        for one in sanlock.get_lockspaces():
            if one["lockspace"] == lockspace.encode():
                sanlock.rem_lockspace(one["lockspace"], one["host_id"], one["path"], one["offset"], unused=True)


def joined() -> dict[str, int]:
    """Return the host's id in each lockspace in which it has one for sure."""
    with _asked() as sanlock:
        return {one["lockspace"].decode(): one["host_id"] for one in sanlock.get_lockspaces() if not one["flags"]}


def register() -> int:
    with _asked() as sanlock:
        registered: int = sanlock.register()
    return registered


def acquire(registered: int, lockspace: str, resource: str, disks: Disks) -> None:
    with _asked() as sanlock:
        sanlock.acquire(lockspace.encode(), resource.encode(), disks, slkfd=registered)


def release(registered: int, lockspace: str, resource: str, disks: Disks) -> None:
    with _asked() as sanlock:
        sanlock.release(lockspace.encode(), resource.encode(), disks, slkfd=registered)


def owner(lockspace: str, resource: str, path: str, offset: int, sector: int, align: int) -> tuple[int, int]:
    """Return who holds the lease (a host's id, -1 nobody who lives) and how often it has been held."""
    with _asked() as sanlock:
        version = sanlock.read_resource(path, offset, align=align, sector=sector)["version"]
        owners = sanlock.read_resource_owners(
            lockspace.encode(), resource.encode(), [(path, offset)], align=align, sector=sector
        )
    holders = [one["host_id"] for one in owners if lives(lockspace, one["host_id"]) is not False]
    return (holders[0] if holders else -1), version


def lives(lockspace: str, host_id: int) -> bool | None:
    """Return whether the host renews its id there; None when that is not known, and nobody may act on it."""
    with _asked() as sanlock:
        try:
            found = sanlock.get_hosts(lockspace.encode(), host_id)
        except sanlock.SanlockException:
            return None  # not joined, or joined a moment ago
        states = [one["flags"] for one in found if one["host_id"] == host_id]
        known = {sanlock.HOST_LIVE: True, sanlock.HOST_FREE: False, sanlock.HOST_DEAD: False}
        return known.get(states[0]) if states else None
