"""Run a program as root: a fixed name, an argument list of our own, and nothing else of the caller's.

It promises that no shell, search path, environment or descriptor reaches the program, that its output is bounded, and
that it and what it started have ended or are killed when the time is over.
"""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import time
from typing import NamedTuple

from supervdsm.errors import Failed, TimedOut, Unsupported

DIRECTORIES = ("/usr/sbin", "/usr/bin", "/sbin", "/bin")
ENVIRONMENT = {"PATH": ":".join(DIRECTORIES), "LC_ALL": "C", "HOME": "/"}
MOST_OUTPUT = 64 * 1024
MOST_INPUT = 16 * 1024
"""What a program is told fits into its pipe, so that telling it never waits."""


class Ended(NamedTuple):
    """How a program ended: its exit status, or minus the signal's number; and what it said on both outputs."""

    code: int
    output: str

    def last_line(self) -> str:
        """Return the last line that says anything, for an error's text."""
        lines = self.output.strip().splitlines()
        return lines[-1].strip() if lines else f"exit status {self.code}, without a word"


def find(name: str) -> str:
    """Return the path of a program of the system. Raises Unsupported."""
    for directory in DIRECTORIES:
        path = f"{directory}/{name}"
        if os.access(path, os.X_OK):
            return path
    raise Unsupported(f"{name} is not installed on this host")


def run(
    path: str, *arguments: str, stdin: str = "", environment: dict[str, str] | None = None, timeout: float = 30.0
) -> Ended:
    """Run the program at `path` and return how it ended. Raises Unsupported, Failed and TimedOut."""
    told = stdin.encode()
    if len(told) > MOST_INPUT:
        raise Failed(f"{os.path.basename(path)}: too much to tell it")
    try:
        process = subprocess.Popen(
            [path, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=ENVIRONMENT | (environment or {}),
            cwd="/",
            umask=0o022,
            start_new_session=True,
            preexec_fn=_unblock,
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise Unsupported(f"{path} cannot be run: {error}") from error
    with process:
        try:
            _tell(process, told)
            output = _listen(process, time.monotonic() + timeout)
        except TimedOut:  # our own, or the action's
            os.killpg(process.pid, signal.SIGKILL)
            raise
    return Ended(process.returncode, output.decode(errors="replace"))


def _unblock() -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, [])


def _tell(process: subprocess.Popen[bytes], told: bytes) -> None:
    assert process.stdin is not None
    try:
        process.stdin.write(told)
        process.stdin.close()
    except BrokenPipeError:
        pass  # it does not want to know, and its exit status tells the rest


def _listen(process: subprocess.Popen[bytes], deadline: float) -> bytes:
    """Return what it says until it ends. What it leaves running (a file system's server) may keep its outputs for ever."""
    assert process.stdout is not None
    said = bytearray()
    pidfd = os.pidfd_open(process.pid)
    os.set_blocking(process.stdout.fileno(), False)
    with selectors.DefaultSelector() as selector:
        selector.register(pidfd, selectors.EVENT_READ)
        selector.register(process.stdout, selectors.EVENT_READ)
        try:
            while selector.get_map():
                ready = {key.fd for key, _ in selector.select(max(0.0, deadline - time.monotonic()))}
                if not ready:
                    raise TimedOut(f"{os.path.basename(str(process.args[0]))} took too long, and was killed")  # type: ignore[index]
                ended = pidfd in ready  # looked at first: all that it said is then in the pipe
                open_still = _drain(process.stdout.fileno(), said)
                if ended:
                    break
                if not open_still and process.stdout in selector.get_map():
                    selector.unregister(process.stdout)
        finally:
            os.close(pidfd)
    process.wait()
    return bytes(said)


def _drain(fd: int, said: bytearray) -> bool:
    """Add what can be read now; what is too much is dropped. False at its end."""
    for _ in range(4):  # more than a pipe holds; who never stops talking meets the deadline in between
        try:
            chunk = os.read(fd, MOST_OUTPUT)
        except BlockingIOError:
            return True
        if not chunk:
            return False
        said += chunk[: MOST_OUTPUT - len(said)]
    return True
