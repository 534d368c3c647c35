"""A stand for the driver without the daemon: a real loop in a thread, real workers, real descriptors and checkpoints.

It promises that a driver on it lives as in the daemon: its owner's calls come from the loop's thread, and deeds from workers.
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

from drivers.base import Host, Root
from drivers.vm.driver import VmDriver
from drivers.vm.machine import VmRecord
from state.children import ChildTable
from state.directory import StateDirectory
from state.fds import FdTable
from state.records import decode, encode
from supervdsm.client import Without
from tests.drivers.vm.fake import FakeLibvirt
from tests.until import until
from vdsmd.loop import READ, Loop
from vdsmd.workers import Workers

T = TypeVar("T")

VARS = {
    "vm_sample_interval": 3600.0,
    "vm_command_timeout": 60.0,
    "sys_shutdown_timeout": 3600,
    "user_shutdown_timeout": 30,
    "guest_agent_timeout": 30.0,
    "hotunplug_timeout": 0.5,
    "replication_bandwidth": 0,
    "max_outgoing_migrations": 2,
    "migration_max_bandwidth": 52,
    "migration_downtime": 500,
    "migration_downtime_steps": 5,
    "migration_downtime_delay": 100.0,
    "migration_progress_timeout": 240.0,
    "migration_max_time_per_gib_mem": 64.0,
    "migration_monitor_interval": 0.1,
    "migration_destination_timeout": 21600.0,
    "migration_listener_timeout": 30.0,
    "ssl": False,
    "console_max_mb": 1.0,
    "console_keep": 2,
    "nic_model": "rtl8139,pv",
    "default_bridge": "engine",
    "qemu_drive_cache": "none",
}


class Stand:
    """A driver that has been started. `stop` ends it as a re-exec would, and returns what the next one gets."""

    def __init__(
        self,
        base: Path,
        libvirt: FakeLibvirt | None = None,
        *,
        left: VmRecord | None = None,
        settle: bool = False,
        begin: bool = True,
        uri: str = "auto",
        root: Root | None = None,
        **settings: Any,
    ) -> None:
        self.loop = Loop()
        self.workers = Workers(self.loop, limit=16)
        self.thread = threading.Thread(target=self.loop.run)
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.libvirt = libvirt or FakeLibvirt()
        self._root = root or Without()
        self.host = self._host(base)
        config = SimpleNamespace(
            vars=SimpleNamespace(**{**VARS, **settings}), libvirt=SimpleNamespace(uri=uri, virt_type="auto")
        )
        fake: Any = self.libvirt
        self.driver = VmDriver(self.host, config, fake)
        self.thread.start()
        if left is None:
            self.inside(self.driver.recover)
        else:
            kept = decode(VmRecord, encode(left), "vm")
            self.inside(lambda: self.driver.restore(kept))
        if settle:
            self.inside(self.driver.settle)
        if begin:
            self.inside(self.driver.start)

    def _host(self, base: Path) -> Host:
        fds = FdTable()
        children = ChildTable(fds)
        children.attach(lambda fd, name: self.loop.watch(fd, READ, lambda _: children.ended(name)), self.loop.unwatch)
        for name in ("run", "lib", "log"):
            (base / name).mkdir(exist_ok=True)
        return Host(
            fds=fds,
            children=children,
            checkpoints=StateDirectory(str(base / "run" / "checkpoints")),
            run_dir=str(base / "run"),
            lib_dir=str(base / "lib"),
            log_dir=str(base / "log"),
            submit=self.workers.submit,
            later=self.loop.call_later,
            in_loop=self.loop.call_threadsafe,
            event=lambda name, /, **fields: self.events.append((name, fields)),
            poller=self.loop,
            root=self._root,
        )

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

    def deed(self, vm_id: str, call: Callable[[], object], *, timeout: float = 60) -> list[Exception | None]:
        """Have a worker make the call, with the machine's key, as a verb's. The list gets its outcome when it ends."""
        outcome: list[Exception | None] = []
        self.workers.submit(call, lambda _, error: outcome.append(error), key=vm_id, timeout=timeout)
        return outcome

    def does(self, vm_id: str, call: Callable[[], object]) -> None:
        """Like `deed`; wait for it, and raise what it raised."""
        outcome = self.deed(vm_id, call)
        until(lambda: outcome, 60, "a deed to be done")
        if outcome[0] is not None:
            raise outcome[0]

    def create(self, vm_id: str, **params: Any) -> dict[str, Any]:
        return self.driver.deeds.create({"vmId": vm_id, "memSize": 64, **params})

    def run(self, vm_id: str) -> None:
        """Create a machine and wait until it is up, and all that this led to has happened."""
        self.create(vm_id)
        self.await_status(vm_id, "Up")
        self.calm()

    def destroy(self, vm_id: str) -> None:
        self.does(vm_id, lambda: self.driver.deeds.destroy(vm_id))

    def status(self, vm_id: str) -> str:
        return str(self.stats(vm_id)["status"])

    def stats(self, vm_id: str) -> dict[str, Any]:
        return self.inside(lambda: self.driver.stats(vm_id))

    def await_status(self, vm_id: str, status: str) -> dict[str, Any]:
        until(lambda: self.status(vm_id) == status, 60, f"{vm_id} to be {status}")
        return self.stats(vm_id)

    def calm(self) -> None:
        """Wait until no work is waiting or running, and the loop has heard of all."""
        until(lambda: not self.workers.busy and self.inside(lambda: not self.workers.busy), 60, "all work to be done")

    def unsafe(self) -> str | None:
        return self.inside(self.driver.unsafe)

    def stop(self) -> VmRecord:
        """End everything. What is held stays open only in what is returned and on the disk."""
        record = self._end()
        for name in self.host.fds.names():
            self.host.fds.drop(name)
        return record

    def _end(self) -> VmRecord:
        for gate in self.libvirt.gates.values():
            gate.set()
        deadline = time.monotonic() + 60
        try:
            self.inside(lambda: self.driver.quiesce(deadline))
            self.workers.stop(deadline)
            record = self.inside(self.driver.snapshot)
            copy: VmRecord = msgspec.json.decode(msgspec.json.encode(record), type=VmRecord)
            return copy
        finally:
            self.loop.call_threadsafe(self.loop.stop)
            self.thread.join()
            self.loop.close()

    @property
    def checkpoints(self) -> list[str]:
        directory = Path(self.host.checkpoints.path) / "vm"
        return sorted(os.listdir(directory)) if directory.exists() else []
