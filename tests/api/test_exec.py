"""A real process that replaces itself under its clients: no call is lost, and descriptors that run out lose none either."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.api.server import PATIENCE, Client, request
from tests.until import until

ROOT = Path(__file__).parent.parent.parent


class Served:
    """A child at work. `client()` connects to it, once, without trying again."""

    def __init__(self, client: Callable[[], Client], log: Path, process: subprocess.Popen[bytes]) -> None:
        self.client = client
        self.log = log
        self.process = process

    def call(self, name: str) -> list[int]:
        with self.client() as client:
            found: list[int] = client.call(name)
        return found


@contextmanager
def child(folder: Path, family: socket.AddressFamily = socket.AF_INET, descriptors: int = 0) -> Iterator[Served]:
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.bind(("127.0.0.1", 0) if family == socket.AF_INET else str(folder / "sock"))
    listener.listen(1024)
    address = listener.getsockname()

    def connect() -> Client:
        sock = socket.socket(family, socket.SOCK_STREAM)
        sock.settimeout(PATIENCE)
        sock.connect(address)
        return Client(sock)

    log = folder / "log"
    command = [sys.executable, "-m", "tests.api.child", str(listener.fileno()), "0", str(descriptors)]
    with log.open("wb") as output, listener:
        process = subprocess.Popen(command, cwd=ROOT, pass_fds=[listener.fileno()], stderr=output)
        try:
            yield Served(connect, log, process)
        finally:
            process.kill()
            process.wait()


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_UNIX], ids=["tcp", "local"])
def test_no_call_is_lost_over_many_execs(tmp_path: Path, family: socket.AddressFamily) -> None:
    rounds = 8
    stop = threading.Event()
    answered = [0, 0, 0]
    lost: list[BaseException] = []

    def call_on(index: int, name: str) -> None:
        try:
            while not stop.is_set():
                served.call(name)
                answered[index] += 1
        except (OSError, AssertionError) as error:
            lost.append(error)

    with child(tmp_path, family) as served:
        pid = served.process.pid
        callers = [threading.Thread(target=call_on, args=(i, name)) for i, name in enumerate(("ping", "ping", "slow"))]
        for caller in callers:
            caller.start()
        try:
            for generation in range(rounds):
                before = list(answered)
                assert served.call("again")[0] == generation
                until(lambda: served.call("ping")[0] == generation + 1, PATIENCE)  # noqa: B023
                until(lambda: all(now > then for now, then in zip(answered, before, strict=True)), PATIENCE)  # noqa: B023
        finally:
            stop.set()
            for caller in callers:
                caller.join(PATIENCE)
        assert not lost, lost[0]
        assert served.process.pid == pid
        assert served.process.poll() is None


def test_who_waits_in_the_backlog_is_served_by_the_next_image(tmp_path: Path) -> None:
    with child(tmp_path) as served:
        assert served.call("ping")[0] == 0
        silent = [served.client() for _ in range(20)]
        assert served.call("again")[0] == 0
        until(lambda: served.call("ping")[0] == 1, PATIENCE)
        for client in silent:
            assert client.call("ping")[0] in (0, 1)
            client.sock.close()


def test_five_hundred_idle_connections(tmp_path: Path) -> None:
    with child(tmp_path) as served:
        idle = [served.client() for _ in range(500)]
        assert served.call("ping")[0] == 0
        for client in idle:
            client.call("ping")
        assert served.call("ping")[1] > 500  # all of them are open at once
        for client in idle:
            client.sock.close()


def test_out_of_descriptors(tmp_path: Path) -> None:
    with child(tmp_path, descriptors=24) as served:
        clients = [served.client() for _ in range(60)]
        for client in clients:
            client.send(request("ping"))
        for client in clients:
            assert client.answer().value[0] == 0
        assert served.call("ping")[0] == 0
        assert "No connection can be accepted" in served.log.read_text()
        for client in clients:
            client.sock.close()
