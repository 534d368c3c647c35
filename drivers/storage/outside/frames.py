"""Frames: messages of any size on a socket that keeps the boundaries of packets (SOCK_SEQPACKET).

A packet is the message's number, a byte that says whether more follows, and a part of its MessagePack. It promises that parts
of several messages may be mixed, and that whoever begins to read in the middle, as the daemon does after a re-exec, misreads
nothing: what belongs to a number that it does not know is passed over.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import msgspec

PROTOCOL = 1
"""A helper that speaks another one is replaced when it would be adopted."""
REPORT = 0
"""The number of what the helper says unasked."""
PART = 48 << 10
PACKET = PART + 64
"""No packet is longer."""
LONGEST = 1 << 15
"""Bytes of a domain's metadata that are read. Less than a packet: a report is never cut in two by a re-exec."""
_HEAD = struct.Struct("<QB")


def packets(number: int, message: Any) -> list[bytes]:
    """Return the packets of a message."""
    body = msgspec.msgpack.encode(message)
    starts = range(0, max(len(body), 1), PART)
    return [_HEAD.pack(number, start + PART < len(body)) + body[start : start + PART] for start in starts]


class Assembler:
    """Puts messages together from packets."""

    def __init__(self) -> None:
        self._parts: dict[int, list[bytes]] = {}

    def feed(self, packet: bytes, wanted: Callable[[int], bool] = lambda number: True) -> tuple[int, Any] | None:
        """Take a packet; return number and message when it was the last one of a number that is wanted. Raises ValueError."""
        if len(packet) < _HEAD.size:
            raise ValueError("a packet without a head")
        number, more = _HEAD.unpack_from(packet)
        if not wanted(number):
            self._parts.pop(number, None)
            return None
        self._parts.setdefault(number, []).append(packet[_HEAD.size :])
        if more:
            return None
        body = b"".join(self._parts.pop(number))
        try:
            return number, msgspec.msgpack.decode(body)
        except msgspec.DecodeError as error:
            raise ValueError(f"message {number} cannot be read: {error}") from error
