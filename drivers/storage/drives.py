"""Drives: from what a machine's configuration says of a disk to the path of its data, for disks that lie on storage domains.

    <run_dir>/storage/<sdUUID>/<imgUUID>/<volUUID>     through a link to the image, wherever its domain is connected

It promises that no machine is started from a volume that is illegal or of which the chain is broken. It is a
`drivers.vm.changes.images.Images`; for worker threads.
"""

from __future__ import annotations

import os
from typing import Any

from drivers.errors import DriverError
from drivers.storage.contract import ISO_IMAGE, Class, is_uuid
from drivers.storage.domains.domains import Domains
from drivers.storage.errors import NoSuchDomain
from drivers.storage.images import volumes
from drivers.storage.pools.fields import ACTIVE
from drivers.storage.pools.pools import Pools
from drivers.vm.changes.images import Paths
from drivers.vm.errors import ImageUnavailable

Struct = dict[str, Any]


class Drives:
    def __init__(self, domains: Domains, pools: Pools, run_dir: str) -> None:
        self._domains = domains
        self._pools = pools
        self._run_dir = run_dir

    def prepare(self, drive: Struct) -> str:
        """Return the path of the data that is meant, ready to be opened. Raises ImageUnavailable."""
        path = str(drive.get("path") or "")
        try:
            if is_named(drive) and not self._is_strange(drive):
                return self._volume(drive)
            if _is_medium(drive, path):
                return self._medium(path)
        except (DriverError, OSError) as error:
            raise ImageUnavailable(kind="image", name=path or drive.get("imageID", ""), reason=error) from error
        return Paths().prepare(drive)

    def mark(self, drive: Struct, volume: str, *, legal: bool) -> None:
        """Say in the volume's metadata whether a machine may be started from it. Raises ImageUnavailable."""
        if not is_named(drive) or self._is_strange(drive):
            return
        word = "LEGAL" if legal else "ILLEGAL"
        try:
            volumes.set_legality(self._domains, str(drive["domainID"]), str(drive["imageID"]), volume, word)
        except (DriverError, OSError) as error:
            raise ImageUnavailable(kind="image", name=volume, reason=error) from error

    def release(self, drive: Struct) -> None:
        """No machine needs the image any more. Never asks the storage, which may be why the machine ended."""
        ids = [str(drive.get(key) or "").lower() for key in ("domainID", "imageID")]
        link = os.path.join(self._run_dir, "storage", *ids)
        if all(map(is_uuid, ids)) and os.path.islink(link):
            os.unlink(link)

    def _is_strange(self, drive: Struct) -> bool:
        """Whether it has a path of its own, and ids that mean nothing here: then it is the path that counts."""
        if not str(drive.get("path") or "").startswith("/"):
            return False
        try:
            self._domains.get(str(drive["domainID"]))
        except NoSuchDomain:
            return True
        return False

    def _volume(self, drive: Struct) -> str:
        sd, image = (str(drive.get(key) or "").lower() for key in ("domainID", "imageID"))
        found = volumes.prepare(self._domains, sd, image, str(drive.get("volumeID") or "").lower(), self._run_dir)
        return os.path.join(self._run_dir, "storage", sd, image, found["info"]["volumeID"])

    def _medium(self, name: str) -> str:
        """Return the path of a file of the connected pool's ISO domain."""
        for pool in self._pools.all():
            for uuid, state in pool.members.items():
                domain = self._domains.get(uuid) if state == ACTIVE else None
                if domain is None or domain.cls is not Class.ISO:
                    continue
                # Looked at from inside the domain: what a link leads out of it is not found.
                if (
                    ".." not in name.split("/")
                    and self._domains.files(domain).stat(f"images/{ISO_IMAGE}/{name}").is_file
                ):
                    return f"{domain.path}/images/{ISO_IMAGE}/{name}"
                raise ImageUnavailable(kind="image", name=name, reason=f"{name} is no file there")
        raise ImageUnavailable(kind="image", name=name, reason="no active ISO domain is in a connected pool")


def is_named(drive: Struct) -> bool:
    """Whether it is named by ids of storage, or says so and has nothing else to be found by."""
    ids = [str(drive.get(key) or "") for key in ("domainID", "imageID")]
    return all(map(is_uuid, ids)) or (any(ids) and not drive.get("path"))


def _is_medium(drive: Struct, path: str) -> bool:
    """Whether it is the name of a file in an ISO domain."""
    is_removable = drive.get("device") in ("cdrom", "floppy") or set(drive) == {"path"}
    return bool(path) and not path.startswith("/") and is_removable
