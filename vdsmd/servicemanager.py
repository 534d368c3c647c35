"""The service manager: told how we are, and given duplicates of the descriptors that are to outlive a crash.

It speaks the protocol of systemd, sd_notify(3) and sd_listen_fds(3), and promises never to block and never to raise: a
service manager that is away, slow or missing costs a line in the log. What it must know and could not be told is told again.
"""

from __future__ import annotations

import logging
import os
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Callable

from state.fds import FdTable
from vdsmd.loop import Loop

log = logging.getLogger("servicemanager")

BEAT = 5.0
"""Seconds between two looks at whether there is news. Shorter where a watchdog wants it."""
MOST_OWED = 4096
FIRST = 3
"""Number of the first descriptor that a service is started with (sd_listen_fds(3), SD_LISTEN_FDS_START)."""
LONGEST_NAME = 255
LONGEST_STATUS = 1000


class ServiceManager:
    """Who started us, if it listens: $NOTIFY_SOCKET says where. Without it, every call does nothing.

    The variables stay in the environment, because the next run needs them; children do not get them.
    """

    def __init__(self, fds: FdTable) -> None:
        path = os.environ.get("NOTIFY_SOCKET", "")
        self._address = f"\0{path[1:]}" if path.startswith("@") else path
        self._fds = fds
        self._loop: Loop | None = None
        self._reloading: Callable[[], bool] = lambda: False
        self._describe: Callable[[], str] = lambda: ""
        self._told = ""
        self._lock = threading.Lock()
        self._owed: deque[tuple[str, str]] = deque(maxlen=MOST_OWED)
        self._failed = False
        self._socket: socket.socket | None = None
        self._watchdog = _watchdog()
        if self._address:
            fds.observe(self._store, self._remove)

    def serve(self, loop: Loop, *, reloading: Callable[[], bool], describe: Callable[[], str]) -> None:
        """We are ready. From now on tell that the loop turns, and, whenever it has changed, what `describe()` says in a line.
        `reloading`: says whether a replacement is under way."""
        self._reloading, self._describe = reloading, describe
        if self._address:
            self._loop = loop
            self.changed()
            self._beat()

    def changed(self) -> None:
        """A re-exec has begun, or has ended in whatever way. The protocol has no word for a refusal: ready, and why."""
        if self._loop is not None:
            self._say_state(reloading=self._reloading())

    def reload(self, work: Callable[[], None]) -> None:
        """Do the work, a reload of the configuration, and tell when it begins and ends."""
        if self._loop is not None:
            self._say_state(reloading=True)
        work()
        self.changed()

    def stopping(self) -> None:
        """We end. What is in the store stays there: for a restart; at a real stop the service manager empties it."""
        self._loop = None
        self._tell("STOPPING=1\nSTATUS=Stopping; virtual machines are left running")

    # What is said

    def _say_state(self, *, reloading: bool) -> None:
        self._told = _line(self._describe())
        now = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        state = f"RELOADING=1\nMONOTONIC_USEC={now}" if reloading else "READY=1"
        self._tell(f"{state}\nSTATUS={self._told}")

    def _beat(self) -> None:
        if self._loop is None:
            return
        self._loop.call_later(min(BEAT, self._watchdog / 2) if self._watchdog else BEAT, self._beat)
        with self._lock:
            self._pay()
            if self._watchdog:
                self._send("WATCHDOG=1")
        line = _line(self._describe())
        if line != self._told:
            self._told = line
            self._tell(f"STATUS={line}")

    def _store(self, name: str, _number: int) -> None:
        """A duplicate of what is in the store already is thrown away there: so this is right after a re-exec, too."""
        label = encode_name(name)
        if len(label) > LONGEST_NAME:
            log.warning("A descriptor's name is too long for the store: a crash will lose it name=%s", name)
            return
        # Without FDPOLL=0, a pipe whose writer has ended would leave the store before anyone has read the rest of it.
        self._tell(f"FDSTORE=1\nFDPOLL=0\nFDNAME={label}", name)

    def _remove(self, name: str) -> None:
        self._tell(f"FDSTOREREMOVE=1\nFDNAME={encode_name(name)}")

    # How it is sent

    def _tell(self, message: str, name: str = "") -> None:
        """Send what must not be lost, `name` of a descriptor with it, after everything that is still owed."""
        if self._address:
            with self._lock:
                self._owed.append((message, name))
                self._pay()

    def _pay(self) -> None:
        """Send what is owed, in order, as far as it goes."""
        while self._owed and self._send(*self._owed[0]):
            self._owed.popleft()

    def _send(self, message: str, name: str = "") -> bool:
        """Say whether it has been sent, or need not be any more."""
        try:
            if self._socket is None:
                kind = socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
                self._socket = socket.socket(socket.AF_UNIX, kind)
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, _as_int(self._fds[name]))] if name else []
            self._socket.sendmsg([message.encode("utf-8", "replace")], rights, socket.MSG_NOSIGNAL, self._address)
        except KeyError:
            return True  # dropped meanwhile
        except OSError as error:
            if not self._failed:
                log.warning("The service manager cannot be told, and will be later error=%s", error)
            self._failed = True
            return False
        self._failed = False
        return True


def received() -> dict[str, int]:
    """Return the descriptors that we were started with, by name, and forget them: the variables that tell of them would still
    be there, and not be true any more, after a re-exec. Only a cold start may call this."""
    told = {name: os.environ.pop(f"LISTEN_{name}", "") for name in ("PID", "FDS", "FDNAMES", "PIDFDID")}
    if told["PID"] != str(os.getpid()) or not told["FDS"].isdecimal():
        return {}
    names = told["FDNAMES"].split(":")
    found: dict[str, int] = {}
    for number in range(FIRST, FIRST + int(told["FDS"])):
        index = number - FIRST
        name = decode_name(names[index]) if index < len(names) and names[index] else "unknown"
        try:
            os.set_inheritable(number, False)
        except OSError as error:
            log.error("A descriptor that we should have been given is not there name=%s error=%s", name, error)
            break
        if name in found and os.path.sameopenfile(number, found[name]):
            os.close(number)  # a socket unit's, and the store's duplicate of it
        else:
            # Several of one name are more than anyone asks for: the table closes what nobody takes, and says so.
            found[name if name not in found else f"{name}#{number}"] = number
    return found


def encode_name(name: str) -> str:
    """Return the name as the store may have it: printable ASCII without a colon. Anything else, and %, becomes %XX."""
    return "".join(
        chr(byte) if 32 <= byte < 127 and byte not in b":%" else f"%{byte:02X}"
        for byte in name.encode("utf-8", "surrogateescape")
    )


def decode_name(label: str) -> str:
    """Undo `encode_name`. What it cannot have made is some other program's or a unit file's, and returned as it is."""
    first, *rest = label.split("%")
    try:
        data = first.encode() + b"".join(bytes((int(part[:2], 16),)) + part[2:].encode() for part in rest)
    except ValueError:
        return label
    name = data.decode("utf-8", "surrogateescape")
    return name if encode_name(name) == label else label


def _watchdog() -> float:
    """Return after how many seconds of silence we would be ended, 0 for never (sd_watchdog_enabled(3))."""
    limit = os.environ.get("WATCHDOG_USEC", "")
    ours = os.environ.get("WATCHDOG_PID") in (None, "", str(os.getpid()))
    return int(limit) / 1e6 if ours and limit.isdecimal() else 0.0


def _line(text: str) -> str:
    return " ".join(text.split())[:LONGEST_STATUS]


def _as_int(number: int) -> bytes:
    return number.to_bytes(4, sys.byteorder)
