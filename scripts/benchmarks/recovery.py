"""SIGKILL and a new start: how long until the API answers, every machine's statistics are right, and a change can be made.

The daemon is started anew in the instant in which it has ended, as a service manager does. A cold start knows its machines
from checkpoints and libvirt alone.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

from scripts.benchmarks.client import Client, percentile
from scripts.benchmarks.lab import Lab, say, until


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--guests", type=int, default=50, help="machines, empty and paused (default: 50)")
    parser.add_argument("--rounds", type=int, default=10, help="kills (default: 10)")


def run(options: argparse.Namespace) -> dict[str, Any]:
    rounds = []
    with Lab() as lab:
        say(f"Booting {options.guests} empty guests")
        lab.boot(options.guests, memory=16, paused=True)
        pids = lab.pids()
        for number in range(1, options.rounds + 1):
            until(lambda: not any(lab.status()["owners"].values()), "the daemon to settle")
            rounds.append(_round(lab, pids))
            say(f"  kill {number}: {rounds[-1]}")
        kept = lab.pids() == pids
    middle = {what: round(percentile([each[what] for each in rounds], 0.5), 3) for what in rounds[0]}
    worst = {what: round(max(each[what] for each in rounds), 3) for what in rounds[0]}
    return {"guests": options.guests, "kills": options.rounds, "pids_kept": kept, "median_s": middle, "worst_s": worst}


def _round(lab: Lab, pids: dict[str, int]) -> dict[str, float]:
    """Return the seconds since the kill until each fact held."""
    begun = time.monotonic()
    lab.kill()
    lab.start()
    took = {"serves": time.monotonic() - begun}
    until(lambda: _right(lab.client, pids), "every machine to be told rightly")
    took["told"] = time.monotonic() - begun
    for vm_id in pids:
        until(lambda v=vm_id: _changes(lab.client, v), "a machine to be changed")  # type: ignore[misc]
    took["changed"] = time.monotonic() - begun
    return took


def _right(client: Client, pids: dict[str, int]) -> bool:
    """Whether all machines are told as what they are, their monitors answering."""
    reply = client.call("getAllVmStats")
    if reply["status"]["code"]:
        return False
    told: dict[str, dict[str, Any]] = {each["vmId"]: each for each in reply["statsList"]}
    return set(told) == set(pids) and all(
        told[vm_id]["status"] == "Paused" and int(told[vm_id]["pid"]) == pid and told[vm_id]["monitorResponse"] == "0"
        for vm_id, pid in pids.items()
    )


def _changes(client: Client, vm_id: str) -> bool:
    """Whether its QEMU does as it is told."""
    return all(client.call(verb, vm_id)["status"]["code"] == 0 for verb in ("cont", "pause"))
