"""Programs that are run for one call, by the worker that carries the call, and are over when it is.

It promises that a program ends, by itself or, with all of its process group, when its time is up; that its output is bounded;
and that it gets an empty signal mask and no descriptor of ours. What must outlive its call is a child of `state.children`.
"""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Mapping, Sequence

import msgspec

from drivers.errors import Failed, NotResponding
from state.children import OURS_ALONE

MOST_OUTPUT = 2**20
"""Bytes of each of standard output and standard error that are kept; the rest is read and thrown away."""

TO_DIE = 2.0
"""Seconds that a killed program gets to be gone."""


class Ran(msgspec.Struct, frozen=True, kw_only=True):
    """How a program ended. `code`: its exit status, or minus the signal's number."""

    code: int
    out: bytes
    err: bytes

    def reason(self) -> str:
        """Return the last line of standard error, or the code: what an error says of it."""
        lines = self.err.decode(errors="replace").split("\n")
        last = next((line.strip() for line in reversed(lines) if line.strip()), "")
        return last[:500] or f"exit status {self.code}"


def run(argv: Sequence[str], *, timeout: float, env: Mapping[str, str] | None = None, data: bytes = b"") -> Ran:
    """Run `argv` (an absolute path first) with `data` as standard input; return how it ended. Raises Failed when it cannot be
    started, NotResponding when it has not ended after `timeout` seconds: then it is killed."""
    out, err = os.pipe2(os.O_CLOEXEC), os.pipe2(os.O_CLOEXEC)
    given = _file(data)
    try:
        pid = _spawn(argv, os.environ if env is None else env, {0: given, 1: out[1], 2: err[1]})
    except OSError as error:
        for number in (out[0], err[0]):
            os.close(number)
        raise Failed(action=f"starting {argv[0]}", reason=error) from error
    finally:
        for number in (given, out[1], err[1]):
            os.close(number)
    return _attend(pid, argv[0], (out[0], err[0]), timeout)


def _file(data: bytes) -> int:
    number = os.memfd_create("input", os.MFD_CLOEXEC)
    os.write(number, data)
    os.lseek(number, 0, os.SEEK_SET)
    return number


def _spawn(argv: Sequence[str], env: Mapping[str, str], files: Mapping[int, int]) -> int:
    return os.posix_spawn(
        argv[0],
        list(argv),
        {name: value for name, value in env.items() if name not in OURS_ALONE},
        file_actions=[(os.POSIX_SPAWN_DUP2, ours, theirs) for theirs, ours in files.items()],
        setsid=True,
        setsigmask=[],
        setsigdef=[signal.SIGPIPE],
    )


def _attend(pid: int, name: str, pipes: tuple[int, int], timeout: float) -> Ran:
    pidfd = os.pidfd_open(pid)
    output = {number: bytearray() for number in pipes}
    poll = select.poll()
    for number in (*pipes, pidfd):
        poll.register(number, select.POLLIN)
    deadline = time.monotonic() + timeout
    try:
        while (left := deadline - time.monotonic()) > 0:
            ready = {number for number, _ in poll.poll(left * 1000)}
            for number in ready & output.keys():
                if not _read(number, output[number]):
                    poll.unregister(number)
            if pidfd in ready:
                # Its own output is all in the pipes; what it has left behind may keep them open for ever.
                _drain(output)
                return Ran(code=_reap(pidfd), out=bytes(output[pipes[0]]), err=bytes(output[pipes[1]]))
        _kill(pid, pidfd)
        raise NotResponding(what=name, reason=f"it did not end within {timeout:g} s, and was killed")
    finally:
        for number in (*pipes, pidfd):
            os.close(number)


def _kill(pid: int, pidfd: int) -> None:
    """Kill the group. What hangs in the kernel dies later, and is not waited for: our caller must not hang with it."""
    os.killpg(pid, signal.SIGKILL)  # its leader has not been reaped: the number is still its own
    dying = select.poll()
    dying.register(pidfd, select.POLLIN)
    if dying.poll(TO_DIE * 1000):
        _reap(pidfd)


def _read(number: int, into: bytearray) -> bool:
    chunk = os.read(number, 65536)
    into += chunk[: MOST_OUTPUT - len(into)]
    return bool(chunk)


def _drain(output: Mapping[int, bytearray]) -> None:
    for number, into in output.items():
        os.set_blocking(number, False)
        try:
            while len(into) < MOST_OUTPUT and _read(number, into):
                pass
        except BlockingIOError:
            continue


def _reap(pidfd: int) -> int:
    done = os.waitid(os.P_PIDFD, pidfd, os.WEXITED)
    assert done is not None
    return done.si_status if done.si_code == os.CLD_EXITED else -done.si_status
