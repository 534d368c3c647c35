"""A kill at every change that a task makes: afterwards it has happened entirely, or not at all.

While a task runs, its world is photographed right before every change to a file of storage: what a kill at that moment
would leave. From each photograph a daemon starts cold: once with its checkpoints, and once as another host that knows nothing
but what is in the master domain.
"""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from drivers.storage.streaming import begin_receiving
from drivers.storage.tasks.engine import Attendance
from tests.drivers.storage.images_stand import COW, PREALLOCATED, RAW, Scene, copy, create, facts, is_clean, new_id
from tests.drivers.storage.tasks_stand import OTHER, PATIENCE, POOL, SD, Farm
from tests.drivers.storage.web import Server, serving
from tests.until import until

CHANGES = {
    *("write", "create", "patch", "truncate", "make_directory", "remove_file", "remove_directory"),
    *("remove_tree", "rename", "link", "change_mode"),
}

Begin = Callable[[Farm, Scene], str]
A, B = new_id(501), new_id(502)

KINDS: dict[str, Begin] = {
    "create raw": lambda farm, scene: create(farm, A, B, RAW),
    "create raw preallocated": lambda farm, scene: create(farm, A, B, RAW, allocation=PREALLOCATED),
    "create cow": lambda farm, scene: create(farm, A, B, COW),
    "create snapshot": lambda farm, scene: create(farm, scene.image, B, COW, parent=scene.leaf),
    "create from template": lambda farm, scene: create(
        farm, A, B, COW, parent_image=scene.template, parent=scene.template_volume
    ),
    "delete leaf": lambda farm, scene: farm.images.delete_volumes(
        POOL, SD, scene.image, [scene.leaf], post_zero=True, force=False
    ),
    "delete all volumes": lambda farm, scene: farm.images.delete_volumes(
        POOL, SD, scene.image, [scene.base, scene.middle, scene.leaf], post_zero=False, force=True
    ),
    "delete image": lambda farm, scene: farm.images.delete(POOL, SD, scene.image, post_zero=True, force=False),
    "delete clone": lambda farm, scene: farm.images.delete(POOL, SD, scene.clone, post_zero=False, force=False),
    "extend raw": lambda farm, scene: farm.images.extend(POOL, SD, scene.clone, scene.clone_volume, 8 << 20),
    "copy": lambda farm, scene: copy(farm, (SD, scene.image, scene.leaf), (SD, A, B)),
    "copy over": lambda farm, scene: copy(
        farm, (SD, scene.clone, scene.clone_volume), (SD, scene.image, scene.base), force=True
    ),
    "copy an image to another domain": lambda farm, scene: farm.images.move(
        POOL, SD, OTHER, scene.image, 1, post_zero=False, force=False
    ),
    "move": lambda farm, scene: farm.images.move(POOL, SD, OTHER, scene.image, 2, post_zero=False, force=False),
    "move two": lambda farm, scene: farm.images.move_many(
        POOL, SD, OTHER, {scene.image: False, scene.clone: False}, force=False
    ),
    "clone structure": lambda farm, scene: farm.images.clone_structure(POOL, SD, OTHER, scene.image),
    "merge into the base": lambda farm, scene: farm.images.merge(
        POOL, SD, scene.image, scene.base, scene.leaf, post_zero=False
    ),
    "merge in the middle": lambda farm, scene: farm.images.merge(
        POOL, SD, scene.image, scene.middle, scene.leaf, post_zero=True
    ),
    "synchronise": lambda farm, scene: farm.images.sync_data(POOL, SD, OTHER, scene.image, "ALL"),
    "sparsify": lambda farm, scene: farm.images.sparsify(POOL, SD, scene.image, scene.leaf, SD, A, B),
    "download": lambda farm, scene: carried(farm, "download"),
    "upload": lambda farm, scene: carried(farm, "upload"),
    "stream": lambda farm, scene: streamed(farm),
}
UNCHANGING = ("upload",)
OF_THIS_HOST = ("stream",)
"""No other host knows of them, and what they leave in the way of a `.part` is overwritten by the next of the same volume."""
WEB = [""]
"""Where a server listens, for the tasks that need one."""


@pytest.fixture(scope="module", autouse=True)
def web() -> Iterator[None]:
    with serving() as WEB[0]:
        yield


def carried(farm: Farm, verb: str) -> str:
    """Begin to fetch something shorter than the volume is, or to send the volume."""
    with_url: dict[str, object] = {"url": f"{WEB[0]}/data"}
    Server.kept["/data"] = b"data" * 5000
    return str(getattr(farm.images, verb)(POOL, SD, A, B, with_url))


def streamed(farm: Farm) -> str:
    """Begin to take in what a client sends, who is done with that already."""
    taken, given = os.pipe()
    os.write(given, b"sent" * 1000)
    os.close(given)
    attendance = Attendance(fds=[taken], ended=lambda task: None)
    return begin_receiving(farm.tasks, (POOL, SD, A, B), 4000, attendance)[0]


PREPARED: dict[str, Begin] = {
    **{kind: lambda farm, scene: create(farm, A, B) for kind in ("download", "upload", "stream", "sparsify")},
    "synchronise": lambda farm, scene: farm.images.clone_structure(POOL, SD, OTHER, scene.image),
    # What stems from a template is moved where that template is.
    "move two": lambda farm, scene: copy(
        farm, (SD, scene.template, scene.template_volume), (OTHER, scene.template, scene.template_volume)
    ),
}
"""What must be there before."""


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

        def started(*args: Any) -> None:
            self.take()
            start(*args)
            if not {"resize", "-u"} & set(
                args[2]
            ):  # a copy of a file that is written in place meanwhile is no photograph
                self.take()

        farm.tasks._engine.works.start = started  # type: ignore[method-assign,assignment]

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


def prepared(farm: Farm, kind: str) -> Scene:
    scene = Scene(farm)
    if kind in PREPARED:
        farm.done(PREPARED[kind](farm, scene))
        farm.tasks.clear(farm.tasks.all()[0].task_id)
    return scene


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


class Full:
    """A disk that is full at the n-th change, and the next time has room again."""

    def __init__(self, farm: Farm, number: int) -> None:
        self.left = number
        self._lock = threading.Lock()
        for remote in farm.local.remotes.values():
            remote.before = self.before

    def before(self, op: str, arguments: dict[str, Any]) -> None:
        with self._lock:
            self.left -= op in CHANGES
            if op in CHANGES and self.left == 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), arguments.get("path"))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["create snapshot", "copy over", "move", "merge into the base"])
def test_full_at_every_change(place: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("drivers.storage.tasks.engine.AGAIN", 0.01)
    (place / "world").mkdir()
    farm = Farm(place / "world")
    try:
        scene = prepared(farm, kind)
        before, number, states = facts(farm.local), 0, set()
    finally:
        farm.close()
    while number < 200:
        number += 3  # every third: which ones differs from kind to kind
        subprocess.run(["cp", "-a", place / "world", place / "again"], check=True)
        farm = Farm(place / "again")
        try:
            full = Full(farm, number)
            task = farm.ended(KINDS[kind](farm, scene))
            is_clean(farm.local)
            states.add(str(task.state))
            if task.state == "recovered":
                assert facts(farm.local) == before and task.error == "NoSpaceLeftOnDomain", task
        finally:
            farm.close()
            shutil.rmtree(place / "again")
        if full.left > 0:
            break
    assert states == {"finished", "recovered"}


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
