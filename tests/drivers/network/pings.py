"""Sends a ping every tenth of a second, and says what became of each: 'sent N' and 'got N', a line each.

Usage: pings.py ADDRESS
"""

from __future__ import annotations

import os
import select
import socket
import struct
import sys
import time

EVERY = 0.1


def checksum(data: bytes) -> int:
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total >> 16) + (total & 0xFFFF)
    return ~(total + (total >> 16)) & 0xFFFF


def main(address: str) -> None:
    number, me, due = 0, os.getpid() & 0xFFFF, 0.0
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as sock:
        while True:
            if time.monotonic() >= due:
                number, due = number + 1, time.monotonic() + EVERY
                head = struct.pack("!BBHHH", 8, 0, 0, me, number)
                head = struct.pack("!BBHHH", 8, 0, checksum(head), me, number)
                try:
                    sock.sendto(head, (address, 0))
                except OSError:
                    pass  # nobody there: it counts as lost
                print("sent", number, flush=True)
            if select.select([sock], [], [], max(0.0, due - time.monotonic()))[0]:
                answer = sock.recv(2048)[20:]
                kind, _, _, whose, which = struct.unpack_from("!BBHHH", answer)
                if (kind, whose) == (0, me):
                    print("got", which, flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
