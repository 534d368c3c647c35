"""One copy through many re-execs and a SIGKILL of the daemon: same bytes, one process, and progress that only ever grows?"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import threading
import time
from contextlib import AbstractContextManager
from pathlib import Path
from statistics import median
from typing import Any

from scripts.benchmarks.client import Client
from scripts.benchmarks.lab import say, until
from scripts.benchmarks.place import MIB, Place, fill

RE_EXECS = 20
SECONDS = 60.0
"""How long the whole copy is made to take."""


_SLOWLY = """#!/bin/sh
[ "$1" = convert ] || exec {real} "$@"
shift
exec {real} convert -r {rate} "$@"
"""


def slowly(base: Path, mib: int, seconds: float = SECONDS) -> list[str]:
    """Return what starts a daemon (of root) for whose children so large a copy takes so long: a launcher for `Lab`."""
    real, wrapper = base / "bin" / "qemu-img", base / "slowly"
    real.parent.mkdir()
    shutil.copy("/usr/bin/qemu-img", real)
    wrapper.write_text(_SLOWLY.format(real=real, rate=int(mib * MIB / seconds)), encoding="utf-8")
    wrapper.chmod(0o755)
    mount = 'mount --bind "$1" /usr/bin/qemu-img && shift && exec "$@"'
    return ["unshare", "--mount", "--propagation", "private", "/bin/sh", "-c", mount, "sh", str(wrapper)]


def endure(place: Place, mib: int, re_execs: int = RE_EXECS) -> dict[str, Any]:
    """Have an image copied: half of the re-execs in the first half of it, then SIGKILL, which ends what works under the lease,
    and the others while it is copied anew by the next SPM. Return what was seen. Raises RuntimeError when the copy fails."""
    say(f"Writing {mib} MiB")
    source = place.make(mib * MIB)
    fill(place.file(*source), mib)
    image, volume, task = place.copy(source)
    part = Path(f"{place.file(image, volume)}.part")
    watcher = Watcher(place, task, part)
    pauses: list[float] = []
    processes: list[set[int]] = []
    with watcher:
        first = Stretch(place, part, mib)
        pauses += first.reexec(re_execs // 2, 0.5)
        killed, seen = _kill(place, watcher, first.pid, task)
        processes.append(seen)
        pauses += Stretch(place, part, mib).reexec(re_execs - re_execs // 2, 1.0)
        until(lambda: watcher.told[-1] == 100, "the copy to end", 1200, pause=0.05)
        processes.append(watcher.seen())
    place.finished([task])
    return {
        "re_execs": len(pauses),
        "pause_ms": {"median": round(median(pauses)), "worst": round(max(pauses))},
        "qemu_img_processes": [len(seen) for seen in processes],
        "kill": killed,
        "progress": watcher.told[:: max(1, len(watcher.told) // 40)],
        "progress_went_back": sum(
            after < before for before, after in zip(watcher.told, watcher.told[1:], strict=False)
        ),
        "asked": len(watcher.told),
        "answers_lost": watcher.lost,
        "same_bytes": subprocess.run(["cmp", place.file(*source), place.file(image, volume)], check=False).returncode
        == 0,
        "legality": place.client.must("getVolumeInfo", place.sd, place.pool, image, volume)["info"]["legality"],
        "left_over": sorted(
            path.name for path in part.parent.iterdir() if not path.name.startswith(volume) or path == part
        ),
    }


def _kill(place: Place, watcher: Watcher, pid: int, task: str) -> tuple[dict[str, Any], set[int]]:
    """Kill the daemon in the middle of the copy, start it again, and make it the SPM once more. Return what was seen, and the
    processes that had copied until then."""
    lab, told = place.lab, watcher.told[-1]
    with watcher.pausing():
        begun = time.monotonic()
        lab.kill()
        until(lambda: not os.path.exists(f"/proc/{pid}"), "what worked under the lease to end")
        ended, processes = time.monotonic() - begun, watcher.seen()
        lab.start()
        place.again()
    role = place.client.must("getSpmStatus", place.pool)["spm_st"]["spmStatus"]
    state = place.client.must("getTaskStatus", task)["taskStatus"]["taskState"]
    place.start_spm()
    say(f"  killed at {told} %; the role was {role} then, the task {state}")
    killed = {"at_percent": told, "work_ended_after_ms": round(ended * 1000), "role_then": role, "task_then": state}
    return killed, processes


class Stretch:
    """A time in which one process copies."""

    def __init__(self, place: Place, part: Path, mib: int) -> None:
        self.pid = until(lambda: next(iter(_copying(part)), None), "qemu-img to copy", 60) or 0
        self._place = place
        self._whole = mib * MIB

    def reexec(self, count: int, share: float) -> list[float]:
        """Re-exec so many times, evenly until so large a share is copied; return the pauses in ms."""
        pauses = []
        for number in range(1, count + 1):
            self._wait_for(share * number / (count + 1))
            pauses.append(float(self._place.lab.reexec()["pause_ms"]))
            say(f"  re-executed at {100 * self._written() / self._whole:.0f} % of what this process copies")
        return pauses

    def _wait_for(self, share: float) -> None:
        until(lambda: self._written() >= self._whole * share, "the copy to go on", 1200, pause=0.01)

    def _written(self) -> int:
        """Return how many bytes it has written; all of them when it has ended."""
        try:
            told = Path(f"/proc/{self.pid}/io").read_text(encoding="ascii")
        except OSError:
            return self._whole
        return int(dict(line.split(": ") for line in told.splitlines())["wchar"])


class Watcher:
    """Asks how far the task is all the time, and looks who works for it. A context."""

    def __init__(self, place: Place, task: str, part: Path) -> None:
        self.told: list[int] = [0]
        self.lost = 0
        self._place, self._task, self._part = place, task, part
        self._processes: set[int] = set()
        self._over = threading.Event()
        self._lock = threading.RLock()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def pausing(self) -> AbstractContextManager[Any]:
        """Ask nothing inside of this context."""
        return self._lock

    def seen(self) -> set[int]:
        """Return the processes that copied since this was asked before."""
        with self._lock:
            seen, self._processes = self._processes, set()
        return seen

    def _watch(self) -> None:
        while not self._over.wait(0.05):
            with self._lock:
                self._look()

    def _look(self) -> None:
        self._processes |= _copying(self._part)
        try:
            status = Client(self._place.lab.port).must("getTaskStatus", self._task)["taskStatus"]
        except OSError:
            self.lost += 1
            return
        percent = re.search(r"(\d+) %", status["message"])
        if status["taskState"] == "finished":
            self.told.append(100)
        elif percent is not None:
            self.told.append(int(percent[1]))


def _copying(part: Path) -> set[int]:
    """Return the pids of all qemu-img that write this file, whoever started them. They know it by the daemon's own path."""
    name = f"/{part.parent.name}/{part.name}".encode()
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().rstrip(b"\0").split(b"\0")
            except OSError:
                continue
            if words[0].endswith(b"qemu-img") and words[-1].endswith(name):
                found.add(int(entry.name))
    return found
