"""The real helper with actions for tests: `python -m tests.supervdsm.server`, with the command line of supervdsm."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys

from supervdsm.__main__ import main
from supervdsm.errors import NotFound
from supervdsm.programs import find, run
from supervdsm.registry import HSMD, VDSMD, Context, Descriptor, action
from tests.until import until


@action("test.echo", callers=(VDSMD, HSMD))
def echo(context: Context, value: str | int | float | bool | list[str] | dict[str, str] | None) -> object:
    return value


@action("test.whose")
def whose(context: Context) -> dict[str, object]:
    return context._asdict()


@action("test.secret", secret=("password",))
def secret(context: Context, password: str, name: str = "") -> None:
    """It has nothing to say."""


@action("test.fail")
def fail(context: Context, text: str) -> None:
    raise NotFound(text)


@action("test.pid")
def pid(context: Context) -> int:
    return os.getpid()


@action("test.surprise")
def surprise(context: Context, text: str = "a surprise") -> None:
    raise ZeroDivisionError(text)


@action("test.open")
def open_(context: Context, path: str) -> Descriptor:
    return Descriptor(os.open(path, os.O_RDONLY))


@action("test.long")
def long(context: Context, size: int) -> str:
    return "x" * size


@action("test.unsendable")
def unsendable(context: Context) -> object:
    return {1, 2}


@action("test.stuck")
def stuck(context: Context) -> None:
    while True:
        signal.pause()


@action("test.die")
def die(context: Context) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@action("test.slow", slow=True, timeout=120)
def slow(context: Context, seconds: float, path: str = "") -> int:
    """Make the file when done; return the process's pid."""
    if path:
        with open(f"{path}.begun", "w", encoding="utf-8") as file:
            file.write(str(os.getpid()))
    subprocess.run(["sleep", str(seconds)], check=True)
    if path:
        with open(path, "w", encoding="utf-8") as file:
            file.write(str(os.getpid()))
    return os.getpid()


@action("test.wait", slow=True, timeout=120)
def wait(context: Context, path: str, then: str) -> None:
    """Wait for a file, and make another."""
    open(f"{then}.begun", "w", encoding="utf-8").close()
    until(lambda: os.path.exists(path), 120)
    open(then, "w", encoding="utf-8").close()


@action("test.slow-echo", slow=True)
def slow_echo(context: Context, value: str) -> str:
    return value


@action("test.slow-open", slow=True)
def slow_open(context: Context, path: str) -> Descriptor:
    return Descriptor(os.open(path, os.O_RDONLY))


@action("test.slow-die", slow=True)
def slow_die(context: Context) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@action("test.slow-fail", slow=True)
def slow_fail(context: Context, text: str) -> None:
    raise NotFound(text)


@action("test.too-slow", slow=True, timeout=0.5)
def too_slow(context: Context) -> None:
    subprocess.run(["sleep", "1000.25"], check=True)


@action("test.too-long", slow=True, timeout=0.5)
def too_long(context: Context) -> None:
    run(find("sleep"), "1000.75")


@action("test.stubborn", slow=True, timeout=0.5)
def stubborn(context: Context) -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGALRM])
    while True:
        signal.pause()


@action("test.descriptors")
def descriptors(context: Context) -> list[str]:
    found = []
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # the listing's own
            found.append(os.readlink(f"/proc/self/fd/{fd}").split(":")[0])
    return sorted(found)


if __name__ == "__main__":
    sys.exit(main())
