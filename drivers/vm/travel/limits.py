"""How long a migration may take, and how long it may have a guest stand still at its end.

It promises decisions from figures alone: who holds no clock and no libvirt can be tried with any.
"""

from __future__ import annotations

import msgspec

from drivers.vm.contract import Settings

SHORTEST_DOWNTIME = 10
"""Milliseconds. With less, no migration of a guest that does anything would ever end."""


class Mark(msgspec.Struct, frozen=True):
    """The least that has ever been left to transfer, in bytes, and since when (the epoch's clock); and the downtime that has
    been allowed until now, in ms."""

    remaining: int
    since: float
    downtime: int = 0


def advanced(mark: Mark | None, remaining: int, total: int, now: float) -> Mark:
    """Return the mark, moved when the migration has come nearer to its end. Before there is any figure, it has not begun."""
    if mark is None or not total or remaining < mark.remaining:
        return Mark(remaining if total else 2**63, now, mark.downtime if mark else 0)
    return mark


def exceeded(mark: Mark, settings: Settings, *, mem_mib: int, begun: float, now: float) -> str:
    """Return why the migration must be given up, '' when it need not."""
    most = settings.migration_max_time_per_gib_mem * max(mem_mib, 1024) / 1024
    if settings.migration_max_time_per_gib_mem and now - begun > most:
        return f"Migration takes longer than {most:.0f} seconds"
    patience = settings.migration_progress_timeout
    if patience and now - mark.since > patience:
        return f"Migration is stuck: it has come no nearer to its end for {patience:.0f} seconds"
    return ""


def downtime(settings: Settings, *, most: int, mem_mib: int, begun: float, now: float) -> int:
    """Return the milliseconds for which the guest may stand still by now: from a small part of `most` up to all of it, in
    equal steps."""
    steps = max(1, settings.migration_downtime_steps)
    span = settings.migration_downtime_delay * max(mem_mib, 1024) / 1024
    passed = steps if not span else min(steps, 1 + int((now - begun) * steps / span))
    return max(min(most, SHORTEST_DOWNTIME), most * passed // steps)
