"""Watch: notices that somebody has changed what is ours. Imported after the first answer.

It promises to look seldom, however much happens: some time after the first of many changes, and now and then anyhow, for what
the kernel does not announce (a DHCP client that has died). Loop's thread only.
"""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Callable
from typing import Any

from drivers.base import Host
from drivers.network.netlink import notices

SOON, SELDOM, ANYHOW = 2.0, 10.0, 60.0
"""Seconds from a change to the look at it; between two looks, at least; and at most."""
MUCH, MANY = 1 << 16, 1024
"""Bytes of a message, and messages: more than the kernel keeps for a socket, unless they come as fast as they are read."""


class Watch:
    """`look()` is called when it is time to. Between `start` and `stop` it holds a socket, which no other run needs."""

    def __init__(self, host: Host, look: Callable[[], None]) -> None:
        self._host = host
        self._look = look
        self._sock: socket.socket | None = None
        self._timer: Any = None
        self._soon = False
        self._looked = 0.0

    def start(self) -> None:
        """Begin to watch. Raises OSError."""
        if self._sock is None:
            self._sock = notices()
            self._listen(self._sock)
            self._look_in(ANYHOW)

    def stop(self) -> None:
        if self._sock is not None:
            if not self._soon:
                self._host.poller.unwatch(self._sock.fileno())
            self._sock.close()
            self._sock, self._soon = None, False
            self._timer.cancel()

    def _listen(self, sock: socket.socket) -> None:
        self._host.poller.watch(sock.fileno(), select.EPOLLIN, self._noticed)

    def _noticed(self, _events: int) -> None:
        """What follows does not wake us until the look."""
        assert self._sock is not None
        self._host.poller.unwatch(self._sock.fileno())
        self._timer.cancel()
        self._soon = True
        self._look_in(max(SOON, self._looked + SELDOM - time.monotonic()))

    def _look_in(self, seconds: float) -> None:
        self._timer = self._host.later(seconds, self._due)

    def _due(self) -> None:
        assert self._sock is not None
        self._looked = time.monotonic()
        if self._soon:
            self._soon = False
            _drain(self._sock)
            self._listen(self._sock)
        self._look_in(ANYHOW)
        self._look()


def _drain(sock: socket.socket) -> None:
    try:
        for _ in range(MANY):
            sock.recv(MUCH)
    except OSError:
        pass  # there is no more; or there was more than the kernel could keep, and what is left makes us look once again
