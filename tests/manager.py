"""A service manager for tests: a real notify socket, and a store that behaves like systemd's.

It promises to keep what is stored as systemd does: by name, each file once, also when its other end has hung up, and over any
end of the service; and to start the service with it as systemd does.
"""

from __future__ import annotations

import os
import socket
import struct
import sys
import threading
from collections.abc import Sequence
from typing import NamedTuple

from tests.until import until

LAUNCHER = """
import fcntl, os, sys
names, numbers, separator, *command = sys.argv[1:]
high = [fcntl.fcntl(int(number), fcntl.F_DUPFD, 500) for number in numbers.split(",") if number]
for index, number in enumerate(high):
    os.dup2(number, 3 + index)
    os.close(number)
for number in numbers.split(","):
    if number and int(number) >= 3 + len(high):
        os.close(int(number))
if high:
    os.environ.update(LISTEN_FDS=str(len(high)), LISTEN_FDNAMES=names, LISTEN_PID=str(os.getpid()))
os.environ["WATCHDOG_PID"] = str(os.getpid())
os.execv(command[0], command)
"""


class Said(NamedTuple):
    """One datagram: who sent it, and its assignments."""

    pid: int
    fields: dict[str, str]


class Manager:
    """Listens at `address` (a path, or '@' and an abstract name) until closed."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.said: list[Said] = []
        self.store: list[tuple[str, int]] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self._socket.bind(self._place())
        self._thread = threading.Thread(target=self._listen)
        self._thread.start()

    @property
    def env(self) -> dict[str, str]:
        return {"NOTIFY_SOCKET": self.address}

    def close(self) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
            end.sendto(b"END=1", self._place())
        self._thread.join()
        self._socket.close()
        for _, number in self.store:
            os.close(number)
        self.store.clear()

    # What has been said

    def all(self, field: str) -> list[str]:
        """Return every value that the field has been given, in order."""
        return [said.fields[field] for said in list(self.said) if field in said.fields]

    def states(self) -> list[str]:
        """Return the states in order, without repetitions of one."""
        known = ("READY", "RELOADING", "STOPPING")
        states = [field for said in list(self.said) for field in said.fields if field in known]
        return [state for index, state in enumerate(states) if index == 0 or state != states[index - 1]]

    def status(self) -> str:
        return (self.all("STATUS") or [""])[-1]

    def names(self) -> list[str]:
        return sorted(name for name, _ in list(self.store))

    def wait_for(self, *names: str) -> None:
        """Wait until exactly these are stored."""
        until(lambda: self.names() == sorted(names), 120, f"the store to have {sorted(names)}, not {self.names()}")

    # Starting the service

    def launcher(self) -> list[str]:
        """Return a command that becomes its arguments, started with what is stored."""
        store = list(self.store)
        names, numbers = ":".join(name for name, _ in store), ",".join(str(number) for _, number in store)
        return [sys.executable, "-c", LAUNCHER, names, numbers, "--"]

    def numbers(self) -> Sequence[int]:
        return [number for _, number in self.store]

    # Help

    def _place(self) -> str:
        return f"\0{self.address[1:]}" if self.address.startswith("@") else self.address

    def _listen(self) -> None:
        while True:
            data, rights, _, _ = self._socket.recvmsg(1 << 16, 1 << 12, socket.MSG_CMSG_CLOEXEC)
            fields = dict(line.split("=", 1) for line in data.decode().split("\n"))
            if "END" in fields:
                return
            pid = 0
            numbers: list[int] = []
            for _, kind, payload in rights:
                if kind == socket.SCM_CREDENTIALS:
                    pid = struct.unpack("3i", payload)[0]
                else:
                    numbers += struct.unpack(f"{len(payload) // 4}i", payload)
            self._keep(fields, numbers)
            self.said.append(Said(pid, fields))

    def _keep(self, fields: dict[str, str], numbers: list[int]) -> None:
        if fields.get("FDSTOREREMOVE") == "1":
            for entry in [entry for entry in self.store if entry[0] == fields["FDNAME"]]:
                self.store.remove(entry)
                os.close(entry[1])
        for number in numbers:
            kept = [held for _, held in self.store if os.path.sameopenfile(held, number)]
            if fields.get("FDSTORE") == "1" and not kept and fields.get("FDPOLL") == "0":
                self.store.insert(0, (fields.get("FDNAME", "stored"), number))
            else:
                os.close(number)
