"""The daemon as a service: what its manager hears, and what a crash leaves for the next start."""

from __future__ import annotations

import functools
import os
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import Guest
from tests.live.test_guests import assert_counted, boot, settled, ticks
from tests.live.test_lifecycle import Local, create, outcome, refused, status_of
from tests.manager import Manager
from tests.running import Options, Running, Stage
from tests.until import until
from vdsmd.api.xmlrpc import decode_reply, encode_call

pytestmark = pytest.mark.slow

PATIENCE = 120.0
PORT = "api/tcp/127.0.0.1%3A0"
LOCAL = "api/local"

Serve = Callable[..., Running]


@pytest.fixture
def manager(stage: Stage) -> Iterator[Manager]:
    manager = Manager(str(stage.base / "notify"))
    yield manager
    for daemon in stage.daemons:
        daemon.stop()
    manager.close()


@pytest.fixture
def serve(stage: Stage, manager: Manager) -> Serve:
    """Give a function that starts a daemon as the manager would, with what is in the store."""

    def serve(
        again: Running | None = None,
        uri: str = "test:///default",
        config: Options | None = None,
        *,
        wait: bool = True,
        watchdog: float = 0.0,
    ) -> Running:
        env = {**manager.env, **({"WATCHDOG_USEC": str(int(watchdog * 1e6))} if watchdog else {})}
        launcher, numbers = manager.launcher(), manager.numbers()
        return stage.start(uri, config, env, again=again, wait=wait, launcher=launcher, pass_fds=numbers)

    return serve


def question(verb: str) -> bytes:
    body = encode_call(verb, ())
    return b"POST / HTTP/1.0\r\nContent-Type: text/xml\r\nContent-Length: %d\r\n\r\n" % len(body) + body


def answer(client: socket.socket) -> int:
    got = b""
    while data := client.recv(65536):
        got += data
    code: int = decode_reply(got.partition(b"\r\n\r\n")[2])["status"]["code"]
    return code


def told(manager: Manager, wanted: list[str]) -> bool:
    return manager.states() == wanted


def answering(daemon: Running) -> None:
    """Wait until it has looked at its machines."""
    until(lambda: daemon.call("ping")["status"]["code"] == 0, PATIENCE, "it to have looked at its machines")


@pytest.mark.slow
def test_ready_over_re_execs_and_stopping(serve: Serve, manager: Manager) -> None:
    vdsmd = serve()
    until(lambda: manager.states() == ["READY"], PATIENCE)
    assert manager.status().startswith("Generation 0, 0 virtual machines")
    vm_id = create(vdsmd)
    until(lambda: "1 virtual machines" in manager.status(), PATIENCE, "the status to follow")
    for generation in (1, 2):
        vdsmd.reexec()
        wanted = ["READY", *["RELOADING", "READY"] * generation]
        until(functools.partial(told, manager, wanted), PATIENCE, f"the states to be {wanted}")
        assert manager.status() == f"Generation {generation}, 1 virtual machines"
    begun = [said.fields for said in manager.said if "RELOADING" in said.fields]
    assert all(int(fields["MONOTONIC_USEC"]) > 0 and "under way" in fields["STATUS"] for fields in begun)
    assert status_of(vdsmd, vm_id) == "Up"
    assert vdsmd.stop() == 0
    until(lambda: manager.states()[-1] == "STOPPING", PATIENCE)
    assert {said.pid for said in manager.said} == {vdsmd.pid}


def test_a_refused_re_exec_is_over_and_says_why(serve: Serve, manager: Manager) -> None:
    vdsmd = serve()
    good = vdsmd.config.read_text()
    vdsmd.config.write_text(good.replace("management_port = 0", "management_port = http"))
    reason = refused(vdsmd)
    until(lambda: manager.states() == ["READY", "RELOADING", "READY"], PATIENCE)
    assert manager.status().startswith("Generation 0, ") and " ".join(reason.split()) in manager.status()
    vdsmd.config.write_text(good)
    vdsmd.reexec()
    until(lambda: manager.states()[-1] == "READY" and manager.status() == "Generation 1, 0 virtual machines", PATIENCE)


def test_a_reload_of_the_configuration_is_told_and_so_is_why_it_was_refused(serve: Serve, manager: Manager) -> None:
    vdsmd = serve()
    good = vdsmd.config.read_text()
    os.kill(vdsmd.pid, signal.SIGUSR1)
    until(lambda: manager.states() == ["READY", "RELOADING", "READY"], PATIENCE)
    assert "kept as it was" not in manager.status()
    vdsmd.config.write_text(good.replace("management_port = 0", "management_port = http"))
    os.kill(vdsmd.pid, signal.SIGUSR1)
    until(lambda: manager.states() == ["READY", *["RELOADING", "READY"] * 2], PATIENCE)
    assert "the configuration is kept as it was: " in manager.status() and "expected a whole number" in manager.status()


@pytest.mark.slow
def test_the_watchdog_is_pinged_before_and_after_a_re_exec(serve: Serve, manager: Manager) -> None:
    vdsmd = serve(watchdog=2.0)

    def more() -> None:
        seen = len(manager.all("WATCHDOG"))
        until(lambda: len(manager.all("WATCHDOG")) > seen + 1, PATIENCE, "pings")

    more()
    vdsmd.reexec()
    more()
    os.kill(vdsmd.pid, signal.SIGSTOP)
    try:
        until(lambda: Path(f"/proc/{vdsmd.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T", PATIENCE)
    finally:
        os.kill(vdsmd.pid, signal.SIGCONT)
    more()


def test_after_a_kill_the_port_is_the_same_and_whoever_waited_is_answered(serve: Serve, manager: Manager) -> None:
    vdsmd = serve()
    vm_id = create(vdsmd)
    vdsmd.reexec()  # what is stored is stored once, over re-execs too
    manager.wait_for(PORT, LOCAL)
    port, path = vdsmd.port, vdsmd.socket
    vdsmd.kill()
    with (
        socket.create_connection(("127.0.0.1", port), PATIENCE) as remote,
        socket.socket(socket.AF_UNIX) as local,
    ):
        remote.sendall(question("ping"))
        local.settimeout(PATIENCE)
        local.connect(path)
        local.sendall(question("ping"))
        again = serve(vdsmd)
        assert again.pid != vdsmd.pid and again.port == port
        # 99: it has not looked at its machines yet. That is an answer, too.
        assert {answer(remote), answer(local)} <= {0, 99}
    assert again.generation == 0
    answering(again)
    assert vm_id in [vm["vmId"] for vm in again.must("list")["vmList"]]
    manager.wait_for(PORT, LOCAL)
    again.reexec()
    assert again.port == port
    assert not any(name.startswith("LISTEN_") for name in environment(again.pid))


def environment(pid: int) -> set[str]:
    return {entry.partition("=")[0] for entry in Path(f"/proc/{pid}/environ").read_text().split("\0")}


def test_lock_and_pidfds_are_never_stored(serve: Serve, manager: Manager) -> None:
    vdsmd = serve()
    named = set(vdsmd.must("vdsmd.status")["info"]["named_descriptors"])
    vdsmd.reexec()
    assert "instance/lock" in named
    manager.wait_for(PORT, LOCAL)
    stored = {said.fields["FDNAME"] for said in manager.said if "FDSTORE" in said.fields}
    assert stored == {PORT, LOCAL}
    # The lock has died with the first daemon, so another may start at once.
    vdsmd.kill()
    answering(serve(vdsmd))


def test_a_restart_keeps_the_port_and_not_the_local_socket_whose_path_is_gone(serve: Serve, manager: Manager) -> None:
    vdsmd = serve()
    port = vdsmd.port
    assert vdsmd.stop() == 0
    manager.wait_for(PORT)
    with socket.create_connection(("127.0.0.1", port), PATIENCE) as client:
        client.sendall(question("ping"))
        again = serve(vdsmd)
        assert answer(client) in (0, 99)
    assert Local(again.socket).call("ping")["status"]["code"] in (0, 99)
    manager.wait_for(PORT, LOCAL)


def test_a_local_socket_that_nobody_can_reach_any_more_is_made_anew(
    serve: Serve, stage: Stage, manager: Manager
) -> None:
    """In between, somebody runs it by hand, without the store, and that one is killed, too: the path leads to its socket."""
    vdsmd = serve()
    manager.wait_for(PORT, LOCAL)
    vdsmd.kill()
    by_hand = stage.start(again=vdsmd)
    by_hand.kill()
    again = serve(vdsmd)
    assert Local(again.socket).call("ping")["status"]["code"] in (0, 99)
    assert "The local socket is made anew" in again.log()
    manager.wait_for(PORT, LOCAL)
    answering(again)
    os.unlink(again.socket)
    again.reexec()
    assert Local(again.socket).call("ping")["status"]["code"] == 0


def test_a_socket_that_a_unit_opened_is_served(serve: Serve, manager: Manager) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    address, port = listener.getsockname()
    manager.store.append((f"api/tcp/{address}%3A{port}", listener.detach()))
    vdsmd = serve(config={"addresses": {"management_port": port}})
    assert vdsmd.port == port and vdsmd.must("ping")
    vdsmd.reexec()
    assert vdsmd.port == port and vdsmd.must("ping")


def test_what_nobody_claims_leaves_the_store(serve: Serve, manager: Manager) -> None:
    vdsmd = serve()
    manager.wait_for(PORT, LOCAL)
    vdsmd.kill()
    for name in ("vm/11111111-2222-4333-8444-555555555555/console", "stored"):
        manager.store.append((name, os.memfd_create(name)))
    again = serve(vdsmd)
    manager.wait_for(PORT, LOCAL)
    until(lambda: "nobody claims name=vm/11111111" in again.log(), PATIENCE)
    answering(again)
    named = again.must("vdsmd.status")["info"]["named_descriptors"]
    assert not [name for name in named if name.startswith(("vm/", "stored"))]


@pytest.mark.slow
def test_a_manager_that_is_away_hurts_nobody_and_hears_it_all_later(serve: Serve, manager: Manager) -> None:
    vdsmd = serve()
    until(lambda: manager.states() == ["READY"], PATIENCE)
    away = f"{manager.address}.away"
    os.rename(manager.address, away)
    try:
        vdsmd.reexec()
        assert outcome(vdsmd)["state"] == "done"
        log = (vdsmd.log_dir / "vdsm.log").read_text()
        assert log.count("The service manager cannot be told") == 2  # once by each run
        assert manager.states() == ["READY"]
    finally:
        os.rename(away, manager.address)
    until(lambda: len(manager.all("READY")) == 2 and "Generation 1" in manager.status(), PATIENCE)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_real_guests_console_is_in_the_store(serve: Serve, manager: Manager, guest: Guest) -> None:
    vdsmd = serve(uri="embed")
    [vm_id] = boot(vdsmd, guest)
    console = f"vm/{vm_id}/console"
    manager.wait_for(PORT, LOCAL, console)
    vdsmd.reexec()
    until(lambda: settled(vdsmd), 240)
    seen = ticks(vdsmd, vm_id)[-1]
    vdsmd.kill()
    [stored] = [number for name, number in manager.store if name == console]
    inode = os.fstat(stored).st_ino
    again = serve(vdsmd, uri="embed")
    until(lambda: again.call("list")["status"]["code"] == 0 and ticks(again, vm_id)[-1] > seen + 10, 240)
    assert_counted(again, vm_id)
    manager.wait_for(PORT, LOCAL, console)
    assert inode in {
        os.stat(entry).st_ino for entry in Path(f"/proc/{again.pid}/fd").iterdir() if "console" in os.readlink(entry)
    }
    until(lambda: settled(again), 240)
    again.must("destroy", vm_id)
    manager.wait_for(PORT, LOCAL)
