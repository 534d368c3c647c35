"""The watch: whatever comes, it looks seldom, and the loop goes on."""

from __future__ import annotations

import select
import socket
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

from drivers.base import Host
from drivers.network import watch
from drivers.network.watch import ANYHOW, SELDOM, SOON, Watch


class Flood:
    """A socket that always has one more."""

    def __init__(self) -> None:
        self.read = 0

    def fileno(self) -> int:
        return 99

    def recv(self, _: int) -> bytes:
        self.read += 1
        return b"one more"

    def close(self) -> None: ...


class Loop:
    """Remembers what is watched, and what is due in how many seconds."""

    def __init__(self) -> None:
        self.watched: dict[int, Callable[[int], None]] = {}
        self.due: list[tuple[float, Callable[[], None]]] = []
        poller = SimpleNamespace(watch=self.watch, unwatch=self.watched.pop)
        self.host = cast(Host, SimpleNamespace(poller=poller, later=self.later))

    def watch(self, fd: int, events: int, callback: Callable[[int], None]) -> None:
        self.watched[fd] = callback

    def later(self, seconds: float, call: Callable[[], None]) -> Any:
        timer = (seconds, call)
        self.due.append(timer)
        return SimpleNamespace(cancel=lambda: self.due.remove(timer) if timer in self.due else None)

    def run(self) -> float:
        """Do what is due, all of it one call. Return in how many seconds it was."""
        ((seconds, call),) = self.due
        self.due.clear()
        call()
        return seconds


def test_a_flood_is_looked_at_now_and_then(monkeypatch: Any) -> None:
    flood, loop, looks = Flood(), Loop(), []
    monkeypatch.setattr(watch, "notices", lambda: cast(socket.socket, flood))
    watcher = Watch(loop.host, lambda: looks.append(flood.read))
    watcher.start()
    assert loop.due[0][0] == ANYHOW
    for number in range(1, 4):
        loop.watched[99](select.EPOLLIN)
        assert not loop.watched, "what follows does not wake it"
        seconds = loop.run()
        assert seconds == SOON if number == 1 else SOON < seconds <= SELDOM
        assert len(looks) == number and flood.read == number * watch.MANY, "and it is not read to its end"
    watcher.stop()
    assert not loop.due and not loop.watched
