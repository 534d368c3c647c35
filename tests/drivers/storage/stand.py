"""Stands for storage without the daemon: a real loop in a thread, real workers, real helper processes.

They promise that what is on them lives as in the daemon, and that no helper outlives `close`.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar

import msgspec

from drivers.base import Host
from drivers.storage.contract import Settings, Type
from drivers.storage.driver import StorageDriver
from drivers.storage.helpers.directory import Directory
from drivers.storage.helpers.remotes import Remotes
from drivers.storage.outside.deeds import DEEDS
from drivers.storage.outside.probe import try_direct
from drivers.storage.record import StorageRecord
from state.children import Child, ChildTable
from state.directory import StateDirectory
from state.fds import FdTable, Held
from state.records import decode, encode
from tests.until import until
from vdsmd.config import Irs
from vdsmd.loop import READ, Loop
from vdsmd.workers import Workers

T = TypeVar("T")


class Ground:
    """Loop, workers and a `Host`. `held` and `left`: what a previous run handed over."""

    def __init__(self, base: Path, held: list[Held] = [], left: list[Child] = [], root: Any = None) -> None:  # noqa: B006
        self.loop = Loop()
        self.workers = Workers(self.loop, limit=16)
        self.fds = FdTable(held)
        self.children = ChildTable(self.fds, left)
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.children.attach(self._watch, self.loop.unwatch)
        for name in ("run", "lib", "log", "repo"):
            (base / name).mkdir(exist_ok=True)
        lent: dict[str, Any] = {} if root is None else {"root": root}
        self.host = Host(
            fds=self.fds,
            children=self.children,
            checkpoints=StateDirectory(str(base / "run" / "checkpoints")),
            run_dir=str(base / "run"),
            lib_dir=str(base / "lib"),
            log_dir=str(base / "log"),
            submit=self.workers.submit,
            later=self.loop.call_later,
            in_loop=self.loop.call_threadsafe,
            event=lambda name, /, **fields: self.events.append((name, fields)),
            poller=self.loop,
            **lent,
        )
        self._thread = threading.Thread(target=self.loop.run)
        self._thread.start()

    def _watch(self, fd: int, name: str) -> None:
        self.loop.watch(fd, READ, lambda _events: self.children.ended(name))

    def inside(self, call: Callable[[], T]) -> T:
        """Make the call in the loop's thread, and return what it returns or raise what it raises."""
        results: list[tuple[T | None, Exception | None]] = []

        def run() -> None:
            try:
                results.append((call(), None))
            except Exception as error:
                # Raised again in the thread of the test.
                results.append((None, error))

        self.loop.call_threadsafe(run)
        until(lambda: results, 60, "the loop to make a call")
        result, error = results[0]
        if error is not None:
            raise error
        return result  # type: ignore[return-value]

    def stop(self) -> None:
        """End threads; children and descriptors stay."""
        self.workers.stop(time.monotonic() + 60)
        self.loop.call_threadsafe(self.loop.stop)
        self._thread.join(60)
        self.loop.close()

    def pids(self, prefix: str = "storage/") -> dict[str, int]:
        return {child.name: child.pid for child in self.children.snapshot() if child.name.startswith(prefix)}


class Stand:
    """`Remotes` that have been started. `reexec` is what it sounds like, as far as they can tell."""

    def __init__(self, base: Path, **settings: Any) -> None:
        self.base = base
        self.settings = Settings(repository=str(base / "repo"), **settings)
        self.reports: list[tuple[str, dict[str, Any]]] = []
        self._begin(Ground(base))
        self.ground.inside(self.remotes.start)

    def _begin(self, ground: Ground) -> None:
        self.ground = ground
        self.remotes = Remotes(ground.host, lambda: self.settings)
        self.remotes.on_report = lambda key, report: self.reports.append((key, report))

    def change(self, **settings: Any) -> None:
        self.settings = msgspec.structs.replace(self.settings, **settings)

    def get(self, path: Path, key: str = "it") -> Directory:
        return self.remotes.get(key, key, str(path))

    def reexec(self) -> None:
        """Quiesce, hand over descriptors, children and the record, and take over."""
        ground = self.ground
        ground.inside(lambda: self.remotes.quiesce(time.monotonic() + 60))
        ground.stop()
        kept, children = self.remotes.snapshot(), ground.children.snapshot()
        held = ground.fds.snapshot()
        self._begin(Ground(self.base, held, children))
        self.ground.inside(lambda: self.remotes.restore(kept))
        self.ground.inside(lambda: (self.ground.fds.close_unclaimed(), self.ground.children.drop_unclaimed()))
        self.ground.inside(self.remotes.start)

    def crash(self) -> None:
        """What the kernel does when a daemon is killed: its descriptors are closed."""
        self.ground.inside(lambda: self.remotes.quiesce(time.monotonic() + 60))
        self.ground.stop()
        for held in self.ground.fds.snapshot():
            os.close(held.number)

    def close(self) -> None:
        pids = self.ground.pids()
        for helper in self.remotes.snapshot():
            self.remotes.drop(helper.key)
        until(lambda: not self.ground.pids(), 60, f"helpers to end: {pids}")
        self.crash()


class Direct:
    """A `Remote` without a helper: the deeds, done here. The fake that passes what the real one passes."""

    def __init__(self, root: Path) -> None:
        self.what = self.root = str(root)

    def call(self, op: str, *, timeout: float | None = None, **arguments: Any) -> Any:
        if op == "try_direct":
            return try_direct(self.root)
        return DEEDS[op](self.root, **arguments)


class Rooted:
    """Stands for root: notes what is asked of it, and answers as it is told."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.answers: dict[str, Any] = {}

    def call(self, action: str, *, timeout: float | None = None, **arguments: Any) -> Any:
        self.calls.append((action, arguments))
        answer = self.answers.get(action, True)
        if isinstance(answer, Exception):
            raise answer
        return answer


class Place:
    """A storage driver that has been started. `data` is a directory to connect."""

    def __init__(self, base: Path, **irs: Any) -> None:
        self.base = base
        self.root = Rooted()
        self.data = base / "data"
        self.data.mkdir(exist_ok=True)
        options = {**msgspec.to_builtins(Irs()), "sd_health_check_delay": 0.2, **irs}
        self.config = SimpleNamespace(
            irs=SimpleNamespace(**options), paths=SimpleNamespace(repository=str(base / "repo"))
        )
        self._begin(Ground(base, root=self.root))
        self.ground.inside(self.driver.recover)
        self.ground.inside(self.driver.start)

    def _begin(self, ground: Ground) -> None:
        self.ground = ground
        self.driver = StorageDriver(ground.host, self.config)

    def connect(self, path: Path | None = None) -> None:
        assert self.driver.connections.connect(Type.LOCALFS, [{"id": "1", "connection": str(path or self.data)}]) == [
            None
        ]

    def create(self, uuid: str, name: str = "one", *, cls: int = 1, version: int = 3, path: Path | None = None) -> Path:
        """Make a domain, and return its directory."""
        where = path or self.data
        self.driver.maker.create(4, uuid, name, str(where), cls, version)
        return where / uuid

    def change(self, **irs: Any) -> None:
        """Change the configuration, and have it read again."""
        vars(self.config.irs).update(irs)
        self.ground.inside(lambda: self.driver.reload(self.config))

    def vitals(self, uuid: str) -> dict[str, Any]:
        told = self.ground.inside(lambda: self.driver.vitals(len))
        return told[uuid]

    def reexec(self) -> None:
        ground = self.ground
        ground.inside(lambda: self.driver.quiesce(time.monotonic() + 60))
        ground.stop()
        kept = decode(StorageRecord, encode(self.driver.snapshot()), "storage")
        self._begin(Ground(self.base, ground.fds.snapshot(), ground.children.snapshot(), root=self.root))
        self.ground.inside(lambda: self.driver.restore(kept))
        self.ground.inside(lambda: (self.ground.fds.close_unclaimed(), self.ground.children.drop_unclaimed()))
        self.ground.inside(self.driver.start)

    def crash(self) -> None:
        """End as a daemon does that is killed, and start anew."""
        self._stop()
        self._begin(Ground(self.base, root=self.root))
        self.ground.inside(self.driver.recover)
        self.ground.inside(self.driver.start)

    def close(self) -> None:
        pids = self.ground.pids().values()
        self._stop()
        until(lambda: all(_ended(pid) for pid in pids), 60, "helpers to end with the daemon")

    def _stop(self) -> None:
        self.ground.inside(lambda: self.driver.quiesce(time.monotonic() + 60))
        self.ground.stop()
        for held in self.ground.fds.snapshot():
            os.close(held.number)


def _ended(pid: int) -> bool:
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    except ChildProcessError:
        return True
