"""Who may call a helper that is a service: the daemons, on the kernel's word, and nobody else."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from supervdsm.client import Client, HelperGone, NoHelper, NotAllowed
from tests.supervdsm.helper import PATIENCE, Helper
from tests.until import until

pytestmark = pytest.mark.slow

SERVER = "tests.supervdsm.server"
NOBODY = 65534
STRANGER = 1
"""Debian's user `daemon`, whom nothing here works for."""

# A caller in a process of its own, in bare sockets, for it may not be able to read this checkout. It says what it got, then
# waits, so that what it holds stays held, and says it again for each line.
CALLER = """
import array, fcntl, os, socket, sys

path, request, lock = sys.argv[1:]
if lock:
    held = os.open(lock, os.O_RDWR | os.O_CREAT, 0o644)
    fcntl.flock(held, fcntl.LOCK_EX)
while True:
    try:
        main = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        main.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        main.connect(path)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        main.sendmsg([request.encode()], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [theirs.fileno()]))])
        theirs.close()
        print(ours.recv(65536).decode() or "nothing", flush=True)
    except OSError as error:
        print(type(error).__name__, flush=True)
    if not sys.stdin.readline():
        break
"""
PING = json.dumps({"action": "ping", "arguments": {}})


class Caller:
    def __init__(self, one: Helper, uid: int, lock: Path | None, request: str = PING) -> None:
        self.process = subprocess.Popen(
            [os.path.realpath(sys.executable), "-I", "-c", CALLER, str(one.path), request, str(lock or "")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd="/",
            user=uid,
            group=uid,
            extra_groups=[],
        )
        self.said = self._line()

    def again(self) -> str:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return self._line()

    def _line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()


@pytest.fixture
def one(helper: Callable[..., Helper]) -> Helper:
    """Give a service that nobody holds the lock of."""
    made = helper(service=True, module=SERVER)
    made.release()
    (made.run_dir / "vdsmd.pid").unlink()
    return made


@pytest.fixture
def caller(one: Helper) -> Iterator[Callable[..., Caller]]:
    made: list[Caller] = []

    def start(uid: int, lock: str | Path = "", request: str = PING) -> Caller:
        made.append(Caller(one, uid, one.run_dir / lock if lock else None, request))
        return made[-1]

    yield start
    for each in made:
        each.process.kill()
        each.process.wait()
        for pipe in (each.process.stdin, each.process.stdout):
            assert pipe is not None
            pipe.close()


def reply(text: str) -> Any:
    told = json.loads(text)
    return told.get("value") or told["error"]["type"]


@pytest.mark.parametrize("lock", ["vdsmd.pid", "hsmd.pid"])
def test_a_daemon_is_served(one: Helper, caller: Callable[..., Caller], lock: str) -> None:
    daemon = caller(NOBODY, lock)
    assert reply(daemon.said) == "pong"
    assert reply(daemon.again()) == "pong"
    until(lambda: f"caller={lock[:-4]} pid={daemon.process.pid} action=ping" in one.log(), PATIENCE)


def test_the_right_user_is_not_enough(one: Helper, caller: Callable[..., Caller]) -> None:
    assert reply(caller(NOBODY).said) == "NotAllowed"
    until(lambda: "Refused a message" in one.log(), PATIENCE)


def test_root_is_not_enough_either(one: Helper) -> None:
    with pytest.raises(NotAllowed, match="not a daemon that we work for"):
        one.client.call("ping")


def test_a_root_daemon_is_served(one: Helper) -> None:
    one.hold()
    assert one.client.call("ping") == "pong"


def test_another_user_gets_no_connection(one: Helper, caller: Callable[..., Caller]) -> None:
    assert caller(STRANGER).said == "PermissionError"
    # Even where the socket's mode does not keep it out, and though it holds the lock.
    one.path.chmod(0o777)
    lock = one.run_dir / "vdsmd.pid"
    lock.touch(0o666)
    lock.chmod(0o666)
    assert caller(STRANGER, "vdsmd.pid").said in ("nothing", "BrokenPipeError", "ConnectionResetError")
    until(lambda: "Refused a connection pid=" in one.log() and f"uid={STRANGER}" in one.log(), PATIENCE)


def test_whoever_has_the_lock_no_more_is_nobody(one: Helper) -> None:
    one.hold()
    assert one.client.call("ping") == "pong"
    one.release()
    # The connection's verdict stands as long as the process lives; a new connection is looked into anew.
    with contextlib.closing(Client(path=str(one.path))) as fresh, pytest.raises(NotAllowed):
        fresh.call("ping")


def test_a_connection_handed_to_another_process_is_not_its_permission(one: Helper) -> None:
    one.hold()
    assert one.client.call("ping") == "pong"
    connecting = "main = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)"
    script = CALLER.replace(connecting, "main = socket.socket(fileno=int(path))").replace(
        "        main.connect(path)\n", ""
    )
    fd = one.client.fileno()
    run = subprocess.run(
        [sys.executable, "-I", "-c", script, str(fd), PING, ""],
        pass_fds=[fd],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        check=True,
    )
    assert reply(run.stdout) == "NotAllowed", run.stderr


def test_a_lock_file_put_in_the_way_gains_nothing(one: Helper, caller: Callable[..., Caller]) -> None:
    daemon = caller(NOBODY, "vdsmd.pid")
    assert reply(daemon.said) == "pong"
    (one.run_dir / "vdsmd.pid").unlink()
    usurper = caller(NOBODY, "vdsmd.pid")
    assert reply(usurper.said) == "NotAllowed"
    daemon.process.kill()
    daemon.process.wait()
    assert reply(usurper.again()) == "pong"  # by now it is the daemon, started again


@pytest.mark.parametrize("kind", ["link", "fifo", "directory"])
def test_a_lock_that_is_no_file_says_nothing(one: Helper, kind: str, tmp_path: Path) -> None:
    lock = one.run_dir / "vdsmd.pid"
    if kind == "link":
        lock.symlink_to(tmp_path / "elsewhere")
        one.hold()  # follows it
    elif kind == "fifo":
        os.mkfifo(lock)
        one.hold()
    else:
        lock.mkdir()
    with pytest.raises(NotAllowed):
        one.client.call("ping")


def test_a_shared_lock_is_not_the_daemons(one: Helper) -> None:
    one.hold()
    fcntl.flock(one._lock, fcntl.LOCK_SH)
    with pytest.raises(NotAllowed):
        one.client.call("ping")


def test_the_socket_is_the_users_alone(one: Helper) -> None:
    told = one.path.stat()
    assert (told.st_uid, told.st_mode & 0o777) == (NOBODY, 0o600)
    assert [entry.name for entry in one.run_dir.iterdir() if "sock" in entry.name] == ["svdsm.sock"]


def test_a_call_waits_for_a_service_that_comes_back(one: Helper) -> None:
    one.hold()
    assert one.client.call("ping") == "pong"
    one.end(signal.SIGKILL)
    again = threading.Timer(0.2, one.start)
    again.start()
    try:
        assert until(lambda: _ping(one.client), PATIENCE) == "pong"
    finally:
        again.join()


def test_calls_go_on_with_a_service_that_was_started_again(one: Helper) -> None:
    one.hold()
    assert one.client.call("ping") == "pong"
    one.end(signal.SIGKILL)
    assert one.path.exists(), "it had no time to clean up"
    one.start()
    assert one.client.call("ping") == "pong"
    with pytest.raises(HelperGone):
        one.client.call("test.die")
    one.process.wait(PATIENCE)
    one.start()
    assert one.client.call("ping") == "pong"


def test_a_service_that_stays_away_is_an_error(one: Helper) -> None:
    one.hold()
    assert one.client.call("ping") == "pong"
    assert one.end() == 0
    assert not one.path.exists()
    with pytest.raises(NoHelper, match=r"supervdsm does not answer at .*svdsm\.sock"):
        one.client.call("ping")


def test_a_socket_that_is_not_roots_is_not_believed(one: Helper) -> None:
    place = one.run_dir / "trap.sock"
    script = (
        f"import socket, sys; s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET); s.bind({str(place)!r});"
        " s.listen(); print(flush=True); sys.stdin.read()"
    )
    command = [os.path.realpath(sys.executable), "-I", "-c", script]
    with subprocess.Popen(command, user=NOBODY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd="/") as trap:
        assert trap.stdout is not None and trap.stdout.readline()
        with pytest.raises(NoHelper, match="is a socket of user 65534"):
            Client(path=str(place)).call("ping")
        trap.kill()


def test_there_is_one_service_at_a_time(one: Helper) -> None:
    command = [sys.executable, "-m", "supervdsm", "--config", str(one.config)]
    second = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE)
    assert second.returncode == 1
    assert "another supervdsm answers at" in second.stderr
    one.hold()
    assert one.client.call("ping") == "pong"


def test_connections_of_others_do_not_keep_the_daemon_out(one: Helper) -> None:
    one.hold()
    before = one.client.call("test.descriptors")
    with contextlib.ExitStack() as held, contextlib.closing(Client(path=str(one.path))) as fresh:
        strangers = [held.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)) for _ in range(80)]
        for sock in strangers:
            until(lambda s=sock: s.connect_ex(str(one.path)) == 0, PATIENCE)  # type: ignore[misc]
        assert fresh.call("ping") == "pong"
        assert one.client.call("ping") == "pong", "one that was proven stays"
        strangers[0].settimeout(PATIENCE)
        assert strangers[0].recv(1) == b"", "those that were there first made room"
        assert len(one.client.call("test.descriptors")) < len(before) + 2 * 64
    until(lambda: len(one.client.call("test.descriptors")) == len(before), PATIENCE)


def test_more_connections_of_the_daemons_own_are_refused(one: Helper) -> None:
    one.hold()
    with contextlib.ExitStack() as held:
        clients = [held.enter_context(contextlib.closing(Client(path=str(one.path)))) for _ in range(64)]
        assert {client.call("ping") for client in clients} == {"pong"}
        with pytest.raises((NoHelper, HelperGone)):
            one.client.call("ping")
        until(lambda: "Refused a connection" in one.log(), PATIENCE)
    assert until(lambda: _ping(one.client), PATIENCE) == "pong"


def test_who_the_daemon_is_outlives_a_replacement(one: Helper, caller: Callable[..., Caller]) -> None:
    daemon = caller(NOBODY, "vdsmd.pid")
    assert reply(daemon.said) == "pong"
    one.send(signal.SIGHUP)
    until(lambda: "Replaced; going on" in one.log(), PATIENCE)
    (one.run_dir / "vdsmd.pid").unlink()
    assert reply(caller(NOBODY, "vdsmd.pid").said) == "NotAllowed"


def test_somebody_elses_socket_in_its_place_is_no_other_helper(one: Helper) -> None:
    one.end()
    script = (
        f"import socket, sys; s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET); s.bind({str(one.path)!r});"
        " s.listen(); print(flush=True); sys.stdin.read()"
    )
    command = [os.path.realpath(sys.executable), "-I", "-c", script]
    with subprocess.Popen(command, user=NOBODY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd="/") as trap:
        assert trap.stdout is not None and trap.stdout.readline()
        one.start()
        assert one.client.call("ping") == "pong"
        trap.kill()


def _ping(client: Client) -> Any:
    try:
        return client.call("ping")
    except (NoHelper, HelperGone):
        return None
