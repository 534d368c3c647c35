"""Networks, as people want to see them."""

from __future__ import annotations

from typing import Any

from vdsmd.ctl.context import Context


def show_plan(context: Context, reply: dict[str, Any]) -> None:
    """Write the steps of a change, numbered in the order in which they would be taken."""
    if not reply["steps"]:
        context.screen.line("Nothing to do: all is as wanted.")
        return
    context.screen.table(["STEP", "ACTION"], [[str(number), step] for number, step in enumerate(reply["steps"], 1)])
