"""Tune KSM, the kernel's search for equal pages of guests."""

from __future__ import annotations

from supervdsm.errors import Invalid
from supervdsm.locks import alone
from supervdsm.registry import VDSMD, Context, action
from supervdsm.sysfs import number, write_all

RANGES = {
    # Only while nothing is shared can this one be changed, so the order matters: it comes first.
    "merge_across_nodes": (0, 1),
    "pages_to_scan": (1, 1_000_000),
    "sleep_millisecs": (0, 3_600_000),
    "run": (0, 2),
}


@action("ksm.tune", callers=(VDSMD,), slow=True, timeout=60)
def tune(
    context: Context,
    run: int | None = None,
    pages_to_scan: int | None = None,
    sleep_millisecs: int | None = None,
    merge_across_nodes: int | None = None,
) -> dict[str, int]:
    """Set what is given, all of it or nothing, and return what is in force then.

    `run`: 0 stops, 1 runs, 2 stops and unshares everything. Raises Invalid (out of range), Busy (`merge_across_nodes`,
    while pages are shared) and Unsupported (a kernel without KSM).
    """
    asked = {
        "merge_across_nodes": merge_across_nodes,
        "pages_to_scan": pages_to_scan,
        "sleep_millisecs": sleep_millisecs,
        "run": run,
    }
    given = {name: value for name, value in asked.items() if value is not None}
    for name, value in given.items():
        low, high = RANGES[name]
        if not low <= value <= high:
            raise Invalid(f"ksm.tune: {name} must be from {low} to {high}")
    directory = f"{context.sysfs}/kernel/mm/ksm"
    with alone(context, "ksm"):
        write_all(directory, given)
        return {name: number(f"{directory}/{name}") for name in RANGES}
