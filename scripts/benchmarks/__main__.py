"""The command line of the benchmarks."""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time

from scripts.benchmarks import api, fuzz, isolation, network, recovery, reexec, stats, storage, supervdsm
from scripts.benchmarks.lab import ROOT

BENCHMARKS = {
    "reexec": reexec,
    "recovery": recovery,
    "api": api,
    "stats": stats,
    "isolation": isolation,
    "storage": storage,
    "fuzz": fuzz,
    "network": network,
    "supervdsm": supervdsm,
}


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="scripts/bench", description="Measure the daemon. Figures go to docs/benchmarks.md."
    )
    names = parser.add_subparsers(dest="name", required=True)
    for name, module in BENCHMARKS.items():
        described = (module.__doc__ or "").strip().splitlines()[0]
        module.add_options(names.add_parser(name, help=described, description=described))
    options = parser.parse_args()
    result = BENCHMARKS[options.name].run(options)
    print(json.dumps({"benchmark": options.name, **_where(), **result}))
    return 0


def _where() -> dict[str, object]:
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return {
        "commit": commit.stdout.strip() or "unknown",
        "date": time.strftime("%Y-%m-%d"),
        "python": platform.python_version(),
        "kernel": platform.release(),
        "cpus": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1),
    }


if __name__ == "__main__":
    sys.exit(main())
