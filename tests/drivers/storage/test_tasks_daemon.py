"""Tasks in a real daemon: begun after a crash, carried over a re-exec, and told of by the verbs."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from drivers.storage.contract import BLANK
from drivers.storage.tasks.record import Task, TasksRecord
from state.process import boot_id
from state.records import encode, pack
from tests.drivers.storage.images_stand import RAW, SPARSE, new_id
from tests.running import PATIENCE, Running
from tests.until import until

SD = "5d000000-0000-4000-8000-00000000000a"


def domain(running: Running, path: Path) -> None:
    """Have the daemon make a domain in a local directory."""
    path.mkdir(exist_ok=True)
    connection = {"id": new_id(), "connection": str(path)}
    answer = running.must("connectStorageServer", 4, BLANK, [connection])
    assert [status["status"] for status in answer["statuslist"]] == [0]
    running.must("createStorageDomain", 4, SD, "d", str(path), 1, 3)


def checkpoint(running: Running, verb: str, **args: Any) -> str:
    """Leave a task behind as a daemon does that is killed right after it has taken it in. It needs no SPM."""
    task = Task(task_id=new_id(), verb=verb, args=args, created=time.time())
    directory = Path(running.run_dir) / "state" / "checkpoints" / "tasks"
    directory.mkdir(mode=0o700, exist_ok=True)
    (directory / task.task_id).write_bytes(pack(encode(TasksRecord(tasks=[task], boot=boot_id()))))
    return task.task_id


def status(running: Running, task_id: str) -> dict[str, Any]:
    told: dict[str, Any] = running.must("getTaskStatus", task_id)["taskStatus"]
    return told


@pytest.mark.slow
def test_a_daemon_does_its_tasks(daemon: Callable[..., Running], tmp_path: Path) -> None:
    running = daemon()
    domain(running, tmp_path / "local")
    running.kill()
    image, volume = new_id(), new_id()
    made = {
        "form": RAW,
        "allocation": SPARSE,
        "disk_type": 2,
        "description": "",
        "parent_image": BLANK,
        "parent": BLANK,
    }
    good = checkpoint(running, "createVolume", sd=SD, image=image, volume=volume, size=1 << 20, **made)
    bad = checkpoint(running, "deleteImage", sd=SD, image=new_id(), post_zero=False, force=False)
    running = daemon(again=running)
    until(lambda: status(running, good)["taskState"] == status(running, bad)["taskState"] == "finished", PATIENCE)
    assert (status(running, good)["taskResult"], status(running, bad)["taskResult"]) == ("success", "cleanSuccess")
    assert status(running, bad)["code"] == 268
    before = running.must("getAllTasks")["tasks"]
    running.reexec()
    assert running.must("getAllTasks")["tasks"] == before
    assert running.must("getVolumeInfo", SD, BLANK, image, volume)["info"]["legality"] == "LEGAL"
    assert running.must("getVolumesList", SD, BLANK)["uuidlist"] == [volume]
    running.must("clearTask", bad)
    assert running.call("getTaskStatus", bad)["status"]["code"] == 401
    assert running.call("getAllTasksInfo")["status"]["code"] == 654
