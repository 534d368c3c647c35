"""getAllVmStats with many machines: latency from the cache, and what the daemon costs in CPU and memory.

Measured once more after a re-exec: libvirt keeps more of a domain that it has started than of one that it has found again.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

from scripts.benchmarks.client import Client, percentile, request
from scripts.benchmarks.lab import Lab, say, until


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--sizes", default="10,50,200", help="numbers of machines (default: 10,50,200)")
    parser.add_argument("--calls", type=int, default=300, help="calls per size (default: 300)")


def run(options: argparse.Namespace) -> dict[str, Any]:
    result: dict[str, Any] = {}
    with Lab() as lab:
        have = 0
        for size in map(int, options.sizes.split(",")):
            say(f"Booting up to {size} empty guests")
            lab.boot(size - have, memory=16, paused=True)
            have = size
            until(lambda: not any(lab.status()["owners"].values()), "the daemon to settle")
            result[str(size)] = _measure(lab, options.calls)
            say(f"  {result[str(size)]}")
        lab.reexec()
        until(lambda: not any(lab.status()["owners"].values()), "the daemon to settle")
        result["after_reexec"] = _measure(lab, options.calls)
        say(f"  after a re-exec: {result['after_reexec']}")
    return result


def _measure(lab: Lab, calls: int) -> dict[str, Any]:
    client, sent = Client(lab.port, keep_alive=True), request("getAllVmStats", keep_alive=True)
    size = len(client.exchange(sent))
    took = []
    cpu, begun = lab.cpu_seconds(), time.monotonic()
    for _ in range(calls):
        start = time.perf_counter()
        client.exchange(sent)
        took.append((time.perf_counter() - start) * 1000)
        time.sleep(0.01)
    share = (lab.cpu_seconds() - cpu) / (time.monotonic() - begun)
    return {
        "p50_ms": round(percentile(took, 0.5), 2),
        "p99_ms": round(percentile(took, 0.99), 2),
        "answer_kib": size // 1024,
        "cpu_share": round(share, 3),
        "rss_mib": lab.counts()["rss_kib"] // 1024,
    }
