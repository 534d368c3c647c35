"""A daemon in a thread: the real rim, dispatch and verbs, over a host and a re-exec that do as the test says."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import vdsmd.api.control
import vdsmd.api.host  # noqa: F401 (they declare verbs)
from drivers.errors import HardwareUnknown
from drivers.hooks import Hooks
from vdsmd.api.dispatch import Dispatcher
from vdsmd.api.rim import Rim
from vdsmd.journal import Journal
from vdsmd.loop import Loop
from vdsmd.workers import Workers

INFO = {
    "pid": 4242,
    "version": "1.2.3",
    "recovering": "",
    "owners": {"vm": "a machine is being started", "host": ""},
    "libvirt": {"state": "connected", "uri": "test:///default"},
    "vms": {"Up": 2, "Down": 1},
    "descriptors": 21,
    "named_descriptors": ["api/local", "api/tcp"],
    "children": [{"name": "vm/a/qemu", "pid": 4711, "start_time": 99}],
}


class Host:
    def capabilities(self, client: str) -> dict[str, Any]:
        return {"cpuModel": "A \x1b[31mModel", "nics": {"ens1": {"addr": "192.0.2.5", "speed": 1000}}, "vlans": {}}

    def statistics(self) -> dict[str, Any]:
        return {"cpuUser": "1.00", "ksmState": False, "diskStats": {"/tmp": {"free": "1024"}}}

    def hardware(self) -> dict[str, str]:
        raise HardwareUnknown(reason="this is a test")


class Storage:
    def promised(self) -> dict[str, Any]:
        return {"way": "local"}

    def vitals(self, number: Callable[[str], int]) -> dict[str, Any]:
        return {}


class Daemon:
    """What the verbs are given. `on_request` decides what becomes of a re-exec."""

    recovering = ""

    def last_client(self) -> str:
        return ""

    def __init__(self, run_dir: Path) -> None:
        self.host = Host()
        self.storage = Storage()
        self.hooks = Hooks(str(run_dir / "hooks"))
        self.journal = Journal(str(run_dir / "events"), submit=lambda work: work(), limits=lambda: (4, 5))
        self.generation = 3
        self.outcome: dict[str, Any] = outcome()
        self.asked: list[bool] = []
        self.on_request: Callable[[], None] = lambda: None

    def status(self) -> dict[str, Any]:
        return {
            **INFO,
            "generation": self.generation,
            "since": time.time() - 3725,
            "reexec": dict(self.outcome),
            "events": self.journal.end,
        }

    def request_reexec(self, *, now: bool = False) -> int:
        self.asked.append(now)
        self.outcome = outcome(number=self.outcome["number"] + 1, state="rehearsing")
        self.on_request()
        return int(self.outcome["number"])

    def cancel_reexec(self) -> bool:
        was = self.outcome["state"]
        self.outcome["state"] = "cancelled"
        return bool(was == "pending")

    def snapshot_plain(self) -> dict[str, Any]:
        return {"host": {"generation_id": "an id"}, "reexec": {"number": 0}}


def outcome(**fields: Any) -> dict[str, Any]:
    return {"number": 0, "state": "idle", "reason": "", "waits_for": [], "pause_ms": 0.0, "steps": [], **fields}


class Server:
    """Serves on `<run_dir>/vdsmd.sock` and on a free port of loopback until it is closed."""

    def __init__(self, run_dir: Path) -> None:
        self.daemon = Daemon(run_dir)
        self.loop = Loop()
        self._workers = Workers(self.loop)
        dispatcher = Dispatcher(self.daemon, self._workers.submit, str(run_dir))
        self._rim = Rim(self.loop, dispatcher.serve)
        self._local = listening(str(run_dir / "vdsmd.sock"))
        self._tcp = socket.create_server(("127.0.0.1", 0))
        self.port = self._tcp.getsockname()[1]
        self._rim.listen(self._local, local=True)
        self._rim.listen(self._tcp)
        self._thread = threading.Thread(target=self.loop.run)
        self._thread.start()

    def drop_clients(self) -> None:
        """Close all connections as an exec does, answering first, and go on."""
        self._rim.drain(self._rim.resume_accepting)

    def close(self) -> None:
        if not self._thread.is_alive():
            return
        self.loop.call_threadsafe(self.loop.stop)
        self._thread.join()
        self._rim.close_all()
        self._workers.stop(time.monotonic() + 60)
        self.loop.close()
        for sock in (self._local, self._tcp):
            sock.close()


def listening(path: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.bind(path)
    sock.listen(16)
    os.chmod(path, 0o600)
    return sock
