"""What a call to the privileged helper costs: pings per second and their latency, with one thread and with four."""

from __future__ import annotations

import argparse
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from scripts.benchmarks.client import percentile
from scripts.benchmarks.lab import ROOT, say
from supervdsm.client import Client


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seconds", type=float, default=3.0, help="per measurement (default: 3)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds; the median counts (default: 3)")


def run(options: argparse.Namespace) -> dict[str, Any]:
    result: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="vb-", dir="/tmp") as folder:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with ours, (Path(folder) / "output").open("wb") as output:
            process = _start(Path(folder), theirs, output)
            client = Client(fd=ours.fileno())
            try:
                client.call("ping")
                for threads in (1, 4):
                    result[f"ping_{threads}"] = _measure(client, threads, options)
            finally:
                client.close()
                process.terminate()
                process.wait()
    return result


def _start(folder: Path, theirs: socket.socket, output: Any) -> subprocess.Popen[bytes]:
    """Start a real helper, with its log, on the other end."""
    config = folder / "vdsm.conf"
    names = ("run_dir", "lib_dir", "log_dir", "repository")
    for name in names:
        (folder / name).mkdir()
    config.write_text("[paths]\n" + "".join(f"{name} = {folder / name}\n" for name in names), encoding="utf-8")
    command = [sys.executable, "-m", "supervdsm", "--config", str(config), "--fd", str(theirs.fileno())]
    with theirs:
        return subprocess.Popen(
            command, cwd=ROOT, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )


def _measure(client: Client, threads: int, options: argparse.Namespace) -> dict[str, float]:
    rates, took = [], []
    for _ in range(options.rounds):
        rate, sample = _hammer(client, threads, options.seconds)
        say(f"  ping, {threads} threads: {rate:.0f} calls a second")
        rates.append(rate)
        took += sample
    return {
        "per_second": round(sorted(rates)[len(rates) // 2]),
        "p50_ms": round(percentile(took, 0.5) * 1000, 3),
        "p99_ms": round(percentile(took, 0.99) * 1000, 3),
    }


def _hammer(client: Client, threads: int, seconds: float) -> tuple[float, list[float]]:
    """Return calls per second of all threads together, and each call's seconds."""
    took: list[float] = []
    running = [threading.Thread(target=_ping(client, seconds, took.append)) for _ in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    return len(took) / seconds, took


def _ping(client: Client, seconds: float, note: Callable[[float], None]) -> Callable[[], None]:
    def work() -> None:
        last = time.perf_counter()
        end = last + seconds
        while last < end:
            client.call("ping")
            now = time.perf_counter()
            note(now - last)
            last = now

    return work
