"""Machines: virtual machines by the names that people give them, and how they are listed."""

from __future__ import annotations

import re
import time
from typing import Any

from vdsmd.ctl.context import Context, Problem

LOOK_EVERY = 0.1
NO_ERROR = "NOERR"
"""The pause code of a machine that is paused because somebody asked for it."""
WHOLE_ID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


def identify(context: Context, word: str) -> str:
    """Return the id of the machine that `word` means: its id, its name, or the beginning of its id."""
    if WHOLE_ID.fullmatch(word):
        return word.lower()
    machines = context.client.call("list", True)["vmList"]
    named = [each["vmId"] for each in machines if each.get("vmName") == word]
    begun = [each["vmId"] for each in machines if each["vmId"].startswith(word.lower())]
    found = named or begun
    if len(found) != 1:
        raise Problem(
            f"{word}: {'several virtual machines match: ' + ', '.join(found) if found else 'no such virtual machine'}"
        )
    return str(found[0])


def name_list(context: Context) -> int:
    """`vm list --quiet`: one name a line, for scripts and completion."""
    for each in context.client.call("list", True)["vmList"]:
        context.screen.line(str(each.get("vmName") or each["vmId"]))
    return 0


def show_list(context: Context, reply: dict[str, Any]) -> None:
    machines = reply["vmList"]
    if not machines:
        context.screen.line("No virtual machines.")
        return
    heads = ["NAME", "ID", "STATUS", "MEMORY", "CPUS", "PID"]
    context.screen.table(heads, sorted(_row(each) for each in machines))


def show_all_stats(context: Context, reply: dict[str, Any]) -> None:
    if not reply["statsList"]:
        context.screen.line("No virtual machines.")
        return
    # The statistics of a machine that is Down do not tell its name.
    names = {each["vmId"]: each.get("vmName", "") for each in context.client.call("list", True)["vmList"]}
    heads = ["NAME", "ID", "STATUS", "CPU", "UP FOR", "ANSWERS", "WHY"]
    context.screen.table(heads, sorted(_stats_row(each, names) for each in reply["statsList"]))


def show_stats(context: Context, reply: dict[str, Any]) -> None:
    context.screen.value(reply["statsList"][0])


def await_start(context: Context, vm_id: str) -> None:
    """Wait until the machine runs (or is paused, if it was to be). Raises Problem when it ends instead."""
    deadline = time.monotonic() + context.options.timeout
    while time.monotonic() < deadline:
        stats = context.client.call("getVmStats", vm_id)["statsList"][0]
        if stats["status"] == "Down":
            raise Problem(f"{vm_id} did not start: {stats.get('exitMessage') or 'it is Down'}")
        if stats["status"] not in ("WaitForLaunch", "Powering up"):
            return
        time.sleep(LOOK_EVERY)
    raise Problem(f"{vm_id} has not started within {context.options.timeout:g} s; it may still do so")


def show_created(context: Context, reply: dict[str, Any]) -> None:
    made = reply["vmList"]
    context.screen.line(
        f"{made.get('vmName', '')}  {made['vmId']}  {context.screen.tone(str(made.get('status', '')))}".strip()
    )


def span(seconds: float) -> str:
    """Return a length of time in its two largest units: '3 d 4 h', '12 min', '7 s'."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    parts = [f"{count} {unit}" for count, unit in ((days, "d"), (hours, "h"), (minutes, "min"), (rest, "s")) if count]
    return " ".join(parts[:2]) or "0 s"


def _row(machine: dict[str, Any]) -> list[Any]:
    memory = machine.get("memSize", "")
    return [
        machine.get("vmName", ""),
        machine["vmId"],
        machine.get("status", ""),
        f"{memory} MiB" if memory else "",
        str(machine.get("smp", "")),
        str(machine.get("pid") or ""),
    ]


def _stats_row(stats: dict[str, Any], names: dict[str, str]) -> list[Any]:
    used = [float(stats[key]) for key in ("cpuUser", "cpuSys") if key in stats]
    answers = {"0": "yes", "-1": "no"}.get(str(stats.get("monitorResponse", "")), "")
    return [
        names.get(stats["vmId"], ""),
        stats["vmId"],
        stats.get("status", ""),
        f"{sum(used):.1f}%" if used else "",
        span(float(stats["elapsedTime"])) if "elapsedTime" in stats else "",
        answers,
        stats.get("exitMessage") or stats.get("pauseCode", "").replace(NO_ERROR, ""),
    ]
