"""A storage domain that stops answering: what it costs other verbs, how it is told, and how all is well again afterwards.

The file system is one that hangs on demand, as NFS does when its server has gone (`tests.drivers.storage.hangfs`).
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from scripts.benchmarks.client import Client, percentile
from scripts.benchmarks.lab import ROOT, Lab, say, until
from scripts.benchmarks.place import BLANK, LOCALFS, MIB, VERSION, Place, pool

ROUNDS = 300
CALLERS = 4
PATIENCE = 10
"""Seconds that a call on a domain may take (`process_pool_timeout`), here."""
CHECKED = 2
"""Seconds between two checks of a domain."""


def measure() -> dict[str, Any]:
    base = Path(tempfile.mkdtemp(prefix="vb-", dir="/tmp"))
    irs = {"process_pool_timeout": PATIENCE, "sd_health_check_delay": CHECKED}
    try:
        with hanging(base) as switch, Lab(irs=irs) as lab, pool(lab, base) as place:
            stuck = str(uuid.uuid4())
            _add_domain(place, stuck, base / "shown")
            (vm,) = lab.boot(1, memory=16, paused=True)
            return _measured(place, stuck, vm, switch)
    finally:
        shutil.rmtree(base)


@contextmanager
def hanging(base: Path) -> Iterator[Path]:
    """Mount such a file system at `shown`, and give the file while whose existence it hangs."""
    backing, shown, switch = base / "backing", base / "shown", base / "switch"
    backing.mkdir()
    shown.mkdir()
    command = [sys.executable, "-m", "tests.drivers.storage.hangfs", *map(str, (backing, shown, switch))]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, cwd=ROOT)
    try:
        until(lambda: str(shown) in Path("/proc/self/mounts").read_text(encoding="utf-8"), "the file system")
        yield switch
    finally:
        switch.unlink(missing_ok=True)
        subprocess.run(["umount", "-l", shown], check=False)
        process.kill()
        process.wait(60)


def _add_domain(place: Place, uuid_: str, path: Path) -> None:
    must = place.client.must
    must("connectStorageServer", LOCALFS, BLANK, [{"id": str(uuid.uuid4()), "connection": str(path)}])
    must("createStorageDomain", LOCALFS, uuid_, "stuck", str(path), 1, VERSION)
    must("startMonitoringDomain", uuid_, 1)
    until(lambda: _is_valid(place, uuid_), "it to be seen")


def _is_valid(place: Place, uuid_: str) -> bool:
    return bool(place.client.must("repoStats")[uuid_]["valid"])


def _measured(place: Place, stuck: str, vm: str, switch: Path) -> dict[str, Any]:
    calls = _calls(place, vm)
    before = _timed(calls)
    switch.touch()
    begun = time.monotonic()
    with _callers(place, stuck) as answers:
        until(lambda: not _is_valid(place, stuck), "its silence to be told", pause=0.05)
        told = time.monotonic() - begun
        say(f"  told after {told:.1f} s")
        during = _timed(calls)
        until(lambda: len(answers) >= CALLERS, "the callers to be answered", pause=0.05)
        outcome = place.lab.reexec()
        until(lambda: place.lab.client.must("getVmStats", vm), "the machine")
        during_too = _timed(calls)
    switch.unlink()
    begun = time.monotonic()
    until(lambda: _is_valid(place, stuck), "it to be valid again", pause=0.05)
    valid = time.monotonic() - begun
    until(lambda: not place.client.call("getStorageDomainStats", stuck)["status"]["code"], "it to answer", pause=0.05)
    answered = time.monotonic() - begun
    return {
        "call_may_take_s": PATIENCE,
        "checked_every_s": CHECKED,
        "told_after_s": round(told, 1),
        "p99_ms": {name: [before[name], during[name], during_too[name]] for name in calls},
        "callers_of_the_stuck_one": {
            "answers": len(answers),
            "codes": sorted({code for code, _ in answers}),
            "longest_s": round(max(took for _, took in answers), 1),
        },
        "reexec_meanwhile": {"pause_ms": round(outcome["pause_ms"]), "steps_ms": outcome["steps"]},
        "valid_again_after_s": round(valid, 1),
        "answers_again_after_s": round(answered, 1),
    }


def _calls(place: Place, vm: str) -> dict[str, Callable[[], object]]:
    must = place.client.must
    image, volume = place.make(MIB)
    return {
        "ping": lambda: must("ping"),
        "list": lambda: must("list"),
        "getVmStats": lambda: must("getVmStats", vm),
        "repoStats": lambda: must("repoStats"),
        "getVdsStats": lambda: must("getVdsStats"),
        "getStorageDomainStats (other)": lambda: must("getStorageDomainStats", place.sd),
        "getVolumesList (other)": lambda: must("getVolumesList", place.sd, place.pool),
        "getVolumeInfo (other)": lambda: must("getVolumeInfo", place.sd, place.pool, image, volume),
        "createVolume and deleteImage to their ends (other)": lambda: place.delete([place.make(MIB)[0]]),
    }


def _timed(calls: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Return the 99th percentile of each verb, in milliseconds; they take turns."""
    took: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(ROUNDS):
        for name, call in calls.items():
            begun = time.perf_counter()
            call()
            took[name].append((time.perf_counter() - begun) * 1000)
    return {name: round(percentile(values, 0.99), 1) for name, values in took.items()}


@contextmanager
def _callers(place: Place, stuck: str) -> Iterator[list[tuple[int, float]]]:
    """Have clients ask the domain in a loop; give the codes they were answered with, and the seconds that took."""
    answers: list[tuple[int, float]] = []
    over = threading.Event()

    def ask() -> None:
        while not over.is_set():
            begun = time.monotonic()
            try:
                code = Client(place.port).call("getStorageDomainStats", stuck)["status"]["code"]
            except OSError:
                code = -1  # lost
            answers.append((code, time.monotonic() - begun))

    threads = [threading.Thread(target=ask) for _ in range(CALLERS)]
    for thread in threads:
        thread.start()
    try:
        yield answers
    finally:
        over.set()
        for thread in threads:
            thread.join()
