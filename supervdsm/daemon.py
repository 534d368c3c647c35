"""vdsmd as our child: an ordinary user's process that shares nothing with us but one end of a socket pair.

It promises that there is one at a time, that it holds none of root's power, and that one that dies is started again, but not
for ever.
"""

from __future__ import annotations

import fcntl
import logging
import os
import signal
import socket
import time
from typing import Any, NoReturn

from supervdsm import orphans, wire
from supervdsm.callers import Only, start_time
from supervdsm.loop import HANDLED, Loop
from supervdsm.privileges import drop
from supervdsm.server import Server
from supervdsm.settings import Settings

log = logging.getLogger("supervdsm.daemon")

NAME = "supervdsm"
"""Of the descriptor, as vdsmd gets it (sd_listen_fds(3))."""
FIRST = 3
SHORTEST, LONGEST = 0.1, 5.0
"""Seconds between a death and the next start: doubled from one death to the next."""
LIVED = 60.0
"""Seconds after which a life counts as one, and deaths are counted anew."""
STOP = 30.0
"""Seconds to end in, when asked to."""
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
KEPT = ("LANG", "LANGUAGE", "LC_", "TZ", "NOTIFY_SOCKET", "WATCHDOG_USEC", "PYTHONPATH", "PYTHONSAFEPATH", "VDSMD_")
"""Variables, or how they begin, that vdsmd gets of ours. Everything else is left behind."""


def given() -> list[str]:
    """Return the names of the descriptors that the service manager gave us: they are vdsmd's, and nobody else gets them."""
    told = {name: os.environ.pop(f"LISTEN_{name}", "") for name in ("PID", "FDS", "FDNAMES")}
    if told["PID"] != str(os.getpid()) or not told["FDS"].isdecimal():
        return []
    count = int(told["FDS"])
    for fd in range(FIRST, FIRST + count):
        os.set_inheritable(fd, False)
    names = told["FDNAMES"].split(":") if told["FDNAMES"] else []
    return [*names, *["unknown"] * count][:count]


class Daemon:
    def __init__(self, loop: Loop, server: Server, settings: Settings, program: list[str], env: dict[str, str]) -> None:
        self.given: list[str] = []
        self.pid = 0
        self._loop = loop
        self._server = server
        self._settings = settings
        self._program = program
        self._env = env
        self._since = 0.0
        self._deaths = 0
        self._stopping = False

    def start(self) -> None:
        """Start it."""
        if self._stopping:
            return
        ours, theirs = wire.pair()
        with theirs:
            self.pid = os.fork()
            if self.pid == 0:
                self._become(theirs)
        self._since = time.monotonic()
        orphans.note(self._settings.context, self.pid)
        self._serve(ours)
        log.info("Started vdsmd pid=%d user=%s program=%s", self.pid, self._settings.context.user, self._program[0])

    def ended(self, pid: int, code: int) -> bool:
        """Take note of the end of a process. Say whether it was vdsmd."""
        if pid != self.pid:
            return False
        self.pid = 0
        orphans.forget(self._settings.context)
        if self._stopping or code in (0, 2):
            # 2: its command line or its configuration is wrong, and will be the next time.
            log.info("vdsmd ended code=%d", code)
            self._loop.status = code if code >= 0 else 128 - code
            return True
        self._deaths = 1 if time.monotonic() - self._since > LIVED else self._deaths + 1
        if self._deaths > self._settings.restarts:
            log.error("vdsmd ended code=%d; it has died %d times in a row, and is given up", code, self._deaths)
            self._loop.status = 1
        else:
            self._start_again(code)
        return True

    def stop(self) -> None:
        """Have it end, and us with its status. Virtual machines are left running."""
        self._stopping = True
        self.signal(signal.SIGTERM)
        if not self.pid:
            self._loop.status = 0
        self._loop.at(time.monotonic() + STOP, lambda: self.signal(signal.SIGKILL))

    def signal(self, number: int) -> None:
        """Pass a signal on."""
        if self.pid:
            os.kill(self.pid, number)

    def snapshot(self) -> dict[str, Any]:
        """Return what the next image must know."""
        start = start_time(self.pid) if self.pid else None
        return {
            "pid": self.pid, "start": start, "since": self._since, "deaths": self._deaths,
            "given": self.given, "stopping": self._stopping,
        }  # fmt: skip

    def resume(self, told: dict[str, Any], connections: list[socket.socket]) -> None:
        """Go on with the child that the image before us had; it may have ended meanwhile, which we shall be told."""
        self.given, self._since, self._deaths = told["given"], told["since"], told["deaths"]
        self._stopping = told["stopping"]
        if told["pid"] and start_time(told["pid"]) == told["start"]:
            self.pid = told["pid"]
            for connection in connections:
                self._serve(connection)
        else:
            self.start()
        if self._stopping:
            self.stop()

    def _start_again(self, code: int) -> None:
        delay = min(SHORTEST * 2 ** (self._deaths - 1), LONGEST)
        log.error("vdsmd ended code=%d; it is started again in %.1f s deaths=%d", code, delay, self._deaths)
        self._loop.at(time.monotonic() + delay, self.start)

    def _serve(self, ours: socket.socket) -> None:
        self._server.serve(ours, Only(self.pid, self._settings.context.uid))

    # In the child

    def _become(self, theirs: socket.socket) -> NoReturn:
        """Be vdsmd."""
        try:
            number = FIRST + len(self.given)
            # Out of the way of its own number, in case it has another's.
            fd = fcntl.fcntl(theirs.fileno(), fcntl.F_DUPFD_CLOEXEC, number + 1)
            os.dup2(fd, number)
            for inherited in range(FIRST, number):
                os.set_inheritable(inherited, True)
            null = os.open(os.devnull, os.O_RDONLY)
            os.dup2(null, 0)
            os.close(null)
            # A terminal of root's must not be one that an ordinary user's process controls.
            os.setsid()
            os.chdir("/")
            os.umask(0o022)
            for handled in (*HANDLED, signal.SIGPIPE):
                signal.signal(handled, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_SETMASK, [])
            # Nothing else of root's, were it inherited from whoever started us.
            os.closerange(number + 1, 1 << 20)
            drop(self._settings)
            os.execve(self._program[0], self._program, self._environment())
        except BaseException:
            # The edge: this is a copy of root's process, which must not get back into root's loop.
            log.exception("vdsmd cannot be started")
        finally:
            os._exit(1)

    def _environment(self) -> dict[str, str]:
        """Return its environment: a stated list, and nothing of what root happened to have."""
        context = self._settings.context
        kept = {name: value for name, value in os.environ.items() if name.startswith(KEPT)}
        home, runtime = f"{context.lib_dir}/home", f"{context.run_dir}/user"
        for folder in (home, runtime):
            os.makedirs(folder, mode=0o700, exist_ok=True)
        if "WATCHDOG_USEC" in kept:
            kept["WATCHDOG_PID"] = str(os.getpid())
        return {
            **kept,
            **self._env,
            "PATH": PATH, "USER": context.user, "LOGNAME": context.user, "HOME": home, "XDG_RUNTIME_DIR": runtime,
            "LISTEN_PID": str(os.getpid()), "LISTEN_FDS": str(len(self.given) + 1),
            "LISTEN_FDNAMES": ":".join([*self.given, NAME]),
        }  # fmt: skip
