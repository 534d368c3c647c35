"""Re-execs under load: the pause that clients see, calls lost, guests and console lines lost, and what grows.

Also stops and starts a private libvirtd with as many guests in the same run, for the ratio.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
from typing import Any

from scripts.benchmarks import libvirtd
from scripts.benchmarks.client import percentile
from scripts.benchmarks.lab import Lab, demo_guest, finish, say, until


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--guests", type=int, default=10, help="machines (default: 10)")
    parser.add_argument("--reexecs", type=int, default=100, help="re-execs in a row (default: 100)")
    parser.add_argument(
        "--clients", type=int, default=4, help="load generators without retry, half of them change things"
    )
    parser.add_argument(
        "--paused", action="store_true", help="empty guests that are never started instead of counting ones"
    )
    parser.add_argument("--no-libvirtd", action="store_true", help="leave out the comparison")
    parser.add_argument(
        "--spawned", action="store_true", help="as an ordinary user, whose helper is called and re-executed as often"
    )
    parser.add_argument("--rest", type=float, default=0.0, help="seconds between two re-execs (default: 0)")


def run(options: argparse.Namespace) -> dict[str, Any]:
    with Lab(spawned=options.spawned) as lab:
        say(f"Booting {options.guests} guests")
        more = {"paused": True} if options.paused else demo_guest(lab.base)
        ids = lab.boot(options.guests, memory=16 if options.paused else 96, **more)
        if not options.paused:
            until(lambda: all(lab.ticks(vm_id) for vm_id in ids), "all guests to count", 600)
        result = _measure(lab, ids, options)
    if not options.no_libvirtd:
        result["libvirtd"] = libvirtd.restart(options.guests)
        for what in ("list", "statistics"):
            if f"{what}_ms" in result["libvirtd"]:
                result[f"ratio_{what}"] = round(result["libvirtd"][f"{what}_ms"] / result["pause_ms"]["median"], 1)
    return result


def _measure(lab: Lab, ids: list[str], options: argparse.Namespace) -> dict[str, Any]:
    before = _counts_of_a_fresh_run(lab)
    pids = {vm_id: pid for vm_id, pid in lab.pids().items() if vm_id in ids}
    kinds = ["reader", "pauser" if not options.paused else "reader", "reader", "maker"]
    kinds = [*kinds[:3], "helper"] if options.spawned else kinds
    loads = [lab.load(kinds[n % 4], ids[n % len(ids)]) for n in range(options.clients)]
    prober = lab.load("prober")
    windows, outcomes = [], []
    for number in range(1, options.reexecs + 1):
        if options.spawned:
            lab.replace_helper()
        outcomes.append(lab.reexec())
        windows.append((outcomes[-1]["closed_at"], outcomes[-1]["served_at"]))
        if number % 10 == 0:
            say(f"  {number} re-execs, last pause {outcomes[-1]['pause_ms']:.0f} ms by the daemon's clock")
        time.sleep(options.rest)
    seen = [finish(load) for load in loads]
    probed = finish(prober)
    after = _counts_of_a_fresh_run(lab)
    return _result(lab, ids, options, windows, outcomes, seen, probed, before, after, pids)


def _counts_of_a_fresh_run(lab: Lab) -> dict[str, int]:
    """Re-execute once more without load, and count when all is quiet: like is compared with like."""
    lab.reexec()
    until(lambda: lab.status()["libvirt"].startswith("connected"), "libvirt to be connected")
    until(lambda: not any(lab.status()["owners"].values()), "the daemon to settle")
    return lab.counts()


def _result(
    lab: Lab,
    ids: list[str],
    options: argparse.Namespace,
    windows: list[tuple[float, float]],
    outcomes: list[dict[str, Any]],
    seen: list[dict[str, Any]],
    probed: dict[str, Any],
    before: dict[str, int],
    after: dict[str, int],
    pids: dict[str, int],
) -> dict[str, Any]:
    pauses = [_pause(probed["slow"], *window) * 1000 for window in windows]
    own = [outcome["pause_ms"] for outcome in outcomes]
    now = lab.pids()
    steps: dict[str, list[float]] = {}
    for outcome in outcomes:
        for step in outcome["steps"]:
            steps.setdefault(step["name"], []).append(step["ms"])
    return {
        "guests": options.guests,
        "reexecs": options.reexecs,
        "pause_ms": _spread(pauses),
        "pause_by_daemon_ms": _spread(own),
        "same_calls_otherwise_ms": {share: round(probed[share] * 1000, 1) for share in ("p50", "p99")},
        "steps_ms": {name: round(statistics.median(values), 1) for name, values in steps.items()},
        "calls": sum(tally["calls"] for tally in [*seen, probed]),
        "calls_failed": sum(tally["failed"] for tally in [*seen, probed]),
        "failures": [failure for tally in [*seen, probed] for failure in tally["failures"]][:5],
        "pids_changed": sum(now.get(vm_id) != pid for vm_id, pid in pids.items()),
        "console_lines": 0 if options.paused else sum(len(lab.ticks(vm_id)) for vm_id in ids),
        "console_lines_lost_or_doubled": 0 if options.paused else sum(_wrong(lab.ticks(vm_id)) for vm_id in ids),
        "growth": {name: after[name] - before[name] for name in before},
        "rss_kib": after["rss_kib"],
    }


def _pause(slow: list[tuple[float, float]], begun: float, ended: float) -> float:
    """Return the longest call of the prober that overlaps the re-exec."""
    return max((took for start, took in slow if start < ended and start + took > begun), default=0.0)


def _wrong(ticks: list[int]) -> int:
    """Count the places where the guest's count does not go on by one."""
    return sum(after != before + 1 for before, after in itertools.pairwise(ticks))


def _spread(values: list[float]) -> dict[str, float]:
    return {
        "median": round(statistics.median(values), 1),
        "p90": round(percentile(values, 0.9), 1),
        "worst": round(max(values), 1),
    }
