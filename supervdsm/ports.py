"""Ports: what is attached to a bridge or bond. The kernel is asked for these alone, so that it costs the same on a host with
hundreds of links, all of which pyroute2 would read.

It promises a whole answer. The layout is that of rtnetlink(7) and if_link.h.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator

from supervdsm.errors import Failed

GET_LINK, DUMP, ERROR, DONE = 18, 0x301, 2, 3
HEADER = struct.Struct("=IHHII")
QUESTION = struct.Struct("=BxHiIIHHI")
MASTER, LINK_INFO, KIND = 10, 18, 1


def kinds_of_ports(master: int) -> list[str]:
    """Return the kernel's word for each link that belongs to the one with this number, '' for a physical one. Raises Failed."""
    question = QUESTION.pack(0, 0, 0, 0, 0, 8, MASTER, master)
    found: list[str] = []
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE) as sock:
        sock.send(HEADER.pack(HEADER.size + len(question), GET_LINK, DUMP, 1, 0) + question)
        while True:
            for kind, body in _messages(sock.recv(1 << 17)):
                if kind == DONE:
                    return found
                if kind == ERROR:
                    raise Failed(f"ports of {master}: {os.strerror(-struct.unpack_from('=i', body)[0])}")
                told = dict(_attributes(body[16:]))
                if told.get(MASTER) == struct.pack(
                    "=I", master
                ):  # should a kernel not know how to leave out the others
                    info = dict(_attributes(told.get(LINK_INFO, b"")))
                    found.append(info.get(KIND, b"").rstrip(b"\0").decode("ascii", "replace"))


def _messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at < len(data):
        length, kind, _, _, _ = HEADER.unpack_from(data, at)
        yield kind, data[at + HEADER.size : at + length]
        at += (length + 3) & ~3


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at + 4 <= len(data):
        length, kind = struct.unpack_from("=HH", data, at)
        if length < 4:
            return
        yield kind & 0x3FFF, data[at + 4 : at + length]
        at += (length + 3) & ~3
