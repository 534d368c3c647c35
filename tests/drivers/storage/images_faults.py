"""Faults of a file system that begin with a certain write of a task and last until they are healed; what must come of it."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import threading
import zlib
from pathlib import Path
from typing import Any

from drivers.storage.tasks.contract import State
from drivers.storage.tasks.record import Task
from tests.drivers.storage.images_kinds import CHANGES, KINDS, prepare
from tests.drivers.storage.images_stand import Scene, facts, is_clean
from tests.drivers.storage.tasks_stand import PATIENCE, Farm
from tests.until import until

ALL = os.environ.get("VDSMD_FAULTS") == "all"
NEED_ROOM = {"write", "create", "patch", "truncate", "make_directory", "link"}
FAULTS = {"full": errno.ENOSPC, "read-only": errno.EROFS}
CODES = {
    "full": {"NoSpaceLeftOnDomain"},
    # There is no word for it alone: those of what did not go.
    "read-only": {
        *("VolumeCreationError", "CannotDeleteVolume", "ImageDeleteError", "VolumeExtendingError", "VolumeCopyError"),
        *("TemplateCreationError", "CopyImageError", "MoveImageError", "MultipleMoveImageError", "MergeSnapshotsError"),
        *("CannotSparsifyVolume", "ImagesActionError", "VolumesZeroingError"),
    },
}
CHILD = """
case "$1" in *.part) head -c 5000 /dev/zero >"$1";; esac
echo "$2" >&2
exit 1
"""
"""A program that meets the fault when it has begun to write."""


class Fault:
    """Begins with the n-th write (0: never) and lasts. `writes` counts them."""

    def __init__(self, farm: Farm, what: str, number: int) -> None:
        self.writes = 0
        self.struck = False
        self._number = OSError(FAULTS[what], os.strerror(FAULTS[what]))
        self._what = what
        self._at = number
        self._lock = threading.Lock()
        for remote in farm.local.remotes.values():
            remote.before = self.before
        self._works = farm.tasks._engine.works
        self._start = self._works.start
        self._works.start = self.start  # type: ignore[method-assign]

    def heal(self) -> None:
        with self._lock:
            self.struck, self._at = False, 0

    def before(self, op: str, arguments: dict[str, Any]) -> None:
        if op not in CHANGES:
            return
        # What a task's file is made of is one write, as it is for others.
        inner = arguments.get("path", "").startswith("master/tasks/") and op not in ("make_directory", "remove_tree")
        if self._strikes(counts=not inner):
            self.refuse(op, arguments)

    def refuse(self, op: str, arguments: dict[str, Any]) -> None:
        if self._what != "full" or op in NEED_ROOM:
            raise OSError(self._number.errno, self._number.strerror, arguments.get("path"))

    def start(self, task_id: str, run: int, argv: list[str], **options: Any) -> None:
        if self._strikes(counts=True):
            argv = self.refused(argv)
        self._start(task_id, run, argv, **options)

    def refused(self, argv: list[str]) -> list[str]:
        """Return what stands for a program that meets the fault."""
        target = next((word for word in reversed(argv) if "/images/" in word), "")
        return ["/bin/sh", "-c", CHILD, "sh", target, str(self._number.strerror)]

    def _strikes(self, *, counts: bool) -> bool:
        with self._lock:
            self.writes += counts
            if not self.struck and self._at and self.writes >= self._at:
                self.struck = True
                self.strike()
            return self.struck

    def strike(self) -> None:
        """It begins."""


class World:
    """A prepared scene, of which each run has a copy in the same place; and what it is like after a task that goes well."""

    fault: type[Fault] = Fault

    def __init__(self, place: Path, kind: str) -> None:
        self.kind = kind
        self._place, self._origin = place / "world", place / "origin"
        self._place.mkdir()
        farm = Farm(self._place)
        try:
            self.scene = Scene(farm)
            prepare(farm, self.scene, kind)
            self.before = facts(farm.local)
        finally:
            farm.close()
        self._place.rename(self._origin)
        farm = self.copy()
        try:
            fault = self.fault(farm, "full", 0)
            farm.done(KINDS[kind](farm, self.scene))
            assert is_clean(farm.local)
            self.after, self.writes = facts(farm.local), fault.writes
        finally:
            self.drop(farm)

    def copy(self) -> Farm:
        subprocess.run(["cp", "-a", self._origin, self._place], check=True)
        return Farm(self._place)

    def drop(self, farm: Farm) -> None:
        farm.close()
        self.remove()

    def remove(self) -> None:
        shutil.rmtree(self._place)

    def chosen(self, what: str) -> list[int]:
        every = range(1, self.writes + 1)
        if ALL:
            return list(every)
        return [every[zlib.crc32(f"{self.kind} {what}".encode()) % len(every)]]

    def run(self, what: str, number: int) -> None:
        """Have the fault begin with that write of the task, and end when it waits or has ended."""
        farm = self.copy()
        try:
            fault = self.fault(farm, what, number)
            task_id = KINDS[self.kind](farm, self.scene)
            until(lambda: self._waits(farm, task_id), PATIENCE)
            fault.heal()
            self.judge(farm, farm.ended(task_id), CODES[what])
        finally:
            self.drop(farm)

    def _waits(self, farm: Farm, task_id: str) -> bool:
        return farm.tasks.get(task_id).is_final or task_id in farm.tasks._engine._resting

    def judge(self, farm: Farm, task: Task, codes: set[str]) -> None:
        assert is_clean(farm.local)
        now = facts(farm.local)
        if task.state is State.FINISHED:
            assert now == self.after
            return
        assert task.state is State.RECOVERED, task
        assert now == self.before and task.error in codes and task.message, task
        farm.tasks.clear(task.task_id)
        farm.done(KINDS[self.kind](farm, self.scene))
        assert facts(farm.local) == self.after and is_clean(farm.local)
