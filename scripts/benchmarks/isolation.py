"""One live-locked QEMU among many: what it costs the verbs of the others, and whether it is seen and recovers by itself."""

from __future__ import annotations

import argparse
import os
import signal
import time
from collections.abc import Callable
from typing import Any

from scripts.benchmarks.client import Client, percentile
from scripts.benchmarks.lab import Lab, say, until

SAMPLED = 2
"""Seconds between two samples."""


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--guests", type=int, default=50, help="machines, one of which is stopped (default: 50)")
    parser.add_argument("--rounds", type=int, default=300, help="calls of each verb, before and during (default: 300)")


def run(options: argparse.Namespace) -> dict[str, Any]:
    with Lab(vm_sample_interval=SAMPLED) as lab:
        say(f"Booting {options.guests} empty guests")
        stuck, other, *_ = lab.boot(options.guests, memory=16, paused=True)
        until(lambda: not any(lab.status()["owners"].values()), "the daemon to settle")
        calls = _calls(lab.client, other)
        before = _measure(calls, options.rounds)
        lab.client.must("cont", stuck)
        qemu = lab.pids()[stuck]
        os.kill(qemu, signal.SIGSTOP)
        begun = time.monotonic()
        try:
            until(lambda: _response(lab, stuck) == "-1", "the statistics to show it")
            seen = time.monotonic() - begun
            during = _measure(calls, options.rounds)
        finally:
            os.kill(qemu, signal.SIGCONT)
        begun = time.monotonic()
        until(lambda: _response(lab, stuck) == "0", "it to recover")
        back = time.monotonic() - begun
    return {
        "guests": options.guests,
        "sampled_every_s": SAMPLED,
        "seen_after_s": round(seen, 1),
        "recovered_after_s": round(back, 1),
        "p99_ms": {name: [before[name], during[name]] for name in calls},
        "worst_ratio": round(max(during[name] / before[name] for name in calls), 2),
    }


def _calls(client: Client, other: str) -> dict[str, Callable[[], object]]:
    return {
        "ping": lambda: client.must("ping"),
        "list": lambda: client.must("list"),
        "getVmStats": lambda: client.must("getVmStats", other),
        "getAllVmStats": lambda: client.must("getAllVmStats"),
        "cont": lambda: client.must("cont", other),
        "pause": lambda: client.must("pause", other),
        "getVdsCapabilities": lambda: client.must("getVdsCapabilities"),
    }


def _measure(calls: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Return the 99th percentile of each verb, in milliseconds; they take turns."""
    took: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            begun = time.perf_counter()
            call()
            took[name].append((time.perf_counter() - begun) * 1000)
    return {name: round(percentile(values, 0.99), 2) for name, values in took.items()}


def _response(lab: Lab, vm_id: str) -> str:
    return str(lab.client.must("getVmStats", vm_id)["statsList"][0]["monitorResponse"])
