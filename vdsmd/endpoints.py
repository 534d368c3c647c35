"""Endpoints: where clients reach us. The listening sockets are named descriptors and are never closed by a re-exec, so a
client that comes back meets a pause, never a refusal.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec

from state.directory import StateDirectory
from state.fds import FdTable
from vdsmd.config import Config

if TYPE_CHECKING:
    from vdsmd.api.rim import Rim

log = logging.getLogger("endpoints")

BACKLOG = 4096
LOCAL = "api/local"


class Endpoints:
    """The TCP port and the local socket."""

    def __init__(self, fds: FdTable, config: Config) -> None:
        """Open what was not inherited. Raises OSError with the address in its text."""
        address = (config.addresses.management_ip, config.addresses.management_port)
        self._config = config
        self._fds = fds
        self._path = os.path.join(config.paths.run_dir, "vdsmd.sock")
        tcp = fds.obtain("api/tcp/{}:{}".format(*address), lambda: _listen_tcp(*address), stored=True)
        self._tcp = socket.socket(fileno=tcp)
        self._local = socket.socket(fileno=self._obtain_local())
        self._rim: Rim | None = None

    def serve(self, rim: Rim, generation: int) -> None:
        """Answer from now on, and say where."""
        tls = None
        if self._config.vars.ssl:
            from vdsmd.api.tls import server_context  # costs 12 ms of pause, which only those who use it should pay

            tls = server_context(self._config.vars.trust_store_path)
        self._rim = rim
        rim.listen(self._tcp, tls=tls, local=False)
        rim.listen(self._local, tls=None, local=True)
        self._announce(generation)

    def _obtain_local(self) -> int:
        found = self._fds.take(LOCAL, stored=True)
        if found is not None and not _is_reached_by(found, self._path):
            log.warning("The local socket is made anew: its path does not lead to it any more path=%s", self._path)
            self._fds.drop(LOCAL)
        return self._fds.obtain(LOCAL, lambda: _listen_local(self._path), stored=True)

    def wind_down(self) -> None:
        """A drain will follow soon: have clients come back on new connections, which a drain cannot hurt."""
        if self._rim is not None:
            self._rim.wind_down()

    def drain(self, done: Callable[[], None]) -> None:
        """Accept nobody, deliver every answer that is owed, close all connections, then call `done()`."""
        if self._rim is None:
            done()
            return
        self._rim.pause_accepting()
        self._rim.drain(done)

    def resume(self) -> None:
        """Undo `drain`: the re-exec was refused."""
        if self._rim is not None:
            self._rim.resume_accepting()

    def withdraw(self) -> None:
        """We stop for good: nobody should look for us here."""
        for name in ("endpoints.json", "vdsmd.sock"):
            with contextlib.suppress(OSError):
                os.unlink(os.path.join(self._config.paths.run_dir, name))
        # Without its path nobody reaches it. The port stays in the service manager's store: clients of a restart wait in it.
        self._local.detach()
        self._fds.drop(LOCAL)

    def describe(self, generation: int) -> dict[str, Any]:
        host, port = self._tcp.getsockname()[:2]
        return {
            "pid": os.getpid(),
            "generation": generation,
            "xmlrpc": {"host": host, "port": port, "ssl": self._config.vars.ssl},
            "socket": self._path,
            "since": time.time(),
        }

    def _announce(self, generation: int) -> None:
        told = self.describe(generation)
        try:
            StateDirectory(self._config.paths.run_dir).write(
                "endpoints.json", msgspec.json.encode(told) + b"\n", mode=0o644
            )
        except OSError as error:
            log.error("Cannot say where we serve file=endpoints.json error=%s", error)
        log.info(
            "Serving generation=%d address=%s port=%d ssl=%s socket=%s",
            generation,
            *told["xmlrpc"].values(),
            self._path,
        )


def _listen_tcp(host: str, port: int) -> int:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # With the protocol named, or the option that avoids a 40 ms delay per answer is not inherited by connections.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(BACKLOG)
    except (OSError, OverflowError) as error:
        listener.close()
        raise OSError(f"cannot listen on {host} port {port}: {error}") from error
    listener.setblocking(False)
    return listener.detach()


def _listen_local(path: str) -> int:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)  # a dead one: we hold the lock of this run directory
        before = os.umask(0o117)
        try:
            listener.bind(path)
        finally:
            os.umask(before)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise OSError(f"cannot listen on {path}: {error}") from error
    listener.setblocking(False)
    return listener.detach()


def _is_reached_by(number: int, path: str) -> bool:
    """Say whether whoever connects to the path comes to this listening socket. We hold the lock of the run directory: a
    socket that listens there is no other daemon's."""
    with socket.socket(fileno=os.dup(number)) as held:
        if held.getsockname() != path:
            return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
        try:
            probe.connect(path)
        except BlockingIOError:
            return True  # there is a queue in front of it
        except OSError:
            return False
    return True
