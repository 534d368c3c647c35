"""A rim that carries images, over the stand of tasks: real sockets, real children, real files; only the daemon is not there."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from types import SimpleNamespace, TracebackType
from typing import Any, cast

from drivers.storage.errors import NoSuchPool
from drivers.storage.tasks.record import Task
from tests.api.server import PATIENCE, Answer, Client, echo
from tests.drivers.storage.images_stand import create, new_id, path
from tests.drivers.storage.tasks_stand import POOL, SD, Farm
from tests.until import until
from vdsmd.api.http import Limits
from vdsmd.api.rim import Rim, Tls
from vdsmd.api.streams import Streams
from vdsmd.daemon import Daemon


class Pools:
    """Knows one pool."""

    def get(self, uuid: str) -> None:
        if uuid != POOL:
            raise NoSuchPool(kind="storage pool", name=uuid, pool=uuid)


class Shore:
    """A farm, and a rim in front of it."""

    def __init__(self, base: Path, limits: Limits | None = None, tls: Tls | None = None) -> None:
        self.farm = Farm(base)
        self.limits = limits or Limits()
        self.tls = tls
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self.sock.bind(("127.0.0.1", 0))
        self.sock.listen(64)
        self.open()

    def open(self) -> None:
        """Begin to serve; also after the farm has begun anew."""
        ground = self.farm.ground
        storage = SimpleNamespace(domains=self.farm.local, parts=SimpleNamespace(pools=Pools()))
        told = SimpleNamespace(tasks=self.farm.tasks, workers=ground.workers, storage=storage)
        self.streams = Streams(cast(Daemon, told), ground.loop, self.limits)
        self.rim = Rim(ground.loop, echo, limits=self.limits, carry=self.streams.carry)
        ground.inside(lambda: self.rim.listen(self.sock, tls=self.tls))

    def close_rim(self) -> None:
        self.farm.ground.inside(self.rim.close_all)

    def __enter__(self) -> Shore:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: object, trace: TracebackType | None) -> None:
        self.close_rim()
        self.farm.close()
        self.sock.close()

    @property
    def port(self) -> int:
        return int(self.sock.getsockname()[1])

    def client(self) -> Client:
        return Client(socket.create_connection(("127.0.0.1", self.port), PATIENCE))

    def volume(self, form: int, size: int, **fields: Any) -> tuple[str, str]:
        """Make a volume in an image of its own; return both ids."""
        image, volume = new_id(), new_id()
        self.farm.done(create(self.farm, image, volume, form, size=size, **fields))
        return image, volume

    def file(self, image: str, volume: str) -> Path:
        return Path(path(self.farm.local, image, volume))

    def task(self, answer: Answer) -> Task:
        return self.farm.ended(answer.headers["task-id"])

    def quiet(self) -> bool:
        """Wait until nothing is carried any more."""
        until(lambda: not self.streams.going, PATIENCE)
        until(lambda: not self.farm.tasks.unfinished(), PATIENCE)
        return True

    def parts(self) -> list[str]:
        """Return what is half-written in the domain."""
        return [name for _, _, names in os.walk(self.farm.local.get(SD).path) for name in names if ".part" in name]


def head(method: str, image: str, volume: str = "", *, sd: str = SD, pool: str = POOL, **headers: object) -> bytes:
    """Return a request's head. Headers with None are left out."""
    given: dict[str, object] = {
        "Host": "here",
        "Storage-Pool-Id": pool,
        "Storage-Domain-Id": sd,
        "Image-Id": image,
        "Volume-Id": volume or None,
        **{name.replace("_", "-"): value for name, value in headers.items()},
    }
    lines = [f"{method} / HTTP/1.1", *(f"{name}: {value}" for name, value in given.items() if value is not None)]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def put(image: str, volume: str, data: bytes, **headers: Any) -> bytes:
    return head("PUT", image, volume, Content_Length=len(data), **headers) + data


def status(answer: Answer) -> tuple[int, int]:
    """Return the HTTP status, and the code in the body."""
    assert answer.headers["content-type"] == "application/json"
    return answer.status, json.loads(answer.body)["status"]["code"]
