"""What crosses the sockets: one packet is one message, and descriptors travel with it. Used by both sides.

It promises that a message arrives whole or not at all, and that no descriptor that came along is ever left open unseen.

A request goes over the caller's connection: JSON `{"action": NAME, "arguments": {...}}`, and with it one end of a socket pair,
the call's own channel. The reply, `{"value": ...}`, `{"error": {"type", "text", "traceback"}}`, or `{"descriptor": true}` and
the descriptor, comes back on the channel, which closes by itself when the helper ends.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterable
from typing import NamedTuple

MOST = 65536
"""Bytes in a packet. A longer request is refused, and a longer reply is an error instead."""

_CREDENTIALS = struct.Struct("3i")
_ROOM = socket.CMSG_SPACE(_CREDENTIALS.size) + socket.CMSG_SPACE(4)


class Packet(NamedTuple):
    data: bytes
    """Empty at the end of the connection."""
    fds: list[int]
    """Close-on-exec, and the receiver's to close."""
    pid: int
    uid: int
    """The kernel's word on the sender, where the socket has SO_PASSCRED; 0 and -1 where not known."""
    whole: bool
    """Whether neither bytes nor descriptors were cut off."""


def pair() -> tuple[socket.socket, socket.socket]:
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def with_credentials(sock: socket.socket) -> socket.socket:
    """Have the kernel add the sender's credentials to every message. Both ends must ask for it: the one that receives may not
    have come to it yet when the first message is sent."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    return sock


def peer(sock: socket.socket) -> tuple[int, int]:
    """Return the pid and the user of whoever made the connection, or listens, at the other end."""
    pid, uid, _gid = _CREDENTIALS.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    return pid, uid


def receive(sock: socket.socket, flags: int = 0) -> Packet:
    """Return the next message. Raises OSError, BlockingIOError and TimeoutError among them."""
    data, ancillary, told, _ = sock.recvmsg(MOST, _ROOM, flags | socket.MSG_CMSG_CLOEXEC)
    fds: list[int] = []
    pid, uid = 0, -1
    for level, kind, content in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            fds += struct.unpack(f"{len(content) // 4}i", content[: len(content) // 4 * 4])
        elif (level, kind) == (socket.SOL_SOCKET, socket.SCM_CREDENTIALS):
            pid, uid, _gid = _CREDENTIALS.unpack(content)
    return Packet(data, fds, pid, uid, not told & (socket.MSG_TRUNC | socket.MSG_CTRUNC))


def send(sock: socket.socket, data: bytes, fds: Iterable[int] = ()) -> None:
    """Send a message, without waiting. Raises OSError, BlockingIOError among them."""
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("i", fd)) for fd in fds]
    sock.sendmsg([data], rights, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)


def close(fds: Iterable[int]) -> None:
    for fd in fds:
        os.close(fd)
