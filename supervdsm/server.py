"""The server: connections, what comes in over them, and who may call.

It promises that a message is acted upon only when the kernel names its sender as the daemon, and that whatever it contains, it
costs nobody but its sender anything.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import socket
from collections.abc import Callable

from supervdsm import wire
from supervdsm.callers import Holders, Only
from supervdsm.discard import discard
from supervdsm.errors import ActionError, NotAllowed
from supervdsm.loop import Loop
from supervdsm.perform import Call, perform, refusal
from supervdsm.registry import Context
from supervdsm.slow import Slow

log = logging.getLogger("supervdsm.server")

MOST_CONNECTIONS = 64
MOST_DISCARDED = 16
"""Descriptors that do not close, before nobody is admitted any more."""


class Connection:
    """One connection, and whom its last message came from: looked into once, and true as long as that process lives."""

    def __init__(self, sock: socket.socket, callers: Only | Holders, on_end: Callable[[], None]) -> None:
        self.socket, self.callers, self.on_end = wire.with_credentials(sock), callers, on_end
        self._sender = (0, -1)
        self._name = ""
        self.proven = False
        """Whether a daemon has sent something over it."""
        self._pidfd = -1
        self._alive = select.poll()

    def caller(self, pid: int, uid: int) -> str:
        """Return the sender's name. Raises NotAllowed."""
        if (pid, uid) != self._sender or self._alive.poll(0):
            self._forget()
            try:
                # Before the look: should the process end meanwhile, and its number be another's, this one tells.
                self._pidfd = os.pidfd_open(pid)
            except OSError:  # it is gone, or was never known
                raise NotAllowed(f"process {pid} of user {uid} is not there") from None
            self._alive.register(self._pidfd, select.POLLIN)
            self._name = self.callers.name(pid, uid)
            self._sender, self.proven = (pid, uid), True
        return self._name

    def close(self) -> None:
        self._forget()
        self.socket.close()

    def _forget(self) -> None:
        self._sender = (0, -1)
        if self._pidfd >= 0:
            self._alive.unregister(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = -1


class Server:
    """All connections."""

    def __init__(self, loop: Loop, context: Context, slow: Slow) -> None:
        self.connections: list[Connection] = []
        self.discarding: set[int] = set()
        """Processes that close for us."""
        self._loop = loop
        self._context = context
        self._slow = slow

    def accept(self, listener: socket.socket, callers: Holders) -> None:
        """Take a connection from the listener, if its maker can be a caller."""
        try:
            sock, _ = listener.accept()
        except OSError:  # its maker has given up already
            return
        pid, uid = wire.peer(sock)
        if not callers.admits(uid) or not self._has_room():
            log.warning("Refused a connection pid=%d uid=%d connections=%d", pid, uid, len(self.connections))
            sock.close()
            return
        self.serve(sock, callers)

    def _has_room(self) -> bool:
        """Say whether one more is admitted. One that no daemon has used makes room for it: other processes of the daemon's user
        must not keep the daemon out."""
        unproven = [connection for connection in self.connections if not connection.proven]
        if unproven and len(self.connections) >= MOST_CONNECTIONS:
            self._drop(unproven[0])
        return len(self.connections) < MOST_CONNECTIONS and len(self.discarding) < MOST_DISCARDED

    def serve(self, sock: socket.socket, callers: Only | Holders, on_end: Callable[[], None] = lambda: None) -> None:
        """Serve a connection until the other end closes, or sends what the daemon would not; then call `on_end`."""
        connection = Connection(sock, callers, on_end)
        self.connections.append(connection)
        self._loop.watch(sock, lambda: self._receive(connection))

    def take(self, call: Call) -> None:
        """See a call through, or have it seen through."""
        try:
            action, arguments = call.understand()
        except ActionError as error:
            call.answer(refusal(error))
            return
        if action.slow:
            self._slow.ask(call, action, arguments)
        else:
            call.answer(perform(action, self._context, arguments))

    def _receive(self, connection: Connection) -> None:
        try:
            packet = wire.receive(connection.socket, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        except OSError:  # as good as its end
            packet = wire.Packet(b"", [], 0, -1, whole=True)
        channel = self._channel(packet)
        if channel is None:
            if packet.data or packet.fds:
                log.warning("Refused a message without a channel of its own pid=%d uid=%d", packet.pid, packet.uid)
            self._drop(connection)
            return
        call = Call("-", packet.pid, channel, packet.data if packet.whole else b"")
        try:
            call.caller = connection.caller(packet.pid, packet.uid)
        except NotAllowed as error:
            log.warning("Refused a message pid=%d uid=%d reason=%s", packet.pid, packet.uid, error)
            call.answer(refusal(error))
            self._drop(connection)
            return
        self.take(call)

    def _drop(self, connection: Connection) -> None:
        self.connections.remove(connection)
        self._loop.forget(connection.socket)
        connection.close()
        connection.on_end()

    def _channel(self, packet: wire.Packet) -> socket.socket | None:
        """Return the call's own channel. None, with everything closed, when what came along is anything else."""
        if packet.data and len(packet.fds) == 1:
            with contextlib.suppress(OSError):  # no socket. Asking a file what it is might hang in its file system
                channel = socket.socket(fileno=packet.fds[0])
                if (channel.family, channel.type) == (socket.AF_UNIX, socket.SOCK_SEQPACKET):
                    return channel
                channel.detach()
        self.discarding |= {discard(fd) for fd in packet.fds} - {0}
        return None
