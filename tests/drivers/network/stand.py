"""A stand for the network driver without the daemon: the real actions in this process, the real kernel, real files.

It promises that a stand made in the place of another is what a daemon is after the death of the one before.
"""

from __future__ import annotations

import importlib
import os
import select
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from drivers.base import Host
from drivers.network.driver import NetworkDriver
from drivers.network.kernel import Kernel
from drivers.network.netlink import look
from drivers.network.work import Work
from state.directory import StateDirectory
from supervdsm.registry import ACTIONS, Context

for subject in (
    "link",
    "bridge",
    "vlan",
    "bond",
    "address",
    "route",
    "tap",
    "dhcp",
    "filter",
    "mirror",
    "qos",
    "rate",
    "rule",
):
    importlib.import_module(f"supervdsm.actions.{subject}")


class Struck(BaseException):
    """The daemon has been killed, here and now."""


class Direct:
    """Does actions here. `strike(number, call)` is asked before and after each: `call` is made, or the daemon dies."""

    def __init__(self, private_dir: str = "", uid: int = 0) -> None:
        known = dict.fromkeys(Context._fields, "")
        self.context = cast(Context, SimpleNamespace(**known | {"uid": uid, "gid": uid, "private_dir": private_dir}))
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.before: Callable[[int], None] = lambda number: None
        self.after: Callable[[int], None] = lambda number: None

    def call(self, action: str, *, timeout: float | None = None, **arguments: Any) -> Any:
        number = len(self.calls)
        self.calls.append((action, arguments))
        self.before(number)
        ACTIONS[action].check("vdsmd", arguments)
        answer = ACTIONS[action].function(self.context, **arguments)
        self.after(number)
        return answer


class Poller:
    """Remembers what is watched; `ready` does what a loop does."""

    def __init__(self) -> None:
        self.watched: dict[int, Callable[[int], None]] = {}

    def watch(self, fd: int, events: int, callback: Callable[[int], None]) -> None:
        self.watched[fd] = callback

    def change(self, fd: int, events: int) -> None: ...

    def unwatch(self, fd: int) -> None:
        del self.watched[fd]

    def ready(self) -> bool:
        """Call those whose descriptors are ready. Say whether there were any."""
        found = select.select(list(self.watched), [], [], 0)[0]
        for fd in found:
            self.watched[fd](select.EPOLLIN)
        return bool(found)


class Stand:
    """`driver` is recovered and started, and works in the calling thread. `lifetime` directories: what survives a death."""

    def __init__(self, base: Path, *, root: Any = None, look: Callable[[], Kernel] = look, watch: bool = False) -> None:
        self.base = base
        self.root: Any = root or Direct(str(base / "private"))
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.later: list[Callable[[], None]] = []
        self.poller = Poller()
        self._look = look
        host = SimpleNamespace(
            root=self.root,
            run_dir=str(base),
            lib_dir=str(base / "lib"),
            checkpoints=StateDirectory(str(base / "checkpoints")),
            submit=self._submit,
            later=self._later,
            poller=self.poller,
            in_loop=lambda call: call(),
            event=lambda name, **fields: self.events.append((name, fields)),
        )
        self.driver = NetworkDriver(cast(Host, host), open_work=self._work)
        self.driver.recover()
        self.driver.start()
        if not watch:
            self.driver.quiesce(0)

    def setup(self, networks: Any, bonds: Any = None, **options: Any) -> None:
        """Set up networks; the engine is not asked unless `connectivityCheck` says so."""
        self.driver.setup(networks, bonds or {}, {"connectivityCheck": False, **options})

    def call_like_an_engine(self) -> None:
        Path(self.base, "client.log").touch()
        os.utime(self.base / "client.log")

    def run_later(self) -> None:
        """Make the calls that are due in a while."""
        due, self.later[:] = list(self.later), []
        for call in due:
            call()

    def _later(self, _seconds: float, call: Callable[[], None]) -> Any:
        self.later.append(call)
        return SimpleNamespace(cancel=lambda: self.later.remove(call) if call in self.later else None)

    def _work(self) -> Work:
        return Work(
            self.root,
            StateDirectory(str(self.base / "lib" / "network")),
            StateDirectory(str(self.base / "checkpoints" / "network")),
            sign_of_life=str(self.base / "client.log"),
            look=self._look,
        )

    def _submit(self, work: Callable[[], Any], done: Any = None, **_: Any) -> None:
        try:
            result, error = work(), None
        except Exception as caught:
            # As a worker does.
            result, error = None, caught
        if done is not None:
            done(result, error)
