"""Images: what clients ask to be done with images and volumes that takes a task, checked and queued.

It promises that two tasks on one image never run at once, and that nothing is queued that can be seen to be impossible. For
worker threads. Without state of its own: `Tasks` has it all.
"""

from __future__ import annotations

from drivers.storage.contract import BLANK
from drivers.storage.errors import InvalidParameter
from drivers.storage.images import carrying, image_plans, merge_plans, qemuimg, steps, streaming
from drivers.storage.images import volume_plans as plans
from drivers.storage.images.streaming import lock_name
from drivers.storage.tasks.engine import Attendance
from drivers.storage.tasks.owner import Tasks
from drivers.storage.tasks.record import Lock

PLANNING = (carrying, image_plans, merge_plans, plans, qemuimg, steps, streaming)
"""The modules that fill the tables of `drivers.storage.tasks.registry`."""
COPY, MOVE = 1, 2


def _own(sd: str, image: str) -> Lock:
    return Lock(name=lock_name(sd, image))


def _shared(sd: str, image: str) -> Lock:
    return Lock(name=lock_name(sd, image), shared=True)


class Images:
    """Each method returns the id of a task, and raises what its plan does; NotSpm where this host is not the pool's SPM."""

    def __init__(self, tasks: Tasks) -> None:
        self._tasks = tasks

    def create_volume(
        self,
        pool: str,
        sd: str,
        image: str,
        volume: str,
        *,
        size: int,
        form: int,
        allocation: int,
        disk_type: int,
        description: str,
        parent_image: str = BLANK,
        parent: str = BLANK,
    ) -> str:
        """`size` in bytes. With a parent in another image, that is a template."""
        other = [_shared(sd, parent_image)] if parent_image not in (BLANK, image) else []
        args = {
            "sd": sd,
            "image": image,
            "volume": volume,
            "size": size,
            "form": form,
            "allocation": allocation,
            "disk_type": disk_type,
            "description": description,
            "parent_image": parent_image,
            "parent": parent,
        }
        return self._tasks.submit("createVolume", args, pool=pool, locks=[_own(sd, image), *other])

    def delete_volumes(
        self, pool: str, sd: str, image: str, volumes: list[str], *, post_zero: bool, force: bool
    ) -> str:
        args = {"sd": sd, "image": image, "volumes": volumes, "post_zero": post_zero, "force": force}
        return self._tasks.submit("deleteVolume", args, pool=pool, locks=[_own(sd, image)])

    def extend(self, pool: str, sd: str, image: str, volume: str, size: int) -> str:
        args = {"sd": sd, "image": image, "volume": volume, "size": size}
        return self._tasks.submit("extendVolumeSize", args, pool=pool, locks=[_own(sd, image)])

    def delete(self, pool: str, sd: str, image: str, *, post_zero: bool, force: bool) -> str:
        args = {"sd": sd, "image": image, "post_zero": post_zero, "force": force}
        return self._tasks.submit("deleteImage", args, pool=pool, locks=[_own(sd, image)])

    def copy(
        self,
        pool: str,
        source: tuple[str, str, str],
        target: tuple[str, str, str],
        *,
        description: str,
        role: int,
        form: int,
        allocation: int,
        force: bool,
    ) -> str:
        """`source` and `target`: domain (BLANK in the target: the source's), image and volume."""
        sd, source_image, source_volume = source
        target_sd, image, volume = target
        target_sd = sd if target_sd == BLANK else target_sd
        args = {
            "sd": sd,
            "source_image": source_image,
            "source_volume": source_volume,
            "target_sd": target_sd,
            "image": image,
            "volume": volume,
            "description": description,
            "role": role,
            "form": form,
            "allocation": allocation,
            "force": force,
        }
        locks = [_shared(sd, source_image), _own(target_sd, image)]
        return self._tasks.submit("copyImage", args, pool=pool, locks=locks)

    def move(
        self, pool: str, sd: str, target_sd: str, image: str, operation: int, *, post_zero: bool, force: bool
    ) -> str:
        if operation not in (COPY, MOVE):
            raise InvalidParameter(what="op", reason=f"{operation} is neither copy (1) nor move (2)")
        args = {
            "sd": sd,
            "target_sd": target_sd,
            "image": image,
            "delete": operation == MOVE,
            "post_zero": post_zero,
            "force": force,
        }
        here = _own(sd, image) if operation == MOVE else _shared(sd, image)
        return self._tasks.submit("moveImage", args, pool=pool, locks=[here, _own(target_sd, image)])

    def move_many(self, pool: str, sd: str, target_sd: str, images: dict[str, bool], *, force: bool) -> str:
        args = {"sd": sd, "target_sd": target_sd, "images": images, "force": force}
        locks = [_own(domain, image) for image in images for domain in (sd, target_sd)]
        return self._tasks.submit("moveMultipleImages", args, pool=pool, locks=locks)

    def clone_structure(self, pool: str, sd: str, target_sd: str, image: str) -> str:
        args = {"sd": sd, "target_sd": target_sd, "image": image}
        locks = [_shared(sd, image), _own(target_sd, image)]
        return self._tasks.submit("cloneImageStructure", args, pool=pool, locks=locks)

    def sync_data(self, pool: str, sd: str, target_sd: str, image: str, what: str) -> str:
        args = {"sd": sd, "target_sd": target_sd, "image": image, "what": what}
        locks = [_shared(sd, image), _own(target_sd, image)]
        return self._tasks.submit("syncImageData", args, pool=pool, locks=locks)

    def merge(self, pool: str, sd: str, image: str, ancestor: str, successor: str, *, post_zero: bool) -> str:
        args = {"sd": sd, "image": image, "ancestor": ancestor, "successor": successor, "post_zero": post_zero}
        return self._tasks.submit("mergeSnapshots", args, pool=pool, locks=[_own(sd, image)])

    def sparsify(
        self, pool: str, sd: str, image: str, volume: str, target_sd: str, target_image: str, target_volume: str
    ) -> str:
        args = {
            "sd": sd,
            "image": image,
            "volume": volume,
            "target_sd": target_sd,
            "target_image": target_image,
            "target_volume": target_volume,
        }
        locks = [_own(sd, image), _own(target_sd, target_image)]
        return self._tasks.submit("sparsifyImage", args, pool=pool, locks=locks)

    def download(self, pool: str, sd: str, image: str, volume: str, method: dict[str, object]) -> str:
        """Fetch into a volume ('': the last of its chain) what a URL gives."""
        args = {"sd": sd, "image": image, "volume": volume, "method": method}
        return self._tasks.submit("downloadImage", args, pool=pool, locks=[_own(sd, image)])

    def upload(self, pool: str, sd: str, image: str, volume: str, method: dict[str, object]) -> str:
        """Send a volume ('': the last of its chain) to a URL."""
        args = {"sd": sd, "image": image, "volume": volume, "method": method}
        return self._tasks.submit("uploadImage", args, pool=pool, locks=[_shared(sd, image)])

    def upload_volume(
        self, pool: str, sd: str, image: str, volume: str, source: str, method: str, attendance: Attendance
    ) -> str:
        """Fetch into a volume what a URL gives (`method` wget), or a file of this host has (rsync), while somebody waits."""
        args = {"sd": sd, "image": image, "volume": volume, "source": source, "method": method}
        locks = [_own(sd, image)]
        return self._tasks.submit("uploadVolume", args, pool=pool, locks=locks, attendance=attendance)
