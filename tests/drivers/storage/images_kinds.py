"""Every kind of task on images, as tests begin them, on a scene that has been prepared for them."""

from __future__ import annotations

import os
from collections.abc import Callable

from drivers.storage.images.streaming import begin_receiving
from drivers.storage.tasks.engine import Attendance
from tests.drivers.storage.images_stand import COW, PREALLOCATED, RAW, Scene, copy, create, new_id
from tests.drivers.storage.tasks_stand import OTHER, POOL, SD, Farm
from tests.drivers.storage.web import Server

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
    "extend cow": lambda farm, scene: farm.images.extend(POOL, SD, scene.clone, scene.clone_volume, 8 << 20),
    "extend raw": lambda farm, scene: farm.images.extend(POOL, SD, A, B, 8 << 20),
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
    "copy in": lambda farm, scene: copied_in(farm),
}
UNCHANGING = ("upload",)
WEB = [""]
"""Where a server listens, for the tasks that need one."""


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


def copied_in(farm: Farm) -> str:
    """Begin to copy a file of this host into a volume."""
    file = farm.base / "source"
    file.write_bytes(b"copy" * 5000)
    file.chmod(0o644)
    attendance = Attendance(fds=(), ended=lambda task: None)
    return farm.images.upload_volume(POOL, SD, A, B, str(file), "rsync", attendance)


PREPARED: dict[str, Begin] = {
    **{
        kind: lambda farm, scene: create(farm, A, B)
        for kind in ("download", "upload", "stream", "copy in", "sparsify", "extend raw")
    },
    "synchronise": lambda farm, scene: farm.images.clone_structure(POOL, SD, OTHER, scene.image),
    # What stems from a template is moved where that template is.
    "move two": lambda farm, scene: copy(
        farm, (SD, scene.template, scene.template_volume), (OTHER, scene.template, scene.template_volume)
    ),
}
"""What must be there before."""


def prepared(farm: Farm, kind: str) -> Scene:
    """Make the scene for a kind of task."""
    scene = Scene(farm)
    prepare(farm, scene, kind)
    return scene


def prepare(farm: Farm, scene: Scene, kind: str) -> None:
    if kind in PREPARED:
        farm.done(PREPARED[kind](farm, scene))
        farm.tasks.clear(farm.tasks.all()[0].task_id)
