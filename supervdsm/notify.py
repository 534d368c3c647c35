"""What the service manager is told, sd_notify(3). One that is away costs nothing."""

from __future__ import annotations

import os
import socket
import time


def tell(*lines: str) -> None:
    """Tell it, if there is one."""
    path = os.environ.get("NOTIFY_SOCKET", "")
    if path:
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
                address = f"\0{path[1:]}" if path.startswith("@") else path
                sock.sendmsg(["\n".join(lines).encode()], [], socket.MSG_DONTWAIT, address)
        except OSError:
            return


def reloading() -> list[str]:
    """Return what to tell when a replacement begins."""
    return ["RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}"]


def ready(status: str) -> list[str]:
    """Return what to tell when we serve, or serve on."""
    return ["READY=1", f"STATUS={status}"]


def watchdog() -> float:
    """Return after how many seconds of silence we would be ended, 0 for never."""
    limit = os.environ.get("WATCHDOG_USEC", "")
    ours = os.environ.get("WATCHDOG_PID") in (None, "", str(os.getpid()))
    return int(limit) / 1e6 if ours and limit.isdecimal() else 0.0
