"""Children that do what takes long: started once, told of once, and never lost track of.

A child is a small shell that runs the command and writes down how it ended; the files beside it outlive the daemon:

    <run_dir>/tasks/<task>/<run>.out      what the command says of its progress
    <run_dir>/tasks/<task>/<run>.err      what it complained of
    <run_dir>/tasks/<task>/<run>.status   its exit status, once it has ended
    <run_dir>/tasks/<task>/<run>.pids     the pids of the shell and of the command
    <run_dir>/tasks/<task>/<run>.lock     locked (flock) for as long as either of them lives

It promises that a command counts as running exactly while somebody holds the lock, whoever started it and whether its parent
lives, and that its end is known by what was written down: over a re-exec, and over a crash of the daemon.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import signal
from collections.abc import Callable, Sequence

import msgspec

from drivers.base import Host
from state.children import Exit

_WRAPPER = """
stop= child=
trap 'stop=1; [ -n "$child" ] && kill -KILL $child 2>/dev/null' TERM
trap '' HUP INT
"$@" 3>&- 4>&- &
child=$!
exec 6>&- 7>&-
echo "$$ $child" >&4
[ -n "$stop" ] && kill -KILL $child 2>/dev/null
wait $child; code=$?
while kill -0 $child 2>/dev/null; do wait $child; code=$?; done
echo $code >&3
"""
_FILES = {1: "out", 2: "err", 3: "status", 4: "pids", 5: "lock"}
_LOCK = 5
_LENT = 6
"""From here on the command has the descriptors that were lent to its task."""
_TETHER = 8
"""Beyond those: what the kernel watches for it, if it works under a lease (`drivers.storage.tasks.tether`)."""
_PROGRESS = re.compile(rb"\((\d+(?:\.\d+)?)/100%\)|(\d+(?:\.\d+)?)%")
_TAIL = 4096
POLL = 0.5
"""Seconds between two looks at a command of which we are not the parent any more."""


class Outcome(msgspec.Struct, frozen=True):
    """How a command ended. `code` is None where nobody can know. `text` is the last that it complained of."""

    code: int | None
    text: str = ""


Ended = Callable[[str, Outcome], None]


class Works:
    """The commands of tasks, by task. All calls come from the loop's thread, `progress` also from others."""

    def __init__(self, host: Host, ended: Ended) -> None:
        self._host = host
        self._ended = ended
        self._directory = os.path.join(host.run_dir, "tasks")
        self._lent: dict[str, Sequence[int]] = {}

    def lend(self, task_id: str, fds: Sequence[int]) -> None:
        """Give these descriptors, at most two, to the first command of the task. They are ours to close from now on."""
        self._lent[task_id] = fds

    def start(self, task_id: str, run: int, argv: list[str], *, leased: bool = False) -> None:
        """Start the command; `leased`: it ends with the keeper of leases. Raises OSError when it cannot be: there is no such
        program, no memory, no room; KeeperGone."""
        from drivers.storage.tasks import tether  # imported by now (vdsmd.deferred)

        os.makedirs(os.path.join(self._directory, task_id), mode=0o700, exist_ok=True)
        flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC
        with contextlib.ExitStack() as opened:
            files = {}
            for number, name in _FILES.items():
                files[number] = os.open(self._path(task_id, run, name), flags, 0o600)
                opened.callback(os.close, files[number])
            fcntl.flock(files[_LOCK], fcntl.LOCK_EX | fcntl.LOCK_NB)
            opened.callback(self.take_back, task_id)
            files |= dict(enumerate(self._lent.get(task_id, ()), _LENT))
            line = tether.take(self._directory) if leased else None
            if line is not None:
                opened.callback(os.close, line)
                files[_TETHER] = line
            wrapped = ["/bin/sh", "-c", _WRAPPER, "task", *argv]
            on_exit = self._on_exit(task_id, run)
            child = self._host.children.spawn(_child(task_id), wrapped, on_exit=on_exit, files=files, leads=True)
            if line is not None:
                tether.tie(line, child.pid)

    def resume(self, task_id: str, run: int) -> None:
        """Watch a command that an earlier run of the daemon started; its end is told, also when it has ended already."""
        if self._host.children.take(_child(task_id), on_exit=self._on_exit(task_id, run)) is None:
            self._host.later(0.0, lambda: self._look(task_id, run))

    def stop(self, task_id: str, run: int) -> None:
        """Have the command end at once. Its end is told as any other."""
        self._host.children.signal(_child(task_id), signal.SIGTERM)
        for pid in self._pids(task_id, run)[1:]:
            _kill(pid, self._path(task_id, run, "lock"))

    def progress(self, task_id: str, run: int) -> float:
        """Return what the command last said of its progress, in percent; 0.0 when it said nothing."""
        found = _PROGRESS.findall(self._tail(task_id, run, "out")) or _PROGRESS.findall(self._tail(task_id, run, "err"))
        return min(100.0, float(found[-1][0] or found[-1][1])) if found else 0.0

    def forget(self, task_id: str) -> None:
        """Delete what the commands of the task left behind."""
        self.take_back(task_id)
        place = os.path.join(self._directory, task_id)
        with contextlib.suppress(FileNotFoundError):
            for name in os.listdir(place):
                os.unlink(os.path.join(place, name))
            os.rmdir(place)

    def take_back(self, task_id: str) -> None:
        """Close what was lent to a task and is not with a command of it."""
        for fd in self._lent.pop(task_id, ()):
            os.close(fd)

    def _on_exit(self, task_id: str, run: int) -> Callable[[Exit], None]:
        return lambda _exit: self._look(task_id, run)

    def _look(self, task_id: str, run: int) -> None:
        if self._is_running(task_id, run):
            self._host.later(POLL, lambda: self._look(task_id, run))
            return
        status = self._tail(task_id, run, "status").split()
        lines = self._tail(task_id, run, "err").decode(errors="replace").strip().splitlines()
        self._ended(task_id, Outcome(int(status[0]) if status else None, lines[-1] if lines else ""))

    def _is_running(self, task_id: str, run: int) -> bool:
        try:
            lock = os.open(self._path(task_id, run, "lock"), os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(lock)
        return False

    def _pids(self, task_id: str, run: int) -> list[int]:
        return [int(word) for word in self._tail(task_id, run, "pids").split() if word.isdigit()]

    def _tail(self, task_id: str, run: int, name: str) -> bytes:
        try:
            with open(self._path(task_id, run, name), "rb") as file:
                file.seek(max(0, os.fstat(file.fileno()).st_size - _TAIL))
                return file.read()
        except FileNotFoundError:
            return b""

    def _path(self, task_id: str, run: int, name: str) -> str:
        return os.path.join(self._directory, task_id, f"{run}.{name}")


def _child(task_id: str) -> str:
    return f"task/{task_id}"


def _kill(pid: int, lock: str) -> None:
    """Kill the process if it is one that holds our lock: a pid alone may be a stranger's by now."""
    try:
        pidfd = os.pidfd_open(pid)
    except OSError:
        return
    try:
        if os.path.samefile(f"/proc/{pid}/fd/{_LOCK}", lock):
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    except OSError:
        return  # it has ended meanwhile
    finally:
        os.close(pidfd)
