"""ChildTable: processes we must still know tomorrow, by name, pid, start time and pidfd.

It promises that a process is recorded before it can be lost, that a stranger with a reused pid is never taken for one of
ours, and that each end is told once. No Popen object is kept: it cannot cross an exec, and its finaliser may reap a child
that we have yet to report.
"""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, Any

import msgspec

from state.fds import FdTable
from state.process import is_alive, start_time
from state.records import Part

log = logging.getLogger("state.children")

OnExit = Callable[["Exit"], None]

OURS_ALONE = ("NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC")
"""Variables that the next run needs and no child gets: what a child told the service manager would count as said by us."""


class Child(Part, frozen=True, kw_only=True):
    """A process under a name. `spawned`: we started it, so its exit status is ours to collect."""

    name: str
    pid: Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)]
    start_time: int
    spawned: bool = True


class Exit(Part, frozen=True, kw_only=True):
    """The end of a child: `code` is its exit status, minus the signal's number, or None where it cannot be known."""

    name: str
    pid: int
    code: int | None


class ChildTable:
    """The named children of this run. `inherited` are those that the previous run left us."""

    def __init__(self, fds: FdTable, inherited: Iterable[Child] = ()) -> None:
        self._fds = fds
        self._children: dict[str, Child] = {}
        self._inherited = {child.name: child for child in inherited}
        self._on_exit: dict[str, OnExit] = {}
        self._watch: Callable[[int, str], None] = lambda fd, name: None
        self._unwatch: Callable[[int], None] = lambda fd: None

    def __contains__(self, name: str) -> bool:
        return name in self._children

    def attach(self, watch: Callable[[int, str], None], unwatch: Callable[[int], None]) -> None:
        """Have the loop tell us: it calls `ended(name)` when the pidfd given to `watch(pidfd, name)` becomes readable."""
        self._watch, self._unwatch = watch, unwatch

    def spawn(
        self,
        name: str,
        argv: Sequence[str],
        *,
        on_exit: OnExit,
        env: Mapping[str, str] | None = None,
        files: Mapping[int, int] | None = None,
        leads: bool = False,
    ) -> Child:
        """Start `argv` (an absolute path first) as the child `name`; `files` maps its descriptors to ours (default: null).
        `leads`: a process group of its own.

        Only in the main thread: a child's parent-death signal and our pending re-exec both hang on it. Raises OSError.
        """
        given_env = os.environ if env is None else env
        group: dict[str, Any] = {"setpgroup": 0} if leads else {}
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        try:
            given = {0: null, 1: null, 2: null} | dict(files or {})
            pid = os.posix_spawn(
                argv[0],
                list(argv),
                {name: value for name, value in given_env.items() if name not in OURS_ALONE},
                file_actions=[(os.POSIX_SPAWN_DUP2, ours, theirs) for theirs, ours in given.items()],
                setsigmask=[],
                setsigdef=[signal.SIGPIPE],
                **group,
            )
        finally:
            os.close(null)
        started = start_time(pid)
        assert started is not None  # not reaped by anyone but us, so at least a zombie of it is there
        return self._keep(Child(name=name, pid=pid, start_time=started), on_exit)

    def adopt(self, name: str, pid: int, started: int, *, on_exit: OnExit) -> Child | None:
        """Know a process that somebody else started (a QEMU of libvirt). None when it is not that process any more."""
        if not is_alive(pid, started):
            return None
        return self._keep(Child(name=name, pid=pid, start_time=started, spawned=False), on_exit)

    def take(self, name: str, *, on_exit: OnExit) -> Child | None:
        """Return the inherited child `name`, known from now on. If it has ended since, on_exit is told soon."""
        child = self._inherited.pop(name, None)
        if child is None:
            return None
        if start_time(child.pid) not in (child.start_time, None):
            log.error("An inherited child's pid belongs to a stranger name=%s pid=%d", name, child.pid)
            return None
        return self._keep(child, on_exit)

    def forget(self, name: str) -> None:
        """Stop watching the child, without touching it."""
        child = self._children.pop(name, None)
        if child is not None:
            self._on_exit.pop(name, None)
            self._unwatch(self._fds[_pidfd(name)])
            self._fds.drop(_pidfd(name))

    def signal(self, name: str, number: int) -> None:
        """Send a signal through the pidfd: never to a stranger. Nothing happens when the child has ended."""
        try:
            signal.pidfd_send_signal(self._fds[_pidfd(name)], number)
        except (KeyError, ProcessLookupError):
            log.debug("No child to signal name=%s signal=%d", name, number)

    def ended(self, name: str) -> None:
        """Collect the end of the child and tell its owner. Called by the loop when the pidfd is readable."""
        child = self._children[name]
        on_exit = self._on_exit[name]
        code = _collect(self._fds[_pidfd(name)])
        self.forget(name)
        log.info("A child ended name=%s pid=%d code=%s", name, child.pid, code)
        on_exit(Exit(name=name, pid=child.pid, code=code))

    def pids(self) -> set[int]:
        return {child.pid for child in (*self._children.values(), *self._inherited.values())}

    def snapshot(self) -> list[Child]:
        return sorted((*self._children.values(), *self._inherited.values()), key=lambda child: child.name)

    def drop_unclaimed(self) -> list[str]:
        """Forget inherited children that nobody took. They are left running: we do not know that they are useless."""
        lost = sorted(self._inherited)
        for name in lost:
            log.warning("Nobody claims an inherited child name=%s pid=%d", name, self._inherited.pop(name).pid)
        return lost

    def _keep(self, child: Child, on_exit: OnExit) -> Child:
        try:
            pidfd = self._fds.obtain(_pidfd(child.name), lambda: os.pidfd_open(child.pid))
        except ProcessLookupError:
            pidfd = self._fds.hold(_pidfd(child.name), _already_ended())
        self._children[child.name] = child
        self._on_exit[child.name] = on_exit
        self._watch(pidfd, child.name)
        return child


def _pidfd(name: str) -> str:
    return f"child/{name}/pidfd"


def _already_ended() -> int:
    """Return a descriptor that is readable at once, as the pidfd of an ended process is."""
    return os.eventfd(1, os.EFD_CLOEXEC)


def _collect(pidfd: int) -> int | None:
    try:
        done = os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG)
    except OSError:
        return None  # not our child, or reaped by libvirt: its end is a fact, its status is not to be had
    if done is None:
        return None
    return done.si_status if done.si_code == os.CLD_EXITED else -done.si_status
