"""The helper's unit under a real systemd: it comes and goes by itself, and vdsmd goes on without it."""

from __future__ import annotations

import os
import signal
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.installation import CURRENT, run
from tests.lab.service import PATIENCE, Service
from tests.until import until

pytestmark = [pytest.mark.lab, pytest.mark.slow, pytest.mark.timeout(600)]

UNIT = "supervdsmd.service"
SOCKET = Path("/run/vdsm/svdsm.sock")


def show(name: str) -> str:
    return run("systemctl", "show", "--value", "--property", name, UNIT).strip()


def main_pid() -> int:
    return int(show("MainPID"))


def test_vdsmd_brings_its_helper_along(service: Service) -> None:
    assert show("ActiveState") == "active"
    assert os.stat(f"/proc/{main_pid()}").st_uid == 0
    found = SOCKET.stat()
    assert stat.S_ISSOCK(found.st_mode) and stat.S_IMODE(found.st_mode) == 0o600
    assert found.st_uid == os.stat(f"/proc/{service.pid}").st_uid


def test_vdsmd_has_it_read_what_only_root_may(service: Service) -> None:
    told = service.must("getVdsHardwareInfo")["info"]
    for key, name, word in (
        ("systemUUID", "product_uuid", "system-uuid"),
        ("systemSerialNumber", "product_serial", "system-serial-number"),
    ):
        path = Path("/sys/class/dmi/id", name)
        assert stat.S_IMODE(path.stat().st_mode) == 0o400
        # dmidecode(8) reads the firmware's tables itself.
        decoded = run("dmidecode", "--string", word)
        assert told[key].lower() == path.read_text(encoding="ascii").strip().lower() == decoded.strip().lower() != ""
    assert (told["systemManufacturer"], told["systemProductName"]) == ("vdsmd", "lab")


def test_reload_replaces_it_in_place(service: Service) -> None:
    before, inode = main_pid(), SOCKET.stat().st_ino
    began = show("StateChangeTimestampMonotonic")
    run("systemctl", "reload", UNIT)
    until(lambda: "Replaced; going on" in journal(), PATIENCE, "the new code")
    until(lambda: show("SubState") == "running" and show("StateChangeTimestampMonotonic") != began, PATIENCE)
    assert main_pid() == before and SOCKET.stat().st_ino == inode
    assert service.main_pid == service.pid and service.must("ping")


@pytest.fixture
def broken() -> Iterator[None]:
    [path] = CURRENT.resolve().glob("lib/python3.*/site-packages/supervdsm/loop.py")
    good = path.read_text(encoding="utf-8")
    path.write_text(f"{good}\nhalf an upgrade\n", encoding="utf-8")
    yield
    path.write_text(good, encoding="utf-8")


@pytest.mark.usefixtures("broken")
def test_a_refused_replacement_is_in_the_status(service: Service) -> None:
    before = main_pid()
    run("systemctl", "reload", UNIT)
    until(lambda: "replacement refused: " in show("StatusText"), PATIENCE, "the refusal to be told")
    assert main_pid() == before and show("ActiveState") == "active"
    assert service.must("ping")


def test_a_kill_brings_it_back_and_vdsmd_does_not_care(service: Service) -> None:
    before = main_pid()
    os.kill(before, signal.SIGKILL)
    until(lambda: main_pid() not in (0, before) and show("ActiveState") == "active", PATIENCE, "another one")
    assert service.main_pid == service.pid and service.must("ping")


def test_without_it_vdsmd_runs_on_and_starts(service: Service) -> None:
    run("systemctl", "stop", UNIT)
    assert not SOCKET.exists()
    assert service.main_pid == service.pid and service.must("ping")
    run("systemctl", "mask", "--runtime", UNIT)
    try:
        service.systemctl("restart")
        assert service.found().must("ping")
    finally:
        run("systemctl", "unmask", "--runtime", UNIT)
    run("systemctl", "start", UNIT)
    assert SOCKET.exists()


def journal() -> str:
    return run("journalctl", "--no-pager", "--lines=50", f"--unit={UNIT}")
