"""A kill at every change that a task makes: afterwards it has happened entirely, or not at all.

While a task runs, its world is photographed right before every change to a file of storage: what a kill at that moment
would leave. From each photograph a daemon starts cold: once with its checkpoints, and once as another host that knows nothing
but what is in the master domain.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.drivers.storage.images_kinds import CHANGES, KINDS, UNCHANGING, WEB, prepared
from tests.drivers.storage.images_stand import facts, is_clean
from tests.drivers.storage.tasks_stand import PATIENCE, Farm
from tests.drivers.storage.web import serving
from tests.until import until

OF_THIS_HOST = ("stream",)
"""No other host knows of them, and what they leave in the way of a `.part` is overwritten by the next of the same volume."""


@pytest.fixture(scope="module", autouse=True)
def web() -> Iterator[None]:
    with serving() as WEB[0]:
        yield


class Photographer:
    """Keeps what a kill would leave at each moment that it is called."""

    def __init__(self, farm: Farm, album: Path) -> None:
        self.album = album
        self.photos: list[Path] = []
        self._base = farm.base
        self._lock = threading.Lock()
        for remote in farm.local.remotes.values():
            remote.before = self.before
        start = farm.tasks._engine.works.start

        def started(*args: Any, **options: Any) -> None:
            self.take()
            start(*args, **options)
            if not {"resize", "-u"} & set(
                args[2]
            ):  # a copy of a file that is written in place meanwhile is no photograph
                self.take()

        farm.tasks._engine.works.start = started  # type: ignore[method-assign]

    def before(self, op: str, arguments: dict[str, Any]) -> None:
        # Of the files of a task only the renames count: before one of them they are all under another name.
        if op in CHANGES and (op == "rename" or not arguments.get("path", "").startswith("master/tasks/")):
            self.take()

    def take(self) -> None:
        with self._lock:
            photo = self.album / str(len(self.photos))
            # -a keeps hard links, which templates are made of. Files may vanish under it while a child works.
            subprocess.run(["cp", "-a", self._base, photo], check=False, capture_output=True)
            self.photos.append(photo)


@pytest.fixture
def place() -> Iterator[Path]:
    """Return a directory in memory: every change is forced to the disk, and here it is about the order of changes alone."""
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None) as place:
        yield Path(place)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_killed_at_every_change(place: Path, kind: str) -> None:
    album = place / "album"
    album.mkdir()
    (place / "world").mkdir()
    farm = Farm(place / "world")
    try:
        scene = prepared(farm, kind)
        before = facts(farm.local)
        photographer = Photographer(farm, album)
        farm.done(KINDS[kind](farm, scene))
        for remote in farm.local.remotes.values():
            remote.before = lambda op, arguments: None
        is_clean(farm.local)
        after = facts(farm.local)
    finally:
        farm.close()
    assert (before == after) == (kind in UNCHANGING) and len(photographer.photos) > 4
    outcomes = set()
    # Long tasks do the same to one volume after the other: a share of their moments is enough.
    for number, photo in enumerate(photographer.photos[:: 1 + len(photographer.photos) // 25]):
        # Which of the two is tried alternates, and begins differently from kind to kind.
        knows = (number + len(kind)) % 2 == 0 or kind in OF_THIS_HOST
        outcomes.add(recovered(photo, before, after, knows=knows))
    assert "after" in outcomes or kind in UNCHANGING


def recovered(photo: Path, before: dict[str, str], after: dict[str, str], *, knows: bool) -> str:
    """Start cold from a photograph, and return which of the two states its domains are in; they must be in one."""
    world = photo.with_suffix(".again")
    subprocess.run(["cp", "-a", photo, world], check=True)
    if not knows:
        shutil.rmtree(world / "run")
    farm = Farm(world)
    try:
        until(lambda: not farm.tasks.unfinished(), PATIENCE, f"tasks to end: {farm.tasks.all()}")
        until(lambda: not farm.tasks._engine.active, PATIENCE)
        is_clean(farm.local)
        now = facts(farm.local)
        states = {task.state for task in farm.tasks.all()}
        assert now in (before, after), f"{photo}: {now}"
        if before == after:
            assert states <= {"recovered", "finished"}, farm.tasks.all()
        elif now == before:
            assert states <= {"recovered"}, [task.message for task in farm.tasks.all()]
        elif states:
            assert states == {"finished"}, farm.tasks.all()
        return "before" if now == before else "after"
    finally:
        farm.close()
        shutil.rmtree(world)
