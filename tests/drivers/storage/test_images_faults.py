"""A file system that is full, or cannot be written, at every write of every kind of task.

Nothing of the task stays, it is told as what it is, and once that is over the same goes well. Generated as the kills are: a
clean run counts a task's writes, calls to helpers and children alike, and for each there is a run in which the fault begins
with it. By default for one of them for each kind of task and each fault; for all with VDSMD_FAULTS=all (scripts/test --all).
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.drivers.storage.images_faults import ALL, CODES, World
from tests.drivers.storage.images_kinds import KINDS, UNCHANGING, WEB
from tests.drivers.storage.web import serving

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent.parent.parent
LIMIT = 3000 if ALL else 300
REAL = ("create snapshot", "copy over", "move", "merge into the base", "delete image")


@pytest.fixture(scope="module", autouse=True)
def web() -> Iterator[None]:
    with serving() as WEB[0]:
        yield


@pytest.fixture
def place() -> Iterator[Path]:
    """Return a directory in memory: every change is forced to the disk, and here it is about faults alone."""
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None) as place:
        yield Path(place)


@pytest.mark.timeout(LIMIT)
@pytest.mark.parametrize("kind", KINDS)
def test_full_and_read_only_at_every_write(place: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("drivers.storage.tasks.engine.AGAIN", 0.05)
    world = World(place, kind)
    assert (world.before == world.after) == (kind in UNCHANGING) and world.writes > 2
    for what in CODES:
        for number in world.chosen(what):
            print(f"{kind}: {what} from write {number} of {world.writes} on")
            world.run(what, number)


@pytest.mark.timeout(LIMIT)
@pytest.mark.skipif(os.geteuid() != 0, reason="mounts file systems, which takes root")
def test_mounted_read_only(place: Path) -> None:
    """By the kernel, for some of them: that what stands for it above is what it does."""
    program = [sys.executable, "-m", "tests.drivers.storage.images_readonly", str(place), *REAL]
    run = subprocess.run(
        ["unshare", "-m", "--propagation", "private", *program],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        timeout=LIMIT,
    )
    assert run.returncode == 0, run.stderr
