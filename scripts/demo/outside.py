"""What a stranger can see from outside: the kernel's view of processes, and the guest's own counting.

It promises to ask nobody but the kernel and the console log, so that a daemon that is wrong about itself is found out.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, TypeVar

PATIENCE = 180.0

T = TypeVar("T")


class Mishap(Exception):
    """The demonstration cannot go on. The text says why, and what to do."""


def say(text: str) -> None:
    print(text, flush=True)


def until(fact: Callable[[], T], what: str) -> T:
    """Return the first truthy value of `fact()`, telling every few seconds that we wait."""
    began = told = time.monotonic()
    while not (value := fact()):
        now = time.monotonic()
        if now - began > PATIENCE:
            raise Mishap(f"waited {PATIENCE:.0f} s for {what}, in vain")
        if now - told > 5:
            told = now
            say(f"      still waiting for {what} ({now - began:.0f} s)")
        time.sleep(0.02)
    return value


def process_start(pid: int) -> int | None:
    """Return when the process started, in the kernel's ticks since boot; None when there is none."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else int(fields[19])


def clock(start: int) -> str:
    """Tell a process's start as the time of day, to a hundredth."""
    hertz = os.sysconf("SC_CLK_TCK")
    seconds = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) + start / hertz
    return time.strftime("%H:%M:%S", time.localtime(seconds)) + f".{int(seconds % 1 * 100):02d}"


def descriptors(pid: int) -> int:
    """Return how many descriptors the process holds when nobody calls: the least of many looks."""
    counts = []
    for _ in range(40):
        counts.append(len(os.listdir(f"/proc/{pid}/fd")))
        time.sleep(0.01)
    return min(counts)


class Console(NamedTuple):
    """The guest's console log."""

    path: Path

    def ticks(self) -> list[int]:
        """Return the numbers that the guest has counted, in the order of its lines."""
        try:
            text = self.path.read_bytes()
        except FileNotFoundError:
            return []
        return [int(number) for number in re.findall(rb"^tick (\d+)\r?\n", text, re.MULTILINE)]

    def last(self) -> int:
        return max(self.ticks(), default=0)


def wrong_lines(ticks: list[int], first: int, last: int) -> int:
    """Return how many of the lines first..last are lost, doubled or out of order."""
    span = [tick for tick in ticks if first <= tick <= last]
    wanted = list(range(first, last + 1))
    return len(set(wanted) - set(span)) + len(span) - len(set(span)) + (0 if span == sorted(span) else 1)


def pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""  # it has just ended


class Power(NamedTuple):
    """As whom a process runs, and whether it has any capability, or may get one."""

    user: str
    capable: bool


def power_of(pid: int) -> Power:
    """Raises OSError when the process has ended."""
    told = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines())
    users = {int(uid) for uid in told["Uid"].split()}
    names = [pwd.getpwuid(uid).pw_name for uid in sorted(users)]
    capable = any(int(told[which], 16) for which in ("CapPrm", "CapEff", "CapInh", "CapAmb"))
    return Power("/".join(names), capable)


def process_ended(pid: int) -> bool:
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
    return process_start(pid) is None
