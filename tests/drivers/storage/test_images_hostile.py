"""What comes in, and what lies on storage, made to lead elsewhere: it is refused, and nothing outside is read or written."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from drivers.errors import DriverError
from drivers.storage.contract import BLANK
from tests.drivers.storage.images_stand import (
    COW,
    MIB,
    RAW,
    SIZE,
    SPARSE,
    Scene,
    copy,
    create,
    facts,
    is_clean,
    new_id,
    path,
)
from tests.drivers.storage.tasks_stand import OTHER, POOL, SD, Farm
from tests.drivers.storage.test_tasks_verbs import Api
from tests.drivers.storage.web import Server, serving
from vdsmd.api.codes import code_of

pytestmark = pytest.mark.slow

SECRET = b"root:x:0:0:" * 1000


class Stems(Scene):
    """A scene with a volume that stems from a raw one."""

    def __init__(self, farm: Farm) -> None:
        super().__init__(farm)
        self.source, self.parent, self.stem, self.child = (new_id(number) for number in (131, 132, 141, 142))
        farm.done(copy(farm, (SD, self.image, self.base), (SD, self.source, self.parent), form=RAW))
        farm.done(create(farm, self.stem, self.child, COW, parent_image=self.source, parent=self.parent))
        for task in farm.tasks.all():
            farm.tasks.clear(task.task_id)


@pytest.fixture(scope="module")
def world() -> Iterator[Path]:
    """Give a place, in memory, in which a scene was made."""
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None) as base:
        world = Path(base) / "world"
        world.mkdir()
        farm = Farm(world)
        SCENES["scene"] = Stems(farm)
        farm.close()
        yield world


SCENES: dict[str, Stems] = {}


@pytest.fixture
def api(world: Path) -> Iterator[Api]:
    """Give a copy of the scene. The place has the same name each time, since data may name it."""
    place = world.with_name("copy")
    subprocess.run(["cp", "-a", world, place], check=True)
    farm = Farm(place)
    try:
        yield Api(farm)
    finally:
        farm.close()
        shutil.rmtree(place)


@pytest.fixture
def scene(world: Path) -> Stems:
    return SCENES["scene"]


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """Return a file that is none of the repository's."""
    file = tmp_path / "outside"
    file.write_bytes(SECRET)
    return file


@pytest.fixture
def url() -> Iterator[str]:
    with serving() as url:
        yield url


def qcow2(file: Path, parent: str = "", form: str = "raw", size: int = SIZE, **options: str) -> bytes:
    stems = ["-u", "-b", parent, "-F", form] if parent else []
    told = ["-o", ",".join(f"{key}={value}" for key, value in options.items())] if options else []
    command = ["qemu-img", "create", "-q", "-f", "qcow2", *told, *stems, str(file), str(size)]
    subprocess.run(command, check=True, capture_output=True)
    return file.read_bytes()


def ended(api: Api, name: str, *args: Any) -> int:
    """Call a verb that begins a task, and return the code with which that was refused or ended."""
    try:
        task = api.farm.ended(api.call(name, *args)["uuid"])
    except DriverError as error:
        return code_of(error)
    status: dict[str, Any] = api.call("getTaskStatus", task.task_id)["taskStatus"]
    assert status["taskResult"] in ("success", "cleanSuccess"), status
    return int(status["code"])


# What comes in for a volume of which the parent is raw

Bring = Callable[[Path, Stems, Path], bytes]
BROUGHT: dict[str, Bring] = {
    "no qcow2": lambda file, scene, outside: b"x" * 4096,
    "no parent": lambda file, scene, outside: qcow2(file),
    "another parent": lambda file, scene, outside: qcow2(file, new_id()),
    "a file of this host": lambda file, scene, outside: qcow2(file, str(outside)),
    "the parent's name elsewhere": lambda file, scene, outside: qcow2(
        file, f"/tmp/{SD}/images/{scene.stem}/{scene.parent}"
    ),
    "the parent's name above": lambda file, scene, outside: qcow2(file, f"../../{scene.parent}"),
    "a parent on the web": lambda file, scene, outside: qcow2(
        file, f"http://127.0.0.1:9/{SD}/images/{scene.stem}/{scene.parent}"
    ),
    "a parent in words": lambda file, scene, outside: qcow2(
        file, f'json:{{"driver":"file","filename":"/x/{SD}/images/{scene.stem}/{scene.parent}'
    ),
    "a parent called qcow2": lambda file, scene, outside: qcow2(file, scene.parent, "qcow2"),
    "a parent of no format": lambda file, scene, outside: qcow2(file, scene.parent).replace(
        b"\xe2\x79\x2a\xca", b"\x12\x34\x56\x78"
    ),
    "data in another file": lambda file, scene, outside: qcow2(
        file, compat="1.1", data_file=str(outside.with_name("data")), data_file_raw="on"
    ),
    "a larger disk": lambda file, scene, outside: qcow2(file, scene.parent, size=2 * SIZE),
    "cut": lambda file, scene, outside: qcow2(file, scene.parent)[:90],
    "more than there is room for": lambda file, scene, outside: qcow2(file, scene.parent) + bytes(67 * MIB),
}


def ways(api: Api, scene: Stems, url: str, file: Path) -> dict[str, Callable[[], int]]:
    """Return the ways in, each to end with a code."""
    where = (POOL, SD, scene.stem, scene.child)
    upload = (SD, POOL, scene.stem, scene.child)
    return {
        "download": lambda: ended(api, "downloadImage", {"method": "http", "url": f"{url}/in"}, *where),
        "rsync": lambda: called(api, "uploadVolume", *upload, str(file), 0, "rsync"),
        "wget": lambda: called(api, "uploadVolume", *upload, f"{url}/in", str(MIB), "wget"),
    }


def called(api: Api, name: str, *args: Any) -> int:
    try:
        assert api.call(name, *args) == {}
    except DriverError as error:
        return code_of(error)
    return 0


@pytest.mark.parametrize("what", BROUGHT)
def test_what_comes_in_and_leads_elsewhere_is_refused(
    api: Api, scene: Stems, url: str, outside: Path, tmp_path: Path, what: str
) -> None:
    file = tmp_path / "in"
    data = BROUGHT[what](tmp_path / "made", scene, outside)
    file.write_bytes(data)
    file.chmod(0o644)
    Server.kept["/in"] = data
    before = facts(api.farm.local)
    known = list(ways(api, scene, url, file).items())
    one = list(BROUGHT).index(what) % len(known)
    for way, bring in known if what == "a file of this host" else [known[one]]:
        assert bring() in (209, 225, 250), way
        assert facts(api.farm.local) == before and is_clean(api.farm.local), way


def test_what_is_right_comes_in_every_way(api: Api, scene: Stems, url: str, tmp_path: Path) -> None:
    """Also in the words of other releases, who name directories."""
    repository = api.farm.base / "repo"
    names = [
        scene.parent,
        f"../{scene.stem}/{scene.parent}",
        f"{repository}/mnt/local/{SD}/images/{scene.stem}/{scene.parent}",
        f"{repository}/{POOL}/{SD}/images/{scene.stem}/{scene.parent}",
    ]
    (repository / POOL).mkdir()
    (repository / POOL / SD).symlink_to(api.farm.local.get(SD).path)
    for name in names:
        file = tmp_path / "in"
        Server.kept["/in"] = qcow2(file, name)
        file.chmod(0o644)
        for way, bring in ways(api, scene, url, file).items():
            assert bring() == 0, (name, way)
            assert Path(path(api.farm.local, scene.stem, scene.child)).read_bytes() == file.read_bytes()
    assert is_clean(api.farm.local)
    assert {task["verb"] for task in api.call("getAllTasks")["tasks"].values()} == {"downloadImage"}


def test_files_of_this_host_that_are_not_for_everybody_stay_here(api: Api, tmp_path: Path) -> None:
    image, volume = new_id(), new_id()
    api.done("createVolume", SD, POOL, image, str(MIB), RAW, SPARSE, 2, volume, "")
    private, link, fifo, large = (tmp_path / name for name in ("private", "link", "fifo", "large"))
    private.write_bytes(SECRET)
    private.chmod(0o640)
    link.symlink_to("/etc/passwd")
    os.mkfifo(fifo, 0o644)
    large.write_bytes(bytes(MIB + 1))
    before = facts(api.farm.local)
    for source in (private, link, fifo, large, tmp_path, "/dev/zero", "/nowhere", "/proc/self/environ"):
        assert called(api, "uploadVolume", SD, POOL, image, volume, str(source), 1) == 250, source
    for source, method in (("etc/passwd", "rsync"), ("host:/x", "rsync"), ("file:///etc/passwd", "wget"), ("/x", "cp")):
        assert called(api, "uploadVolume", SD, POOL, image, volume, source, 1, method) == 1000, source
    assert called(api, "uploadVolume", SD, POOL, image, volume, "/x", -1) == 1000
    assert facts(api.farm.local) == before and is_clean(api.farm.local)
    public = tmp_path / "public"
    public.write_bytes(b"mine" * 1000)
    public.chmod(0o644)
    assert called(api, "uploadVolume", SD, POOL, image, volume, str(public), "4000") == 0
    assert Path(path(api.farm.local, image, volume)).read_bytes() == b"mine" * 1000 + bytes(MIB - 4000)
    assert called(api, "uploadVolume", SD, POOL, image, BLANK, str(public), 1) == 201


def test_a_redirection_leads_to_the_web_alone(api: Api, scene: Stems, url: str) -> None:
    for place in ("file:///etc/passwd", "ftp://127.0.0.1:9/x", "data:,x"):
        Server.moved["/away"] = place
        assert ended(api, "downloadImage", {"url": f"{url}/away"}, POOL, SD, scene.stem, scene.child) == 250


# What lies there

Spoil = Callable[[Path, Stems, Path], None]
"""Given the directory of the image, the scene and a file outside."""


def edit(file: Path, old: str, new: str) -> None:
    text = file.read_text(encoding="utf-8")
    assert old in text
    file.write_text(text.replace(old, new), encoding="utf-8")


def rebase(file: Path, name: str, form: str = "raw") -> None:
    subprocess.run(["qemu-img", "rebase", "-u", "-f", "qcow2", "-b", name, "-F", form, str(file)], check=True)


def relinked(file: Path, target: Path) -> None:
    file.unlink()
    file.symlink_to(target)


def emptied(file: Path) -> None:
    file.unlink()
    file.mkdir()


def moved_out(folder: Path, target: Path) -> None:
    shutil.move(folder, target)
    folder.symlink_to(target)


SPOILT: dict[str, tuple[Spoil, set[int]]] = {
    "a loop": (lambda at, s, out: edit(at / f"{s.base}.meta", f"PUUID={BLANK}", f"PUUID={s.leaf}"), {224, 262}),
    "its own parent": (lambda at, s, out: edit(at / f"{s.base}.meta", f"PUUID={BLANK}", f"PUUID={s.base}"), {262}),
    "a parent that is missing": (lambda at, s, out: (at / f"{s.middle}.meta").unlink(), {262}),
    "data that are missing": (lambda at, s, out: (at / s.base).unlink(), {209}),
    "data that are a link out": (lambda at, s, out: relinked(at / s.base, out), {209}),
    "data that are a directory": (lambda at, s, out: emptied(at / s.base), {209}),
    "data that lead out": (lambda at, s, out: rebase(at / s.leaf, str(out)), {262}),
    "data that lead to the web": (
        lambda at, s, out: rebase(at / s.leaf, f"http://127.0.0.1:9/{SD}/images/{s.image}/{s.middle}", "qcow2"),
        {262},
    ),
    "a raw parent called qcow2": (lambda at, s, out: rebase(at / s.middle, s.base, "qcow2"), {262}),
    "data that are none": (lambda at, s, out: ((at / s.middle).write_bytes(b"x" * 300), None)[1], {209}),
    "no metadata in it": (lambda at, s, out: ((at / f"{s.base}.meta").write_bytes(b""), None)[1], {207}),
    "metadata without a line": (
        lambda at, s, out: edit(at / f"{s.base}.meta", "FORMAT=RAW\n", ""),
        {207},
    ),
    "metadata of another image's directory": (
        lambda at, s, out: edit(at / f"{s.base}.meta", f"IMAGE={s.image}", "IMAGE=../../../x"),
        {207},
    ),
    "a size beyond all": (
        lambda at, s, out: edit(at / f"{s.base}.meta", f"SIZE={SIZE // 512}", "SIZE=" + "9" * 400),
        {207},
    ),
    "a size below none": (lambda at, s, out: edit(at / f"{s.base}.meta", f"SIZE={SIZE // 512}", "SIZE=-1"), {207}),
    "metadata that are a link out": (lambda at, s, out: relinked(at / f"{s.base}.meta", out), {262}),
    "a directory that is a link out": (lambda at, s, out: moved_out(at, out.with_name("image")), {18}),
}
"""How, and the codes that may follow; 18 (EXDEV) stands for those of the verbs that have no better word."""

NO_BETTER_WORD = {205, 206, 207, 208, 209, 222, 250, 251, 252, 253, 256, 264}

USES: dict[str, Callable[[Stems], list[Any]]] = {
    "prepareImage": lambda s: [POOL, SD, s.image, s.leaf],
    "prepareVolume": lambda s: [SD, POOL, s.image, s.leaf],
    "copyImage": lambda s: [SD, POOL, "", s.image, s.leaf, new_id(), new_id(), "", BLANK, 8],
    "moveImage": lambda s: [POOL, SD, OTHER, s.image, "", 1],
    "moveMultipleImages": lambda s: [POOL, SD, OTHER, {s.image: False}, ""],
    "cloneImageStructure": lambda s: [POOL, SD, s.image, OTHER],
    "mergeSnapshots": lambda s: [SD, POOL, "", s.image, s.base, s.leaf],
    "createVolume": lambda s: [SD, POOL, s.image, str(SIZE), COW, SPARSE, 2, new_id(), "", s.image, s.leaf],
    "extendVolumeSize": lambda s: [POOL, SD, s.image, s.leaf, str(2 * SIZE)],
    "uploadImage": lambda s: [{"url": "http://127.0.0.1:9/"}, POOL, SD, s.image, s.leaf],
}


@pytest.mark.parametrize("how", SPOILT)
def test_what_lies_there_and_leads_elsewhere_is_not_followed_and_can_be_deleted(
    api: Api, scene: Stems, outside: Path, how: str
) -> None:
    spoil, codes = SPOILT[how]
    folder = Path(path(api.farm.local, scene.image, ""))
    spoil(folder, scene, outside)
    codes = NO_BETTER_WORD if codes == {18} else codes
    seen = sorted(str(file.relative_to(folder)) for file in folder.iterdir())
    for name, args in USES.items():
        with pytest.raises(DriverError) as caught:
            api.call(name, *args(scene))
        assert code_of(caught.value) in codes, (name, caught.value)
    for name in ("getVolumeInfo", "getVolumeSize", "refreshVolume"):
        # Whatever they answer, they answer in words.
        with contextlib.suppress(DriverError):
            api.call(name, SD, POOL, scene.image, scene.leaf)
    assert scene.image in api.call("getImagesList", SD)["imageslist"]
    assert api.call("getVolumesList", SD, POOL)["uuidlist"]
    assert seen == sorted(str(file.relative_to(folder)) for file in folder.iterdir()) and api.farm.tasks.all() == []
    code = ended(api, "deleteImage", SD, POOL, scene.image, "true", True)
    if how == "a directory that is a link out":  # what it holds is not ours to delete
        assert code == 256 and (outside.with_name("image") / scene.base).exists()
    else:
        assert code == 0 and is_clean(api.farm.local)
    assert outside.read_bytes() == SECRET


@pytest.mark.parametrize("name", ["", ".part", ".meta", ".lease", ".meta.new"])
def test_nothing_is_written_through_a_link_that_is_in_the_way(api: Api, scene: Stems, outside: Path, name: str) -> None:
    volume, before = new_id(), facts(api.farm.local)
    link = Path(path(api.farm.local, scene.image, volume) + name)
    link.symlink_to(outside)
    create = (SD, POOL, scene.image, str(SIZE), COW, SPARSE, 2, volume, "", scene.image, scene.leaf)
    code = ended(api, "createVolume", *create)
    assert outside.read_bytes() == SECRET
    if code:
        assert {key: value for key, value in facts(api.farm.local).items() if volume not in key} == before
    for image, volume, verb, args in (
        (scene.image, scene.leaf, "mergeSnapshots", USES["mergeSnapshots"](scene)),
        (scene.stem, scene.child, "downloadImage", [{"url": f"{url}/in"}, POOL, SD, scene.stem, scene.child]),
    ):
        Path(path(api.farm.local, image, volume) + ".part").symlink_to(outside)
        ended(api, verb, *args)
    assert outside.read_bytes() == SECRET
