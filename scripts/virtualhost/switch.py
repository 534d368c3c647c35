"""A network switch for virtual hosts: a thread that passes Ethernet frames between Unix sockets, one for each card.

It promises that a frame never comes back to where it came from (QEMU's multicast network does that, and duplicate address
detection then finds itself), and that nothing of it is seen outside of its directory.
"""

from __future__ import annotations

import selectors
import socket
import threading
from pathlib import Path

LARGEST = 70_000
"""Bytes of a frame, with everything that a card may leave to the other side."""
BUFFER = 4 << 20


class Switch:
    """Its sockets lie in `base`. `plug` all cards, then `start`; `close` ends it."""

    def __init__(self, base: Path) -> None:
        self._base = base
        self._ports: list[tuple[socket.socket, str]] = []
        self._known: dict[bytes, int] = {}
        self._ours, self._theirs = socket.socketpair()
        self._thread = threading.Thread(target=self._pass, name="switch", daemon=True)

    def plug(self, name: str) -> str:
        """Return QEMU's options for a network with that id, a port of this switch."""
        here, there = str(self._base / f"{name}.port"), str(self._base / f"{name}.card")
        port = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        port.bind(here)
        port.setblocking(False)
        port.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER)
        self._ports.append((port, there))
        ends = f"local.type=unix,local.path={there},remote.type=unix,remote.path={here}"
        return f"dgram,id={name},{ends}"

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._ours.close()
        if self._thread.ident is not None:
            self._thread.join()
        for port, _ in self._ports:
            port.close()
        self._theirs.close()

    def _pass(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._theirs, selectors.EVENT_READ, -1)
            for index, (port, _) in enumerate(self._ports):
                selector.register(port, selectors.EVENT_READ, index)
            while True:
                for key, _ in selector.select():
                    if key.data < 0:
                        return
                    self._frame(key.data)

    def _frame(self, source: int) -> None:
        try:
            frame = self._ports[source][0].recv(LARGEST)
        except BlockingIOError:
            return
        to, sender = frame[:6], frame[6:12]
        self._known[sender] = source
        # The lowest bit of the first byte: for a group, or for all.
        known = None if to[:1] and to[0] & 1 else self._known.get(to)
        targets = range(len(self._ports)) if known is None else [known]
        for target in targets:
            if target != source:
                self._deliver(frame, target)

    def _deliver(self, frame: bytes, target: int) -> None:
        port, address = self._ports[target]
        try:
            port.sendto(frame, address)
        except OSError:
            pass  # the card is not there (yet, or any more), or takes no more: a network may lose a frame
