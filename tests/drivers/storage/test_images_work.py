"""Work that takes long: carried over many re-execs and a crash, stopped, sent and fetched over HTTP, and short of room."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from drivers.storage.tasks import registry
from drivers.storage.tasks.record import Command
from tests.drivers.storage.images_stand import MIB, RAW, Scene, copy, create, digest, facts, is_clean, new_id, path
from tests.drivers.storage.tasks_stand import OTHER, PATIENCE, POOL, SD, Farm
from tests.drivers.storage.web import Server, serving
from tests.until import until

ROOT = Path(__file__).parent.parent.parent.parent


@pytest.fixture
def farm(tmp_path: Path) -> Iterator[Farm]:
    farm = Farm(tmp_path)
    yield farm
    farm.close()


@pytest.fixture
def slowly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have qemu-img copy 4 MiB in a second, so that there is time for things to happen."""
    convert = registry.WORKS["volume.convert"]

    def slow(*args: Any, **fields: Any) -> Command | None:
        command = convert(*args, **fields)
        assert isinstance(command, Command)
        argv = [*command.argv[:2], "-r", "4M", *command.argv[2:]]
        return Command(argv=argv, error=command.error, action=command.action)

    monkeypatch.setitem(registry.WORKS, "volume.convert", slow)


def big(farm: Farm, size: int) -> tuple[str, str]:
    image, volume = new_id(), new_id()
    farm.done(create(farm, image, volume, RAW, size=size))
    Path(path(farm.local, image, volume)).write_bytes(os.urandom(size))
    return image, volume


@pytest.mark.slow
@pytest.mark.usefixtures("slowly")
def test_a_copy_through_twenty_reexecs_and_a_kill(farm: Farm) -> None:
    source, target = big(farm, 48 * MIB), (new_id(), new_id())
    task_id = copy(farm, (SD, *source), (OTHER, *target))
    pids = until(lambda: farm.workers_of(task_id)[1:], PATIENCE)
    seen = [0.0]
    for number in range(20):
        farm.reexec()
        seen.append(farm.tasks.get(task_id).progress)
        if number == 9:
            farm.crash()
            seen.append(farm.tasks.get(task_id).progress)
        if not farm.tasks.get(task_id).is_final:
            assert farm.workers_of(task_id)[1:] == pids
    assert seen[-1] > 0.0
    until(lambda: seen.append(farm.tasks.get(task_id).progress) or farm.tasks.get(task_id).is_final, PATIENCE)  # type: ignore[func-returns-value]
    assert seen == sorted(seen) and seen[-1] == 100.0
    task = farm.done(task_id)
    assert task.run == 1
    assert digest(farm.local, *target, OTHER) == digest(farm.local, *source)
    assert is_clean(farm.local)


@pytest.mark.usefixtures("slowly")
def test_a_copy_that_is_stopped_leaves_nothing(farm: Farm) -> None:
    source = big(farm, 16 * MIB)
    before = facts(farm.local)
    task_id = copy(farm, (SD, *source), (OTHER, new_id(), new_id()))
    pid = until(lambda: farm.workers_of(task_id)[1:], PATIENCE)[0]
    os.kill(pid, signal.SIGSTOP)
    farm.tasks.stop(task_id)
    assert farm.ended(task_id).state == "recovered" and not os.path.exists(f"/proc/{pid}")
    assert facts(farm.local) == before and is_clean(farm.local)


def test_what_was_copied_is_on_the_medium(farm: Farm, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The source may be deleted next, and the power may fail."""
    if shutil.which("strace") is None:
        pytest.skip("needs strace")
    convert, seen = registry.WORKS["volume.convert"], tmp_path / "seen"

    def watched(*args: Any, **fields: Any) -> Command:
        command = convert(*args, **fields)
        assert isinstance(command, Command)
        trace = ["strace", "-f", "-y", "-e", "trace=fsync,fdatasync", "-o", str(seen)]
        return Command(argv=[*trace, *command.argv], error=command.error, action=command.action)

    monkeypatch.setitem(registry.WORKS, "volume.convert", watched)
    image, volume = new_id(), new_id()
    farm.done(copy(farm, (SD, *big(farm, MIB)), (OTHER, image, volume)))
    assert f"/{image}/{volume}.part>) = 0" in seen.read_text(encoding="utf-8")


@pytest.fixture
def url() -> Iterator[str]:
    with serving() as url:
        yield url


def test_sent_and_fetched(farm: Farm, url: str) -> None:
    scene = Scene(farm)
    leaf = digest(farm.local, scene.image, scene.leaf)
    method: dict[str, object] = {"method": "http", "url": f"{url}/leaf", "headers": {"X-Token": "1"}}
    farm.done(farm.images.upload(POOL, SD, scene.image, "", method))
    assert Server.kept["/leaf"] == Path(path(farm.local, scene.image, scene.leaf)).read_bytes()
    farm.done(farm.images.download(POOL, SD, scene.image, "", method))
    assert digest(farm.local, scene.image, scene.leaf) == leaf and is_clean(farm.local)


@pytest.mark.parametrize("place", ["/leaf?cut", "/nothing", "/foreign", "/misleading"])
def test_what_does_not_come_whole_changes_nothing(farm: Farm, url: str, place: str, tmp_path: Path) -> None:
    scene = Scene(farm)
    before = facts(farm.local)
    leading = tmp_path / "leading"
    subprocess.run(
        ["qemu-img", "create", "-q", "-f", "qcow2", "-u", "-b", "/etc/passwd", "-F", "raw", leading, "1M"], check=True
    )
    Server.kept |= {
        "/leaf": Path(path(farm.local, scene.image, scene.leaf)).read_bytes(),
        "/foreign": b"x" * 5000,
        "/misleading": leading.read_bytes(),
    }
    task = farm.ended(farm.images.download(POOL, SD, scene.image, "", {"url": f"{url}{place}"}))
    assert task.state == "recovered" and task.message
    assert facts(farm.local) == before and is_clean(farm.local)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small file system, which takes root")
def test_a_disk_that_is_too_small(tmp_path: Path) -> None:
    (tmp_path / "repo").mkdir()
    script = 'mount -t tmpfs -o size=3m none "$1/repo" && exec "$2" -m tests.drivers.storage.images_full "$1"'
    run = subprocess.run(
        ["unshare", "-m", "/bin/sh", "-c", script, "sh", str(tmp_path), sys.executable],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        timeout=PATIENCE,
    )
    assert run.returncode == 0, run.stderr
