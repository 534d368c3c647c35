"""The time to set up networks, to do so again, to report and to remove them, at 1, 20 and 100 of them.

A whole daemon with its helper, in a network namespace of its own; each network has a nic, a bridge and an address.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from typing import Any

from scripts.benchmarks.lab import ROOT, Lab, say

QUIET = {"connectivityCheck": False}
COUNTS = (1, 20, 100)


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rounds", type=int, default=3, help="rounds, of which the best counts (default: 3)")


def run(options: argparse.Namespace) -> dict[str, Any]:
    command = ["unshare", "--net", sys.executable, "-m", "scripts.benchmarks.network", str(options.rounds)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, cwd=ROOT)
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def measure(rounds: int) -> dict[str, Any]:
    """Return the milliseconds of each deed, by the number of networks. In the namespace."""
    _ip("link set lo up")
    for number in range(max(COUNTS)):
        _ip(f"link add em{number} type veth peer name cable{number}")
        _ip(f"link set cable{number} up")
    result: dict[str, Any] = {}
    with Lab(uri="test:///default") as lab:
        lab.client.must("setupNetworks", {"first": {}}, {}, QUIET)  # the helper is started, and imports what it needs
        for count in COUNTS:
            taken = [_round(lab, count) for _ in range(rounds)]
            result[str(count)] = {deed: round(min(each[deed] for each in taken) * 1000, 1) for deed in taken[0]}
            say(f"  {count} networks: {result[str(count)]}")
    few, many = result[str(COUNTS[1])]["set_up"] / COUNTS[1], result[str(COUNTS[2])]["set_up"] / COUNTS[2]
    return {"ms": result, "each_of_100_to_each_of_20": round(many / few, 2)}


def _round(lab: Lab, count: int) -> dict[str, float]:
    networks = {
        f"net{number}": {"nic": f"em{number}", "ipaddr": f"10.9.{number}.1", "netmask": "24", "mtu": 1400}
        for number in range(count)
    }
    removed = {name: {"remove": True} for name in networks}
    return {
        "set_up": _time(lab, "setupNetworks", networks, {}, QUIET),
        "again": _time(lab, "setupNetworks", networks, {}, QUIET),
        "report": _time(lab, "getVdsCapabilities"),
        "remove": _time(lab, "setupNetworks", removed, {}, QUIET),
    }


def _time(lab: Lab, verb: str, *arguments: Any) -> float:
    since = time.perf_counter()
    lab.client.must(verb, *arguments)
    return time.perf_counter() - since


def _ip(command: str) -> None:
    subprocess.run(["ip", *command.split()], check=True)


if __name__ == "__main__":
    print(json.dumps(measure(int(sys.argv[1]))))
