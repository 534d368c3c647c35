"""Every id of every verb about images, volumes and tasks, with what is no id: refused by its code, and nothing is touched."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from drivers.errors import DriverError
from drivers.storage.contract import BLANK
from tests.drivers.storage.images_stand import COW, RAW, SPARSE, Scene, new_id
from tests.drivers.storage.tasks_stand import OTHER, POOL, SD, Farm
from tests.drivers.storage.test_tasks_verbs import VERBS, Api
from vdsmd.api.codes import code_of
from vdsmd.api.contract import verbs

pytestmark = pytest.mark.slow

WRONG = ("../../../victim", "..", ".", "x", "/etc/passwd", "\u00e4", "%s/..", "../%s", "%s/", " %s", "%s\n", "{%s}")
"""`%s`: the id that belongs there."""
IGNORED = ("vmUUID",)
SPM_ONLY = {name for name in VERBS if verbs()[name].spm}


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    farm = Farm(tmp_path_factory.mktemp("ids"))
    yield Api(farm)
    farm.close()


@pytest.fixture(scope="module")
def scene(api: Api) -> Scene:
    return Scene(api.farm)


def arguments(name: str, scene: Scene) -> list[Any]:
    """Return arguments with which the verb would succeed."""
    known: dict[str, Any] = {
        "sdUUID": SD,
        "spUUID": POOL,
        "srcDomUUID": SD,
        "dstDomUUID": OTHER,
        "dstSdUUID": OTHER,
        "taskId": new_id(),
        "imgUUID": scene.image,
        "volUUID": scene.leaf,
        "leafUUID": scene.leaf,
        "vmUUID": new_id(),
        "srcImgUUID": scene.image,
        "srcVolUUID": scene.leaf,
        "dstImgUUID": new_id(),
        "dstVolUUID": new_id(),
        "ancestor": scene.base,
        "successor": scene.leaf,
        "tmpVolUUID": scene.leaf,
        "volumes": [scene.leaf],
        "size": "4194304",
        "newSize": "4194304",
        "volFormat": COW,
        "preallocate": SPARSE,
        "diskType": 2,
        "desc": "",
        "description": "",
        "legality": "LEGAL",
        "op": 1,
        "imgDict": {scene.image: False},
        "syncType": "ALL",
        "methodArgs": {"url": "http://127.0.0.1:1/"},
        "srcPath": "/etc/hostname",
        "rw": True,
        "method": "rsync",
        "volType": 8,
        "force": False,
        "postZero": False,
        "isShuttingDown": False,
        "allowIllegal": False,
    }
    if name == "createVolume":
        known |= {"imgUUID": scene.image, "volUUID": new_id(), "initialSize": 0}
    if name == "copyImage":
        known |= {"volFormat": RAW}
    return [known[parameter.name] for parameter in verbs()[name].parameters if parameter.type != "ignored"]


def world(base: Path) -> dict[str, tuple[int, int]]:
    """Return all files there are, but for what the daemon writes down for itself."""
    found = {}
    for folder, folders, files in os.walk(base):
        if Path(folder) == base:
            folders.remove("run")
        for name in [*files, *folders]:
            told = os.lstat(f"{folder}/{name}")
            found[f"{folder}/{name}"] = (told.st_size, told.st_mtime_ns)
    return found


def allowed(name: str, parameter: str) -> set[int]:
    """Return the codes with which what is no id may be refused."""
    match parameter:
        case "taskId":
            return {401}
        case "spUUID":
            return {1000}
        case "sdUUID" | "srcDomUUID" | "dstDomUUID" | "dstSdUUID":
            return {358}
    return {1000}


CASES = [
    (name, index, parameter.name)
    for name in VERBS
    for index, parameter in enumerate(verbs()[name].parameters)
    if "uuid" in parameter.type or parameter.name == "imgDict"
]


@pytest.mark.parametrize(("name", "index", "parameter"), CASES)
def test_what_is_no_id(api: Api, scene: Scene, name: str, index: int, parameter: str) -> None:
    if parameter in IGNORED or (parameter == "spUUID" and name not in SPM_ONLY):
        return
    before = world(api.farm.base)
    for wrong in WRONG:
        given = arguments(name, scene)
        right = given[index]
        first = next(iter(right)) if isinstance(right, list | dict) else right
        bad = wrong.replace("%s", str(first))
        given[index] = [bad] if isinstance(right, list) else {bad: False} if isinstance(right, dict) else bad
        with pytest.raises(DriverError) as caught:
            api.call(name, *given)
        assert code_of(caught.value) in allowed(name, parameter), (wrong, caught.value)
    for other in (7, True, 1.5, ["x"], {"x": "y"}):
        given = arguments(name, scene)
        given[index] = other
        with pytest.raises(DriverError) as caught:
            api.call(name, *given)
        assert code_of(caught.value) in (1000, 91), (other, caught.value)
    assert world(api.farm.base) == before and api.farm.tasks.all() == []


def test_ids_that_are_no_ones(api: Api, scene: Scene) -> None:
    """Right in their form, and unknown: each has its own code."""
    before = world(api.farm.base)
    for name, index, parameter in CASES:
        if parameter not in ("imgUUID", "volUUID", "sdUUID", "srcDomUUID", "srcImgUUID", "srcVolUUID", "ancestor"):
            continue
        given = arguments(name, scene)
        given[index] = new_id()
        if name == "createVolume" and parameter in ("imgUUID", "volUUID"):
            continue
        if parameter == "volUUID" and name.startswith("teardown"):
            continue
        try:
            api.call(name, *given)
        except DriverError as error:
            expected = {"sdUUID": {358}, "srcDomUUID": {358}}.get(parameter, {201, 268, 1000})
            assert code_of(error) in expected, (name, parameter, error)
        else:
            assert name == "teardownImage", (name, parameter)
    assert world(api.farm.base) == before and api.farm.tasks.all() == []


def test_the_blank_id_is_no_volume(api: Api, scene: Scene) -> None:
    assert {
        code_of(error)
        for name in ("getVolumeInfo", "getVolumePath", "getVolumeSize", "refreshVolume")
        for error in [_refusal(api, name, SD, POOL, scene.image, BLANK)]
    } == {201}


def _refusal(api: Api, name: str, *args: Any) -> DriverError:
    with pytest.raises(DriverError) as caught:
        api.call(name, *args)
    return caught.value
