"""The show: upgrade the daemon under its guest and a calling client, and tell what was seen, as one table."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from typing import NamedTuple

from scripts.demo.client import Caller
from scripts.demo.outside import Mishap, clock, descriptors, power_of, process_start, say, until, wrong_lines
from scripts.demo.place import PROOF, Place

UPGRADES = 3


class Row(NamedTuple):
    """What was seen of one generation. Its heading in the table is the field's name."""

    generation: int
    run_as: str
    daemon_pid: int
    qemu_pid: int
    qemu_started: str
    counter_before: int
    counter_after: int
    lines_lost: int
    descriptors: int
    pause_ms: float
    calls: int
    failed: int


class Seen(NamedTuple):
    row: Row
    start: int | None
    errors: list[str]


def observe(place: Place, caller: Caller, generation: int, first: int, from_answer: int) -> Seen:
    """Let the guest count on for a while, then look at everything once."""
    now = place.console.last()
    after = until(lambda: (last := place.console.last()) >= now + PROOF and last, "the guest to count on")
    told = place.endpoints() or {"pid": 0}
    answers = caller.answers[from_answer:]
    qemu = place.qemu()
    start = process_start(qemu)
    row = Row(
        generation=generation, run_as=run_as([told["pid"], qemu]),
        daemon_pid=told["pid"], qemu_pid=qemu, qemu_started=clock(start) if start else "gone",
        counter_before=first, counter_after=after, lines_lost=wrong_lines(place.console.ticks(), first, after),
        descriptors=descriptors(told["pid"]), pause_ms=max((a.took for a in answers), default=0) * 1000,
        calls=len(answers), failed=sum(bool(a.error) for a in answers),
    )  # fmt: skip
    return Seen(row, start, [answer.error for answer in answers if answer.error])


def run_as(pids: list[int]) -> str:
    """Return as whom these run: the one user, or all of them, and whether any could do more than a user may."""
    try:
        powers = [power_of(pid) for pid in pids]
    except OSError:
        return "gone"
    users = "/".join(sorted({power.user for power in powers}))
    return f"{users}+" if any(power.capable for power in powers) else users


def upgrade(place: Place) -> int:
    """Have the daemon replaced by the code on disk; return the new generation."""
    told = place.endpoints()
    if told is None:
        raise Mishap(f"vdsmd has ended; its log is in {place.dir}/log")
    before = int(told["generation"])
    os.kill(told["pid"], signal.SIGHUP)
    until(lambda: _moved_on(place, before), f"generation {before + 1}")
    return before + 1


def _moved_on(place: Place, before: int) -> bool:
    told = place.endpoints()
    if told is None:
        raise Mishap(f"vdsmd has ended; its log is in {place.dir}/log")
    if int(told["generation"]) > before:
        return True
    outcome = place.call("vdsmd.status")["info"]["reexec"]
    if outcome["state"] in ("refused", "cancelled"):
        raise Mishap(f"the upgrade was {outcome['state']}: {outcome['reason']}")
    return False


def show(place: Place) -> list[Seen]:
    """Upgrade three times under a calling client; return what was seen before and after each."""
    told = place.endpoints() or {"generation": 0}
    with Caller(place.port, place.vm_id) as caller:
        seen = [observe(place, caller, int(told["generation"]), place.console.last(), 0)]
        for number in range(1, UPGRADES + 1):
            first, answered = seen[-1].row.counter_after, len(caller.answers)
            generation = upgrade(place)
            seen.append(observe(place, caller, generation, first, answered))
            row = seen[-1].row
            say(f"   upgrade {number} of {UPGRADES}: generation {generation}, the client waited {row.pause_ms:.0f} ms")
    return seen


def table(rows: list[Row]) -> Iterator[str]:
    cells = [[f"{value:.0f}" if isinstance(value, float) else str(value) for value in row] for row in rows]
    words = [name.split("_") for name in Row._fields]
    heads = [[word[0] if len(word) > 1 else "" for word in words], [word[-1] for word in words]]
    widths = [max(len(line[column]) for line in (*heads, *cells)) for column in range(len(words))]
    for line in (*heads, *cells):
        yield "  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)).rstrip()


def verdict(seen: list[Seen]) -> list[str]:
    """Return what did not hold, in words."""
    first = seen[0]
    wrong = [
        f"generation {look.row.generation}: vdsmd or QEMU runs as root, or as if it were"
        for look in seen
        if os.getuid() == 0 and ("root" in look.row.run_as or "+" in look.row.run_as)
    ]
    wrong += [f"a call failed: {error}" for look in seen for error in look.errors[:3]]
    for look in seen[1:]:
        row = look.row
        if (row.qemu_pid, look.start) != (first.row.qemu_pid, first.start) or look.start is None:
            wrong.append(f"generation {row.generation}: the guest's QEMU is another process, or gone")
        if row.daemon_pid != first.row.daemon_pid:
            wrong.append(f"generation {row.generation}: vdsmd is another process")
    wrong += [f"generation {look.row.generation}: console lines are wrong" for look in seen if look.row.lines_lost]
    if seen[-1].row.descriptors > seen[1].row.descriptors:
        wrong.append("the number of descriptors grows")
    return wrong
