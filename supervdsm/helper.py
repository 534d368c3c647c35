"""The helper put together: what it serves, whom it works for, what signals do, and what is handed on when it is replaced."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import signal
import socket
import time
from typing import Any

from supervdsm import log as logs
from supervdsm import notify, orphans, paths, release, wire
from supervdsm.callers import Holders, Only
from supervdsm.daemon import Daemon, given
from supervdsm.loop import Loop
from supervdsm.perform import Call
from supervdsm.privileges import as_user
from supervdsm.replace import Document, Replacement
from supervdsm.server import Server
from supervdsm.settings import Settings
from supervdsm.slow import Slow

log = logging.getLogger("supervdsm")

SOCKET = "svdsm.sock"
BACKLOG = 64


class Trouble(Exception):
    """We cannot start. The text says why."""


class Helper:
    """A helper that is about to run, or runs. `document`: what the image before us left. Raises OSError, ConfigError,
    Trouble."""

    def __init__(self, settings: Settings, document: Document | None, *, spawn: bool, fd: int | None) -> None:
        self._settings = settings
        context = settings.context
        os.umask(0o022)
        if fd is None:
            # One may lie in another, which must be the user's before.
            for place in sorted((context.run_dir, context.lib_dir, context.log_dir, context.repository)):
                paths.provide(place, context.uid, context.gid)
        self._log = logs.configure(context.log_dir)
        self._loop = Loop(settings.watchdog)
        self._slow = Slow(self._loop, context, self._log.fileno() if self._log else 2)
        self._server = Server(self._loop, context, self._slow)
        self._replacement = Replacement(self._loop, self._slow, settings, self._collect, self._tell)
        self._daemon: Daemon | None = None
        self._listener: socket.socket | None = None
        self._callers: Holders | None = None
        if spawn:
            if context.uid == 0:
                raise Trouble("[supervdsm] user is root: there is no point in --spawn then")
            self._daemon = Daemon(self._loop, self._server, settings, *release.program(settings))
        self._slow.on_quiet = self._quiet
        self._stopping = False
        self._begin(document, fd)

    def run(self) -> int:
        """Serve until told to stop, or until there is nobody to serve; return the exit status."""
        handlers = {
            signal.SIGHUP: self._replacement.ask,
            signal.SIGUSR1: self._reopen_log,
            signal.SIGUSR2: self._pass_on,
            signal.SIGTERM: self._stop,
            signal.SIGINT: self._stop,
            signal.SIGCHLD: self._reap,
        }
        self._loop.listen({int(number): handler for number, handler in handlers.items()})
        self._reap()
        log.info("Serving pid=%d user=%s", os.getpid(), self._settings.context.user)
        if self._daemon is None:
            notify.tell(*notify.ready("serving"))
            self._beat()
        return self._loop.run()

    # How it begins, and what it hands on

    def _begin(self, document: Document | None, fd: int | None) -> None:
        if document is None:
            self._begin_anew(fd)
            return
        connections = [socket.socket(fileno=number) for number in document["connections"]]
        if self._daemon is not None:
            self._daemon.resume(document["daemon"], connections)
        elif document["listener"] is not None:
            callers = self._listen(socket.socket(fileno=document["listener"]))
            callers.known = {name: (pid, start) for name, (pid, start) in document["known"].items()}
            for connection in connections:
                self._server.serve(connection, callers)
        else:
            for connection in connections:
                self._serve_parent(connection)
        log.info("Replaced; going on connections=%d waiting=%d", len(connections), len(document["waiting"]))
        for told in document["waiting"]:
            channel = socket.socket(fileno=told["channel"])
            self._loop.at(
                0,
                functools.partial(
                    self._server.take, Call(told["caller"], told["pid"], channel, told["request"].encode())
                ),
            )

    def _begin_anew(self, fd: int | None) -> None:
        if self._daemon is not None:
            self._daemon.given = given()
            orphans.end(self._settings.context)
            self._daemon.start()
        elif fd is not None:
            os.set_inheritable(fd, False)
            self._serve_parent(socket.socket(fileno=fd))
        else:
            self._listen(listener(self._settings))

    def _serve_parent(self, connection: socket.socket) -> None:
        self._server.serve(connection, Only(os.getppid(), os.getuid()), self._stop)

    def _listen(self, sock: socket.socket) -> Holders:
        self._callers = callers = Holders(self._settings.context.run_dir, self._settings.context.uid)
        sock.setblocking(False)
        self._listener = sock
        self._loop.watch(sock, lambda: self._server.accept(sock, callers))
        return callers

    def _collect(self) -> tuple[Document, list[int]]:
        connections = [connection.socket.fileno() for connection in self._server.connections]
        waiting: list[dict[str, Any]] = [
            {"caller": call.caller, "pid": call.pid, "channel": call.channel.fileno(), "request": call.request.decode()}
            for call, _action, _arguments in self._slow.waiting
        ]
        listener = self._listener.fileno() if self._listener else None
        document = {
            "connections": connections, "waiting": waiting, "listener": listener,
            "known": self._callers.known if self._callers else {},
            "daemon": self._daemon.snapshot() if self._daemon else None,
        }  # fmt: skip
        fds = [*connections, *(told["channel"] for told in waiting), *([listener] if listener is not None else [])]
        passed = range(3, 3 + len(self._daemon.given)) if self._daemon else ()
        return document, [*fds, *passed]

    # What happens to it

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            code = os.waitstatus_to_exitcode(status)
            self._server.discarding.discard(pid)
            if self._slow.ended(pid, code) or self._replacement.ended(pid, code):
                continue
            if self._daemon is not None:
                self._daemon.ended(pid, code)

    def _quiet(self) -> None:
        """A slow action has ended: what waited for that may go on."""
        self._replacement.go_if_quiet()
        if self._stopping and not self._slow.at_work():
            self._loop.status = 0

    def _stop(self) -> None:
        """End once nothing is at work, or soon. What still is then ends by itself, unheard."""
        if self._stopping:
            return
        log.info("Stopping")
        if self._daemon is not None:
            self._daemon.stop()  # it may need us for that
            return
        self._stopping = self._slow.held = True
        self._replacement.stop()
        notify.tell("STOPPING=1")
        if self._listener is not None:
            self._withdraw(self._listener)
        self._loop.at(time.monotonic() + self._settings.quiesce_timeout, self._end)
        self._quiet()

    def _end(self) -> None:
        self._loop.status = 0

    def _withdraw(self, sock: socket.socket) -> None:
        self._loop.forget(sock)
        sock.close()
        with as_user(self._settings), contextlib.suppress(OSError):
            os.unlink(os.path.join(self._settings.context.run_dir, SOCKET))

    def _pass_on(self) -> None:
        if self._daemon is not None:
            self._daemon.signal(signal.SIGHUP)

    def _reopen_log(self) -> None:
        if self._log is not None:
            try:
                self._log.reopen()
            except OSError as error:
                log.error("The log goes on in its old file reason=%s", error)

    def _tell(self, *lines: str) -> None:
        """Tell the service manager, unless vdsmd does."""
        if self._daemon is None:
            notify.tell(*lines)

    def _beat(self) -> None:
        if limit := notify.watchdog():
            notify.tell("WATCHDOG=1")
            self._loop.at(time.monotonic() + limit / 3, self._beat)


def listener(settings: Settings) -> socket.socket:
    """Return a listening socket in the run directory, for the user and for root, in place of a stale one. Raises Trouble,
    OSError."""
    path = os.path.join(settings.context.run_dir, SOCKET)
    if _answers(path):
        raise Trouble(f"another supervdsm answers at {path}")
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    folder = paths.walk(settings.context.run_dir)
    fresh = f"{SOCKET}.{os.getpid()}"
    umask = os.umask(0o177)
    try:
        with as_user(settings):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(fresh, dir_fd=folder)
            sock.bind(f"/proc/self/fd/{folder}/{fresh}")
        sock.listen(BACKLOG)  # as root: that is whom callers see at the other end
        with as_user(settings):
            os.rename(fresh, SOCKET, src_dir_fd=folder, dst_dir_fd=folder)
    finally:
        os.umask(umask)
        os.close(folder)
    return sock


def _answers(path: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
        sock.setblocking(False)
        try:
            sock.connect(path)
        except OSError:  # nobody's; or somebody's who takes no calls, and is no reason not to
            return False
        return wire.peer(sock)[1] == 0  # the directory is the user's: anybody could listen there
