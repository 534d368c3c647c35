"""The verbs of tasks, volumes and images: the exact shapes of their replies, and the codes of their refusals."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from drivers.errors import DriverError
from drivers.storage.contract import BLANK
from drivers.storage.domains.domains import checked_id
from drivers.storage.errors import NoSuchPool
from tests.drivers.storage.images_stand import COW, RAW, SPARSE, new_id
from tests.drivers.storage.tasks_stand import OTHER, PATIENCE, POOL, SD, Farm
from tests.until import until
from vdsmd.api import image, task, volume, wire
from vdsmd.api.codes import code_of
from vdsmd.api.contract import verbs
from vdsmd.api.table import TABLE
from vdsmd.api.wire import convert

pytestmark = pytest.mark.slow

VERBS = [
    name for module in (task, volume, image) for name, verb in TABLE.items() if verb.run.__module__ == module.__name__
]


FOREIGN = "00000002-0002-0002-0002-000000000002"


class Api:
    """Calls verbs as the dispatcher does."""

    def __init__(self, farm: Farm) -> None:
        self.farm = farm
        config = SimpleNamespace(paths=SimpleNamespace(run_dir=str(farm.base / "run")))
        storage = SimpleNamespace(domains=farm.local, pools=self)
        self.daemon: Any = SimpleNamespace(tasks=farm.tasks, storage=storage, config=config)

    def get(self, pool: str) -> Any:
        """Stands for the pools that are connected: there is one more than the one of which this host is the SPM."""
        uuid = checked_id(pool, "spUUID")
        if uuid not in (POOL, FOREIGN):
            raise NoSuchPool(pool=uuid)
        return SimpleNamespace(uuid=uuid)

    def call(self, name: str, *args: Any) -> dict[str, Any]:
        return TABLE[name].run(self.daemon, **convert(TABLE[name], list(args)))

    def code(self, name: str, *args: Any) -> int:
        with pytest.raises(DriverError) as caught:
            self.call(name, *args)
        return code_of(caught.value)

    def done(self, name: str, *args: Any) -> None:
        self.farm.done(self.call(name, *args)["uuid"])


@pytest.fixture
def api(tmp_path: Path) -> Iterator[Api]:
    farm = Farm(tmp_path)
    yield Api(farm)
    farm.close()


def test_a_task_as_clients_see_it(api: Api) -> None:
    gate = threading.Event()
    here = api.farm.local.remotes[SD]

    def wait(op: str, _arguments: dict[str, Any]) -> None:
        if op == "make_directory":
            gate.wait(PATIENCE)

    here.before = wait
    made, volume = new_id(), new_id()
    args = (SD, POOL, made, 4096, RAW, SPARSE, 2, volume, "mine")
    task_id = api.call("createVolume", *args)["uuid"]
    until(lambda: api.farm.tasks.get(task_id).state == "running", PATIENCE)
    status = api.call("getTaskStatus", task_id)["taskStatus"]
    assert status.pop("message")
    assert status == {"taskID": task_id, "taskState": "running", "taskResult": "", "code": 0}
    assert api.code("clearTask", task_id) == 410
    gate.set()
    api.farm.done(task_id)
    assert api.call("getTaskStatus", task_id) == {
        "taskStatus": {
            "taskID": task_id,
            "taskState": "finished",
            "taskResult": "success",
            "code": 0,
            "message": "1 jobs completed successfully",
        }
    }
    info = {"id": task_id, "verb": "createVolume"}
    assert api.call("getTaskInfo", task_id) == {"TaskInfo": info}
    assert api.call("getAllTasksInfo") == {"allTasksInfo": {task_id: info}}
    assert list(api.call("getAllTasksStatuses")["allTasksStatus"]) == [task_id]
    assert api.call("getAllTasks")["tasks"][task_id] == {
        **info,
        "state": "finished",
        "code": 0,
        "message": "1 jobs completed successfully",
        "result": "success",
        "taskResult": "success",
        "tag": "spm",
    }
    assert api.code("stopTask", task_id) == api.code("revertTask", task_id) == 410
    assert api.call("clearTask", task_id) == {} and api.call("getAllTasks") == {"tasks": {}}
    for verb in ("getTaskStatus", "getTaskInfo", "stopTask", "revertTask", "clearTask"):
        assert api.code(verb, task_id) == 401
    assert api.call("getVolumeInfo", SD, POOL, made, volume)["info"]["capacity"] == str(4096 * 512)


def test_a_task_that_failed_has_a_code(api: Api) -> None:
    here = api.farm.local.remotes[SD]

    def full(op: str, arguments: dict[str, Any]) -> None:
        if op == "create" and arguments["path"].startswith("images/"):
            raise OSError(28, "No space left on device")

    here.before = full
    task_id = api.call("createVolume", SD, POOL, new_id(), "4096", RAW, SPARSE, 2, new_id(), "")["uuid"]
    api.farm.ended(task_id)
    status = api.call("getTaskStatus", task_id)["taskStatus"]
    assert (status["taskState"], status["taskResult"], status["code"]) == ("finished", "cleanSuccess", 397)


def test_a_size_is_sectors_or_bytes(api: Api) -> None:
    for size, capacity in ((8, 4096), ("8192", 8192), ("1000", 1024)):
        made, volume = new_id(), new_id()
        api.done("createVolume", SD, POOL, made, size, RAW, SPARSE, 2, volume, "")
        assert api.call("getVolumeInfo", SD, POOL, made, volume)["info"]["capacity"] == str(capacity)
    for wrong in ("many", True, 1.5, "", "-5", 0, -8, str(1 << 63)):
        assert api.code("createVolume", SD, POOL, new_id(), wrong, RAW, SPARSE, 2, new_id(), "") == 1000
    rest = (RAW, SPARSE, 2, new_id(), "", BLANK, BLANK)
    assert api.code("createVolume", SD, POOL, new_id(), 8, *rest, "4096") == 1000
    api.done("createVolume", SD, POOL, new_id(), 8, *rest, 0)


def test_numbers_may_be_digits_and_what_is_none_is_told(api: Api) -> None:
    made, volume = new_id(), new_id()
    api.done("createVolume", SD, POOL, made, "4096", "5", "2", "2", volume, "")
    assert api.call("getVolumeInfo", SD, POOL, made, volume)["info"]["format"] == "RAW"
    for at, wrong, code in ((4, 9, 202), (4, "raw", 1000), (4, True, 1000), (5, 7, 231), (6, 17, 1000), (8, 3, 1000)):
        args: list[Any] = [SD, POOL, new_id(), "4096", RAW, SPARSE, 2, new_id(), ""]
        args[at] = wrong
        assert api.code("createVolume", *args) == code, (at, wrong)
    assert api.code("extendVolumeSize", POOL, SD, made, volume, "-1") == 1000
    assert api.code("extendVolumeSize", POOL, SD, made, volume, "512") == 232
    assert api.code("extendVolumeSize", POOL, SD, made, volume, str(1 << 64)) == 232
    assert api.code("deleteVolume", SD, POOL, made, volume) == 1000
    assert api.code("deleteVolume", SD, POOL, made, [volume], 1) == 1000
    assert api.code("moveImage", POOL, SD, OTHER, made, "", 3) == 1000
    assert api.code("moveMultipleImages", POOL, SD, OTHER, {made: 1}, "") == 1000
    assert api.code("copyImage", SD, POOL, "", made, volume, new_id(), new_id(), "", BLANK, 7) == 1000
    assert api.code("copyImage", SD, POOL, "", made, volume, new_id(), new_id(), "", BLANK, 6, 9) == 202
    assert api.code("volumeSetSize", SD, POOL, made, volume, str(1 << 63)) == 1000
    assert api.code("setVolumeLegality", SD, POOL, made, volume, "MAYBE") == 1000
    assert api.code("setVolumeDescription", SD, POOL, made, volume, "two\nlines") == 1000
    assert api.code("syncImageData", POOL, SD, made, OTHER, "SOME") == 1000
    for method in ({}, {"url": "file:///etc/passwd"}, {"method": "ftp", "url": "http://x/"}, {"url": ["http://x/"]}):
        assert api.code("downloadImage", method, POOL, SD, made) == 1000
        assert api.code("uploadImage", method, POOL, SD, made) == 1000
    assert len(api.farm.tasks.all()) == 1


def test_the_life_of_an_image(api: Api) -> None:
    made, base, leaf = new_id(), new_id(), new_id()
    api.done("createVolume", SD, POOL, made, "1048576", RAW, SPARSE, 2, base, "")
    api.done("createVolume", SD, POOL, made, "1048576", COW, SPARSE, 2, leaf, "", made, base)
    assert api.call("getVolumesList", SD, POOL, made) == {"uuidlist": sorted([base, leaf])}
    assert api.call("getVolumesList", SD, POOL) == {"uuidlist": sorted([base, leaf])}
    assert api.call("getImagesList", SD) == {"imageslist": [made]}
    prepared = api.call("prepareImage", POOL, SD, made, leaf)
    assert api.call("getVolumePath", SD, POOL, made, leaf) == {"path": prepared["path"]}
    assert set(api.call("getVolumeSize", SD, POOL, made, leaf)) == {"apparentsize", "truesize"}
    assert api.call("setVolumeDescription", SD, POOL, made, leaf, "two words") == {}
    assert api.call("setVolumeLegality", SD, POOL, made, leaf, "FAKE") == {}
    info = api.call("getVolumeInfo", SD, POOL, made, leaf)["info"]
    assert (info["description"], info["legality"]) == ("two words", "FAKE")
    assert api.call("refreshVolume", SD, POOL, made, leaf) == {}
    assert api.call("volumeSetSize", SD, POOL, made, leaf, "2097152") == {}
    assert api.call("prepareVolume", SD, POOL, made, leaf) == api.call("teardownVolume", SD, POOL, made, leaf) == {}
    assert api.code("teardownVolume", SD, POOL, made, leaf) == 230
    assert (
        api.code("teardownVolume", SD, POOL, made, new_id())
        == api.code("prepareVolume", SD, POOL, made, new_id())
        == 201
    )
    assert api.call("teardownImage", POOL, SD, made) == {}
    assert api.call("reconcileVolumeChain", POOL, SD, made, leaf) == {"volumes": [base, leaf]}
    api.done("extendVolumeSize", POOL, SD, made, leaf, "4194304")
    api.done("mergeSnapshots", SD, POOL, new_id(), made, base, leaf)
    api.done("deleteImage", SD, POOL, made, "true", True)
    assert api.call("getImagesList", SD) == {"imageslist": []}


def test_without_the_role_and_with_unknown_ids(api: Api) -> None:
    ids = (SD, new_id(), new_id(), new_id())
    for pool, code in ((FOREIGN, 654), (new_id(), 309), ("../x", 1000)):
        assert api.code("createVolume", SD, pool, new_id(), "512", RAW, SPARSE, 2, new_id(), "") == code
        assert api.code("setVolumeDescription", SD, pool, *ids[2:], "x") == code
        assert api.code("setVolumeLegality", SD, pool, *ids[2:], "LEGAL") == code
        assert (
            api.code("deleteImage", SD, pool, new_id()) == api.code("reconcileVolumeChain", pool, SD, *ids[2:]) == code
        )
    assert api.code("deleteImage", SD, POOL, new_id()) == 268
    assert api.code("getVolumeInfo", *ids) == 201
    assert api.code("getVolumeInfo", new_id(), *ids[1:]) == 358
    assert api.code("getVolumeInfo", SD, POOL, "../..", new_id()) == 1000
    api.farm.tasks.spm_stopped(POOL)
    assert api.code("getAllTasksInfo") == api.code("getAllTasksStatuses") == 654
    assert api.call("getAllTasks") == {"tasks": {}}


@pytest.mark.parametrize("name", VERBS)
def test_parameters_are_those_of_the_contract(name: str) -> None:
    known = verbs()[name].parameters
    ours = [parameter.name for parameter in wire.parameters(TABLE[name])]
    expected = [parameter.name for parameter in known if parameter.name != "options"]
    assert ours[: len(expected)] == expected
    assert not TABLE[name].gated and TABLE[name].message == "OK"
