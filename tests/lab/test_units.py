"""The units under a real systemd: whatever it does to the daemon, guests go on, and it is told how things are."""

from __future__ import annotations

import os
import pwd
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from state.release import VERSION
from tests.lab import installation
from tests.lab.installation import CURRENT, drop_in, run
from tests.lab.service import PATIENCE, UNIT, Service, is_process
from tests.live.test_guests import assert_counted, pid, settled
from tests.live.test_service import answer, question
from tests.until import until

pytestmark = [pytest.mark.lab, pytest.mark.slow, pytest.mark.timeout(600)]

Machine = tuple[str, int]


def assert_unharmed(service: Service, machine: Machine) -> None:
    """The guest is the same process, known by the daemon, and has counted without a gap."""
    vm_id, before = machine
    assert pid(service, vm_id) == before and is_process(before)
    assert_counted(service, vm_id)


def library() -> Path:
    """Return where the code of the release in force lies."""
    [found] = CURRENT.resolve().glob("lib/python3.*/site-packages")
    return found


def test_start_returns_when_it_serves_as_its_own_user(installed: Service) -> None:
    installed.systemctl("start")
    installed.taken = installed.main_pid
    assert installed.endpoints()["generation"] == 0
    assert installed.show("StatusText").startswith("Generation 0")
    assert pwd.getpwuid(os.stat(f"/proc/{installed.pid}").st_uid).pw_name == "vdsm"
    installed.found()


def test_reload_returns_when_the_new_run_serves(service: Service, machine: Machine) -> None:
    before = service.generation
    for step in (1, 2):
        service.systemctl("reload")
        assert service.main_pid == service.pid and service.generation == before + step
        assert service.show("ActiveState") == "active" and service.show("SubState") == "running"
        until(lambda: settled(service), PATIENCE, "a safe point")
    assert service.show("StatusText").startswith(f"Generation {before + 2}, 1 virtual machine")
    assert_unharmed(service, machine)


@pytest.fixture
def broken() -> Iterator[str]:
    """Break the release on disk; return what it complains of."""
    path = library() / "vdsmd" / "service.py"
    good = path.read_text(encoding="utf-8")
    path.write_text(f'{good}\nraise RuntimeError("half an upgrade")\n', encoding="utf-8")
    yield "half an upgrade"
    path.write_text(good, encoding="utf-8")


def test_a_refused_reload_fails_and_the_status_says_why(service: Service, machine: Machine, broken: str) -> None:
    before = service.generation
    refused = service.systemctl("reload", check=False)
    assert service.show("ReloadResult") == "exit-code", refused
    assert service.main_pid == service.pid and service.generation == before
    status = run("systemctl", "status", UNIT)
    [line] = [line for line in status.splitlines() if "Status:" in line]
    assert "was refused: " in line and broken in line
    assert "active (running)" in status
    assert_unharmed(service, machine)


def test_sighup_by_hand_is_a_re_exec_too(service: Service, machine: Machine) -> None:
    before = service.generation
    run("systemctl", "kill", "--kill-who=main", "--signal=HUP", UNIT)
    until(lambda: service.generation == before + 1, PATIENCE)
    until(lambda: service.show("SubState") == "running", PATIENCE, "systemd to have seen the end of it")
    assert_unharmed(service, machine)


def test_an_upgrade_is_a_new_release_and_a_reload(service: Service, machine: Machine) -> None:
    old = CURRENT.resolve()
    new = installation.release(f"{VERSION}+next")
    for release in (new, old):
        installation.flip(release)
        service.systemctl("reload")
        until(lambda: settled(service), PATIENCE, "a safe point")
        assert service.must("vdsmd.status")["info"]["version"] == release.name
        assert service.main_pid == service.pid
    assert_unharmed(service, machine)


def test_after_a_kill_systemd_starts_it_with_its_descriptors(service: Service, machine: Machine) -> None:
    vm_id, _ = machine
    before, port, old = service.restarts, service.port, service.pid
    until(lambda: int(service.show("NFileDescriptorStore")) == 3, PATIENCE, "the descriptors to be stored")
    os.kill(service.pid, signal.SIGKILL)
    with socket.create_connection(("127.0.0.1", port), PATIENCE) as client:
        client.settimeout(PATIENCE)
        client.sendall(question("ping"))
        assert answer(client) in (0, 99)
    service.restarted(before)
    assert service.pid != old and service.generation == 0 and service.port == port
    stored = set(service.environment()["LISTEN_FDNAMES"].split(":"))
    assert stored == {"api/local", "api/tcp/127.0.0.1%3A0", f"vm/{vm_id}/console"}
    assert_unharmed(service, machine)


def test_the_console_goes_on_though_its_path_is_gone(service: Service, machine: Machine) -> None:
    """So what is read is the descriptor from the store."""
    vm_id, _ = machine
    path = service.run_dir / "console" / f"{vm_id}.out"
    aside = path.with_suffix(".aside")
    before = service.restarts
    os.rename(path, aside)
    try:
        os.kill(service.pid, signal.SIGKILL)
        service.restarted(before)
        assert_unharmed(service, machine)
    finally:
        os.rename(aside, path)


@pytest.fixture
def watched(service: Service) -> Iterator[Service]:
    """Return the service with a watchdog that is not as patient as the unit's own."""
    drop_in(UNIT, "[Service]\nWatchdogSec=20\nTimeoutAbortSec=2\n")
    service.systemctl("restart")
    yield service.found()
    drop_in(UNIT, "")
    service.systemctl("restart")


def test_one_that_is_stuck_is_ended_by_the_watchdog(watched: Service, machine: Machine) -> None:
    before = watched.restarts
    os.kill(watched.pid, signal.SIGSTOP)
    watched.restarted(before)
    assert "Watchdog timeout" in watched.log()
    assert_unharmed(watched, machine)


def test_restart_keeps_guests_and_the_port(service: Service, machine: Machine) -> None:
    old, port = service.pid, service.port
    service.systemctl("restart")
    assert service.found().pid != old and service.port == port and service.generation == 0
    assert_unharmed(service, machine)


def test_stop_leaves_guests_and_start_finds_them(service: Service, machine: Machine) -> None:
    _, guest = machine
    service.systemctl("stop")
    assert service.show("ActiveState") == "inactive" and service.show("Result") == "success"
    assert service.show("NFileDescriptorStore") == "0"
    assert is_process(guest) and not is_process(service.pid)
    service.start()
    assert_unharmed(service, machine)
