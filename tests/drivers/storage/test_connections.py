"""Connections: what clients connect shows in the repository, each alone, and goes again without taking anything along."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from drivers.errors import DriverError
from drivers.storage.contract import Type
from drivers.storage.errors import (
    ConnectionBusy,
    ConnectionFailed,
    InvalidParameter,
    MountFailed,
    MountUnknown,
    NoSuchReference,
    ReferenceInUse,
    StorageTypeUnsupported,
)
from supervdsm.client import Busy, Failed, NotAllowed, TimedOut
from tests.drivers.storage.stand import Place

NFS = {"id": "n", "connection": "server:/export"}


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    place = Place(tmp_path)
    yield place
    place.close()


def kinds(outcomes: list[DriverError | None]) -> list[type[DriverError] | None]:
    return [None if outcome is None else type(outcome) for outcome in outcomes]


def local(path: Path | str) -> dict[str, Any]:
    return {"id": "1", "connection": str(path)}


def links(place: Place) -> list[str]:
    return sorted(os.listdir(place.base / "repo" / "mnt"))


def test_a_directory_is_connected_again_and_again(place: Place) -> None:
    for _ in range(2):
        assert place.driver.connections.connect(Type.LOCALFS, [local(place.data), local(f"{place.data}/")]) == [
            None,
            None,
        ]
    (name,) = links(place)
    assert os.readlink(place.base / "repo" / "mnt" / name) == str(place.data)
    for _ in range(2):
        assert place.driver.connections.disconnect(Type.LOCALFS, [local(place.data)]) == [None]
        assert links(place) == []
    assert place.data.is_dir()


def test_each_fails_alone(place: Place, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    items = [local(tmp_path / "gone"), local(place.data), local(tmp_path / "file"), {"id": "x"}, local("relative")]
    outcomes = place.driver.connections.connect(Type.LOCALFS, items)
    assert kinds(outcomes)[:4] == [ConnectionFailed, None, ConnectionFailed, InvalidParameter]
    assert outcomes[4] is not None
    assert len(links(place)) == 1, "what could not be used must not be left"


def test_a_place_that_is_taken(place: Place) -> None:
    place.connect()
    (name,) = links(place)
    link = place.base / "repo" / "mnt" / name
    link.unlink()
    link.symlink_to("/etc")
    assert kinds(place.driver.connections.connect(Type.LOCALFS, [local(place.data)])) == [ConnectionFailed]
    link.unlink()
    link.mkdir()
    assert kinds(place.driver.connections.connect(Type.LOCALFS, [local(place.data)])) == [ConnectionFailed]
    assert kinds(place.driver.connections.disconnect(Type.LOCALFS, [local(place.data)])) == [ConnectionBusy]
    assert link.is_dir()


def test_mounting_is_for_root(place: Place) -> None:
    target = place.base / "repo" / "mnt" / "server:_export"
    target.mkdir(parents=True)
    assert place.driver.connections.connect(Type.NFS, [{**NFS, "password": "never"}]) == [None]
    assert place.driver.connections.disconnect(Type.NFS, [NFS]) == [None]
    mount, unmount = place.root.calls
    assert mount == (
        "mount.mount",
        {
            "kind": "nfs",
            "source": "server:/export",
            "target": str(target),
            "options": "soft,nosharecache,vers=3",
            "password": "never",
        },
    )
    assert unmount == ("mount.unmount", {"target": str(target), "lazy": False})
    assert "never" not in str(place.driver.snapshot())


def test_a_mount_that_takes_long_is_told_to_who_wants_a_reexec(place: Place) -> None:
    place.change(mount_timeout=90)
    told: list[str | None] = []
    call = place.root.call

    def slowly(action: str, *, timeout: float | None = None, **arguments: Any) -> Any:
        told.append(place.driver.unsafe())
        assert timeout is not None and timeout > 60
        return call(action, timeout=timeout, **arguments)

    place.root.call = slowly  # type: ignore[method-assign]
    (place.base / "repo" / "mnt" / "server:_export").mkdir(parents=True)
    assert place.driver.connections.connect(Type.NFS, [NFS]) == [None]
    assert place.root.calls[0][1]["patience"] == 90
    assert place.driver.connections.disconnect(Type.NFS, [NFS]) == [None]
    assert all(one is not None and "server:/export" in one and "s more at most" in one for one in told)
    assert len(told) == 2 and place.driver.unsafe() is None


@pytest.mark.parametrize(
    ("error", "meaning"),
    [(NotAllowed("no"), MountUnknown), (Failed("away"), MountFailed), (TimedOut("still away"), MountFailed)],
)
def test_mounts_that_fail(place: Place, error: Exception, meaning: type[DriverError]) -> None:
    place.root.answers["mount.mount"] = error
    assert kinds(place.driver.connections.connect(Type.NFS, [NFS])) == [meaning]
    assert place.driver.snapshot().connections == []


def test_what_is_busy_stays_connected(place: Place) -> None:
    (place.base / "repo" / "mnt" / "server:_export").mkdir(parents=True)
    place.driver.connections.connect(Type.NFS, [NFS])
    place.root.answers["mount.unmount"] = Busy("a guest uses it")
    assert kinds(place.driver.connections.disconnect(Type.NFS, [NFS])) == [ConnectionBusy]
    assert len(place.driver.snapshot().connections) == 1


def test_what_cannot_be_used_is_unmounted_again(place: Place) -> None:
    """Root says that it is mounted, and there is no such directory."""
    assert kinds(place.driver.connections.connect(Type.NFS, [NFS])) == [ConnectionFailed]
    assert [action for action, _ in place.root.calls] == ["mount.mount", "mount.unmount"]


def test_what_was_there_before_is_not_unmounted(place: Place) -> None:
    place.root.answers["mount.mount"] = False
    assert kinds(place.driver.connections.connect(Type.NFS, [NFS])) == [ConnectionFailed]
    assert [action for action, _ in place.root.calls] == ["mount.mount"]


def test_validation_leaves_nothing(place: Place) -> None:
    assert place.driver.connections.validate(Type.LOCALFS, [local(place.data)]) == [None]
    assert links(place) == []
    place.connect()
    assert place.driver.connections.validate(Type.LOCALFS, [local(place.data)]) == [None]
    assert len(links(place)) == 1


@pytest.mark.parametrize("type_", [Type.ISCSI, Type.FCP])
def test_block_storage_is_refused(place: Place, type_: Type) -> None:
    with pytest.raises(StorageTypeUnsupported):
        place.driver.connections.connect(type_, [])


def ref(path: Path) -> dict[str, Any]:
    return {"type": "localfs", "params": {"path": str(path), "password": "never"}}


def test_references(place: Place, tmp_path: Path) -> None:
    connections = place.driver.connections
    outcomes = connections.acquire({"a": ref(place.data), "b": ref(place.data), "c": ref(tmp_path / "gone"), "d": {}})
    assert kinds(list(outcomes.values())) == [None, None, ConnectionFailed, InvalidParameter]
    assert kinds(list(connections.acquire({"a": ref(tmp_path)}).values())) == [ReferenceInUse]
    told = {one.id: (connections.is_connected(one.connection), one.wire) for one in connections.references()}
    assert told == {"a": (True, ""), "b": (True, ""), "c": (False, "StorageServerConnectionError")}
    assert "never" not in str(place.driver.snapshot())
    assert kinds(list(connections.release(["a", "x"]).values())) == [None, NoSuchReference]
    assert len(links(place)) == 1
    connections.release(["b", "c"])
    assert links(place) == []
    assert connections.references() == []


def test_references_and_connections_hold_apart(place: Place) -> None:
    connections = place.driver.connections
    place.connect()
    connections.acquire({"a": ref(place.data)})
    connections.release(["a"])
    assert len(links(place)) == 1, "it is connected all the same"
    connections.acquire({"a": ref(place.data)})
    connections.disconnect(Type.LOCALFS, [local(place.data)])
    assert len(links(place)) == 1, "somebody holds a reference"
    connections.release(["a"])
    assert links(place) == []


@pytest.mark.parametrize("how", ["reexec", "crash"])
def test_connections_outlive_the_daemon(place: Place, tmp_path: Path, how: str) -> None:
    place.connect()
    place.driver.connections.acquire({"a": ref(place.data), "c": ref(tmp_path / "gone")})
    before = place.driver.snapshot()
    getattr(place, how)()
    after = place.driver.snapshot()
    assert (after.connections, after.references) == (before.connections, before.references)
    place.driver.connections.release(["a"])
    place.driver.connections.disconnect(Type.LOCALFS, [local(place.data)])
    assert links(place) == []


def test_a_checkpoint_that_is_damaged_is_set_aside(place: Place) -> None:
    place.connect()
    (checkpoint,) = (place.base / "run" / "checkpoints" / "storage").iterdir()
    checkpoint.write_bytes(checkpoint.read_bytes()[:-5])
    place.crash()
    assert place.driver.snapshot().connections == []
    assert [path for path in checkpoint.parent.iterdir() if path.name.endswith("set-aside")]
    place.connect()


def test_many_at_once(place: Place, tmp_path: Path) -> None:
    paths = [tmp_path / f"d{number}" for number in range(20)]
    for path in paths:
        path.mkdir()
    assert place.driver.connections.connect(Type.LOCALFS, [local(path) for path in paths]) == [None] * 20
    assert len(links(place)) == 20
