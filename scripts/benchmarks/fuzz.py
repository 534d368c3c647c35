"""Coverage-guided damage to all that is decoded: documents, calls, the event journal, the configuration.

What is found is told as the shortest bytes that bring it about; `scripts/benchmarks/fuzztargets.py` has what is tried. The
coverage is that of Python code: JSON and XML themselves are parsed in C, and guided by a dictionary.

    .venv/bin/pip install '.[fuzz]'     installs the fuzzer (atheris)
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from scripts.benchmarks.lab import ROOT, say

TARGETS = ("document", "call", "journal", "configuration")
MISSING = "atheris, the fuzzer, is not installed here. Install it with: .venv/bin/pip install '.[fuzz]'"


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seconds", type=float, default=60.0, help="in all (default: 60)")
    parser.add_argument("--target", choices=TARGETS, action="append", help="only this one (may be repeated)")


def run(options: argparse.Namespace) -> dict[str, Any]:
    if importlib.util.find_spec("atheris") is None:
        raise SystemExit(MISSING)
    names = options.target or TARGETS
    begun = time.monotonic()
    targets = {name: _run(name, options.seconds / len(names)) for name in names}
    seconds = time.monotonic() - begun
    executions = sum(told["executions"] for told in targets.values())
    return {
        "seconds": round(seconds, 1),
        "executions": executions,
        "executions_per_second": round(executions / seconds),
        "crashes": [crash for told in targets.values() for crash in told.pop("crashes")],
        "targets": targets,
    }


def _run(name: str, seconds: float) -> dict[str, Any]:
    """Fuzz one target in a process of its own: libFuzzer ends the one that it runs in."""
    # In memory, if there is such a place: files are written for every input.
    base = Path(tempfile.mkdtemp(prefix="vf-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
    kept = base / "kept"
    kept.mkdir()
    try:
        command = [sys.executable, "-m", "scripts.benchmarks.fuzzer", name, str(max(1, round(seconds))), str(base)]
        env = {**os.environ, "PYTHONPATH": str(ROOT)}
        # libFuzzer leaves what has ended it where it runs.
        ended = subprocess.run(
            command, cwd=kept, env=env, capture_output=True, text=True, errors="replace", check=False
        )
        told = _told(name, base, ended)
    finally:
        shutil.rmtree(base, ignore_errors=True)
    say(f"  {name}: {told['executions']} executions, {told['corpus']} of interest, {len(told['crashes'])} crashes")
    return told


def _told(name: str, base: Path, ended: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    executions = re.search(r"^stat::number_of_executed_units: *(\d+)", ended.stderr, re.MULTILINE)
    crashes = [json.loads(path.read_text()) for path in sorted(base.glob("found-*.json"))]
    # What ends the process itself (no memory, no end) is kept by libFuzzer.
    crashes += [
        {"error": path.name.partition("-")[0], "place": "", "hex": path.read_bytes().hex()}
        for path in sorted((base / "kept").iterdir())
    ]
    if executions is None and not crashes:
        raise RuntimeError(f"the fuzzer failed on {name}:\n{ended.stderr[-2000:]}")
    return {
        "executions": int(executions[1]) if executions else 0,
        "corpus": len(list((base / "corpus").iterdir())),
        "crashes": [{"target": name, **crash} for crash in crashes],
    }
