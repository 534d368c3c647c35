"""Who a process is: a pid means something only together with its start time and the boot it belongs to."""

from __future__ import annotations

import functools
import os


def start_time(pid: int) -> int | None:
    """Return when `pid` started, in clock ticks since boot (proc(5), stat, field 22), or None when it is gone."""
    fields = stat_fields(pid)
    return int(fields[19]) if fields else None


def stat_fields(pid: int) -> list[str]:
    """Return the fields of /proc/<pid>/stat from the third on (state first), or [] when the process is gone."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
            return file.read().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []


def is_alive(pid: int, started: int) -> bool:
    """Say whether `pid` is still the process that started then, and has not ended."""
    fields = stat_fields(pid)
    return bool(fields) and int(fields[19]) == started and fields[0] not in "ZX"


@functools.cache
def boot_id() -> str:
    """Return the kernel's id of this boot. What was written under another one describes a world that is gone."""
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read().strip()


def own_children() -> list[int]:
    """Return the pids of all our children, zombies and adopted orphans included."""
    pids: list[int] = []
    for thread in os.listdir("/proc/self/task"):
        try:
            with open(f"/proc/self/task/{thread}/children", encoding="ascii") as file:
                pids += map(int, file.read().split())
        except (FileNotFoundError, ProcessLookupError):
            continue
    return pids


EMULATORS = ("qemu-system", "qemu-kvm")
"""How the names of programs begin that run machines: there are others of QEMU's, which somebody waits for."""


def reap_orphans(named: set[int], left: frozenset[int] = frozenset()) -> list[tuple[int, int]]:
    """Reap children that ended and that nobody else waits for; return (pid, exit code) of each.

    libvirt waits for its own direct children, and polls for its double-forked ones to vanish: the first must be left
    alone, the second must not stay zombies. An orphan is in a session that is neither its own nor ours; or it leads its
    session and is a QEMU: the middle one of the three that `qemu -daemonize` makes, which nobody waits for.

    `named` are waited for by name. `left` are the children of the image before the exec: who waited for them is gone.
    """
    ours = os.getsid(0)
    reaped = []
    for pid in own_children():
        fields = stat_fields(pid)
        if pid in named or not fields or fields[0] != "Z":
            continue
        if pid not in left and not _is_orphan(pid, int(fields[3]), ours):
            continue
        try:
            done, status = os.waitpid(pid, os.WNOHANG)
        except ChildProcessError:
            continue
        if done:
            reaped.append((pid, os.waitstatus_to_exitcode(status)))
    return reaped


def _is_orphan(pid: int, session: int, ours: int) -> bool:
    return session != ours and (session != pid or _command(pid).startswith(EMULATORS))


def _command(pid: int) -> str:
    """Return the name of the program that `pid` runs or ran, '' when it is gone."""
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:
            return file.read().strip()
    except (FileNotFoundError, ProcessLookupError):
        return ""
