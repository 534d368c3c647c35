"""Guests' serial consoles: every byte that a guest writes goes to `<log_dir>/console/<vmId>.log`, once and in order.

A console is a FIFO that QEMU writes and we read, held as `vm/<vmId>/console`. While no daemon runs, the kernel keeps what
the guest writes, and when it can keep no more the guest's serial port waits: a re-exec, and also a SIGKILL, loses nothing.
Bytes are moved by splice(2) to an explicit place in the log, so there is no moment at which they are in our memory alone.
Only when the log cannot be written (full disk) are they thrown away, counted and said: a guest must not hang for our disk.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import select
import stat
import threading

from drivers.base import Host
from drivers.errors import Busy
from drivers.vm.contract import CONSOLE, name_of
from state import threads

log = logging.getLogger("console")

FIFO_SIZES = (1 << 20, 1 << 18, 1 << 16)
"""Of what the kernel keeps while nobody reads. An unprivileged user gets the big one only for a limited number."""
CHUNK = 1 << 20
THREAD = "console"


class Log:
    """The log of one guest, which is rotated before it grows beyond `limit` bytes. Not thread-safe."""

    def __init__(self, path: str, limit: int, keep: int) -> None:
        self.path = path
        self.limit = limit
        self.keep = keep
        self.lost = 0
        self._fd = -1
        self._size = 0
        self._can_splice = True

    def move(self, source: int) -> int:
        """Move what can be read from `source` now. Return the bytes taken from it: 0 at its end, -1 when there are none yet."""
        try:
            self._open()
            return self._splice(source) if self._can_splice else self._copy(source)
        except BlockingIOError:
            return -1
        except OSError as error:
            if error.errno in (errno.EINVAL, errno.ENOSYS) and self._can_splice:
                self._can_splice = False  # a file system that has no such thing
                return self.move(source)
            return self._lose(source, error)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = -1

    def _open(self) -> None:
        if self._fd >= 0 and self._size >= self.limit:
            self.close()
            self._rotate()
        if self._fd < 0:
            os.makedirs(os.path.dirname(self.path), mode=0o750, exist_ok=True)
            self._fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o640)
            self._size = os.fstat(self._fd).st_size
            if self._size >= self.limit:
                self._open()

    def _rotate(self) -> None:
        names = [self.path, *(f"{self.path}.{number}" for number in range(1, self.keep + 1))]
        for older, newer in zip(reversed(names), reversed(names[:-1]), strict=False):
            if os.path.exists(newer):
                os.replace(newer, older)
        if not self.keep:
            os.unlink(self.path)

    def _splice(self, source: int) -> int:
        room = min(CHUNK, self.limit - self._size)
        return self._written(os.splice(source, self._fd, room, offset_dst=self._size, flags=os.SPLICE_F_NONBLOCK))

    def _copy(self, source: int) -> int:
        data = os.read(source, min(CHUNK, self.limit - self._size))
        left = memoryview(data)
        while left:
            try:
                left = left[self._written(os.pwrite(self._fd, left, self._size)) :]
            except OSError as error:
                self._give_up(len(left), error)
                break
        return len(data)

    def _written(self, count: int) -> int:
        self._size += count
        if count and self.lost:
            log.error("The log can be written again; the console has a gap file=%s bytes=%d", self.path, self.lost)
            self.lost = 0
        return count

    def _lose(self, source: int, error: OSError) -> int:
        self.close()
        try:
            thrown = len(os.read(source, CHUNK))
        except BlockingIOError:
            return -1
        self._give_up(thrown, error)
        return thrown

    def _give_up(self, count: int, error: OSError) -> None:
        if count and not self.lost:
            log.error("The console is thrown away until it can be logged file=%s error=%s", self.path, error)
        self.lost += count


class Consoles:
    """All consoles, and the thread that moves their bytes."""

    def __init__(self, host: Host, *, limit: int, keep: int) -> None:
        self._host = host
        self._limit = max(1, limit)
        self._keep = keep
        self._lock = threading.Lock()
        self._logs: dict[int, tuple[str, Log]] = {}
        self._epoll = select.epoll()
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._epoll.register(self._wake, select.EPOLLIN)
        self._thread: threading.Thread | None = None
        self._stopping = False

    def prefix(self, vm_id: str) -> str:
        """Return the path to which QEMU adds `.in` and `.out`."""
        return os.path.join(self._host.run_dir, "console", vm_id)

    def path(self, vm_id: str) -> str:
        """Return the path of the log."""
        return os.path.join(self._host.log_dir, "console", f"{vm_id}.log")

    def prepare(self, vm_id: str) -> None:
        """Make the FIFOs and begin to read, before QEMU opens them. Raises OSError. What a predecessor with the same id
        left unread is logged first."""
        self.remove(vm_id)
        os.makedirs(os.path.dirname(self.prefix(vm_id)), mode=0o711, exist_ok=True)
        for end in (".in", ".out"):
            # 0660: libvirt gives them to QEMU's user and group, and our group must still be able to open them.
            os.mkfifo(self.prefix(vm_id) + end, 0o660)
        self._follow(vm_id, self._host.fds.hold(name_of(vm_id, CONSOLE), self._open(vm_id), stored=True))

    def claim(self, vm_id: str, *, lives: bool) -> None:
        """Take over the descriptor that the previous run left: it may hold the last words of a guest that has ended. For
        one that lives, open the FIFO anew if need be: the kernel has kept what was not read."""
        fd = self._host.fds.take(name_of(vm_id, CONSOLE), stored=True)
        if fd is None and lives:
            try:
                fd = self._host.fds.hold(name_of(vm_id, CONSOLE), self._open(vm_id), stored=True)
            except FileNotFoundError:
                log.debug("No console vm=%s", vm_id)
            except OSError as error:
                # No console is worth that all else is not taken over.
                log.error("A console cannot be taken over, its guest will wait vm=%s error=%s", vm_id, error)
        if fd is not None:
            self._follow(vm_id, fd)

    def remove(self, vm_id: str) -> None:
        """Log what is left to read, and remove the FIFOs."""
        with self._lock:
            fd = next((fd for fd, (owner, _) in self._logs.items() if owner == vm_id), None)
            if fd is not None:
                self._drain(fd)
                self._finish(fd)
        for end in (".in", ".out"):
            try:
                os.unlink(self.prefix(vm_id) + end)
            except FileNotFoundError:
                continue

    def start(self) -> None:
        """Begin to move bytes. May be called when that has begun already."""
        if self._thread is None:
            self._stopping = False
            self._thread = threads.start(THREAD, self._run)

    def quiesce(self, deadline: float) -> None:
        """Stop between two bytes. Raises Busy when the disk does not let go of the thread."""
        if self._thread is None:
            return
        self._stopping = True
        os.eventfd_write(self._wake, 1)
        if not threads.join(self._thread, deadline):
            raise Busy(what=f"thread {THREAD}", reason="a console log is being written, and the disk does not answer")
        self._thread = None

    def _open(self, vm_id: str) -> int:
        fd = os.open(f"{self.prefix(vm_id)}.out", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        if not stat.S_ISFIFO(os.fstat(fd).st_mode):
            os.close(fd)
            raise OSError(errno.EINVAL, "not a FIFO", f"{self.prefix(vm_id)}.out")
        for size in FIFO_SIZES:
            try:
                if fcntl.fcntl(fd, fcntl.F_GETPIPE_SZ) < size:
                    fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, size)
                break
            except OSError:
                continue
        return fd

    def _follow(self, vm_id: str, fd: int) -> None:
        with self._lock:
            if fd in self._logs:
                return
            self._logs[fd] = vm_id, Log(self.path(vm_id), self._limit, self._keep)
            self._epoll.register(fd, select.EPOLLIN)

    def _run(self) -> None:
        while not self._stopping:
            for fd, events in self._epoll.poll():
                if fd == self._wake:
                    os.eventfd_read(self._wake)
                else:
                    self._serve(fd, events)

    def _serve(self, fd: int, events: int) -> None:
        with self._lock:
            if fd not in self._logs:
                return  # removed since the poll
            moved = self._logs[fd][1].move(fd) if events & select.EPOLLIN else 0
            if not moved:
                self._finish(fd)

    def _drain(self, fd: int) -> None:
        while self._logs[fd][1].move(fd) > 0:
            pass

    def _finish(self, fd: int) -> None:
        """QEMU has closed its end, or the console is to be forgotten."""
        vm_id, logged = self._logs.pop(fd)
        self._epoll.unregister(fd)
        logged.close()
        self._host.fds.drop(name_of(vm_id, CONSOLE))
