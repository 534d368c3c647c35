"""A storage domain in a pool of which a daemon is the SPM: what the benchmarks of storage work on."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from scripts.benchmarks.lab import Lab, until

BLANK = "00000000-0000-0000-0000-000000000000"
COW, RAW, SPARSE, DATA_DISK = 4, 5, 2, 2
LEAF = 8
LOCALFS = 4
VERSION = 3
MIB = 1 << 20
PAUSE = 0.2
"""Seconds between two questions after a copy: to ask more often takes the cores from what copies."""


class Place:
    """A storage domain in a pool of which the daemon is the SPM."""

    def __init__(self, lab: Lab, base: Path) -> None:
        self.base = base
        """A directory for all that is measured, on one file system."""
        self.root = base / "domain"
        self.lab = lab
        self.client, self.port = lab.client, lab.port
        self.sd, self.pool = str(uuid.uuid4()), str(uuid.uuid4())

    def open(self) -> None:
        must, base = self.client.must, str(self.root)
        self.root.mkdir()
        self.connection = {"id": str(uuid.uuid4()), "connection": base}
        must("connectStorageServer", LOCALFS, BLANK, [self.connection])
        must("createStorageDomain", LOCALFS, self.sd, "bench", base, 1, VERSION)
        must("createStoragePool", 0, self.pool, "bench", self.sd, [self.sd], 1)
        must("connectStoragePool", self.pool, 1, "", self.sd, 1)
        self.start_spm()

    def start_spm(self) -> None:
        self.finished([self.client.must("spmStart", self.pool, -1, -1, -1, False, 250, VERSION)["uuid"]])

    def again(self) -> None:
        """The daemon has been started again, and may listen elsewhere."""
        self.client, self.port = self.lab.client, self.lab.port

    def close(self) -> None:
        self.client.must("spmStop", self.pool)
        self.client.must("disconnectStoragePool", self.pool, 1, "")
        self.client.must("disconnectStorageServer", LOCALFS, BLANK, [self.connection])

    def finished(self, tasks: list[str]) -> None:
        """Wait until the tasks have ended, well, and clear them."""
        for task in tasks:
            status = self.end_of(task)
            if status["taskResult"] != "success":
                raise RuntimeError(f"task {task}: {status}")
        for task in tasks:
            self.client.must("clearTask", task)

    def end_of(self, task: str, pause: float = 0.002) -> dict[str, Any]:
        """Wait until the task has ended, asking every `pause` seconds; return its status."""
        status = until(lambda: self._ended(task), "a task to end", pause=pause)
        assert status is not None
        return status

    def when_ended(self, task: str) -> float:
        """Return when the task ended, in seconds since the epoch, however seldom that was asked."""
        return until(lambda: self._journal_of(task), "the journal to tell of it")

    def _journal_of(self, task: str) -> float:
        for path in (self.lab.base / "lib" / "events").glob("*.jsonl"):
            for line in path.read_text(encoding="utf-8").splitlines():
                if "task.ended" in line and task in line:
                    return float(json.loads(line)["time"])
        return 0.0

    def _ended(self, task: str) -> dict[str, Any] | None:
        status: dict[str, Any] = self.client.must("getTaskStatus", task)["taskStatus"]
        return status if status["taskState"] == "finished" else None

    def copy(self, source: tuple[str, str]) -> tuple[str, str, str]:
        """Begin to copy an image; return the new one's ids, and the task."""
        image, volume = str(uuid.uuid4()), str(uuid.uuid4())
        ids = (self.sd, self.pool, BLANK, *source, image, volume)
        return image, volume, self.client.must("copyImage", *ids, "", BLANK, LEAF, RAW, SPARSE)["uuid"]

    def begin(self, size: int, form: int = RAW) -> tuple[str, str, str]:
        """Begin to make a volume in an image of its own; return both ids, and the task."""
        image, volume = str(uuid.uuid4()), str(uuid.uuid4())
        kind = (str(size), form, SPARSE, DATA_DISK)
        task = self.client.must("createVolume", self.sd, self.pool, image, *kind, volume, "", BLANK, BLANK)["uuid"]
        return image, volume, task

    def make(self, size: int) -> tuple[str, str]:
        image, volume, task = self.begin(size)
        self.finished([task])
        return image, volume

    def delete(self, images: list[str]) -> None:
        while images:
            self.finished([self.client.must("deleteImage", self.sd, self.pool, images.pop(), False, False)["uuid"]])

    def file(self, image: str, volume: str) -> Path:
        return self.root / self.sd / "images" / image / volume


def fill(path: Path, mib: int) -> None:
    """Write data without a hole in them, and without a pattern."""
    with path.open("wb") as file:
        for _ in range(mib):
            file.write(os.urandom(MIB))


@contextmanager
def pool(lab: Lab, base: Path) -> Iterator[Place]:
    place = Place(lab, base)
    place.open()
    try:
        yield place
    finally:
        place.close()
