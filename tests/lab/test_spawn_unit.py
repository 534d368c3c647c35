"""vdsmd and its helper as one unit (vdsmd-spawn.service): ready, watched, and back together, with guests and descriptors."""

from __future__ import annotations

import json
import os
import pwd
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Guest
from tests.lab.installation import drop_in, run
from tests.lab.service import PATIENCE, Service, is_process
from tests.live.test_guests import assert_counted, boot, pid, settled
from tests.running import parent_of
from tests.until import until

pytestmark = [pytest.mark.lab, pytest.mark.slow, pytest.mark.timeout(600)]

UNIT = "vdsmd-spawn.service"

Machine = tuple[str, int]


class Pair(Service):
    """The unit's main process is the helper, and the daemon its child."""

    def running_pid(self) -> int:
        """Wait until the child of the helper that runs now serves."""

        def serving() -> int:
            found: int = json.loads((self.run_dir / "endpoints.json").read_text(encoding="utf-8"))["pid"]
            assert parent_of(found) == self.main_pid != 0
            return found

        return until(serving, PATIENCE, "the helper's child to serve")


@pytest.fixture(scope="module")
def installed_pair(installed: Service) -> Pair:
    assert installed.show("ActiveState") == "inactive"
    return Pair(UNIT)


@pytest.fixture
def pair(installed_pair: Pair) -> Pair:
    """Return it, running and at a safe point."""
    pair = installed_pair
    pair.start()
    until(lambda: settled(pair), PATIENCE, "a safe point")
    return pair


@pytest.fixture(scope="module")
def guest_of_pair(installed_pair: Pair, guest: Guest) -> Machine:
    """Return the id and the pid of the module's guest, which counts."""
    installed_pair.start()
    [(vm_id, process)] = boot(installed_pair, guest).items()
    return vm_id, process


def user_of(process: int) -> str:
    return pwd.getpwuid(os.stat(f"/proc/{process}").st_uid).pw_name


def assert_unharmed(pair: Pair, machine: Machine) -> None:
    """The guest is the same process, known by the daemon, has counted without a gap, and its helper works."""
    vm_id, before = machine
    assert pid(pair, vm_id) == before and is_process(before)
    assert_counted(pair, vm_id)
    assert pair.must("vdsmd.helper")["way"] == "this daemon's parent"


def assert_stored(pair: Pair, machine: Machine) -> None:
    """The daemon was started with what had been in the store. One that ends in good order, as it does without its helper, takes
    the local socket with it."""
    stored = set(pair.environment()["LISTEN_FDNAMES"].split(":"))
    assert stored - {"api/local"} == {"api/tcp/127.0.0.1%3A0", f"vm/{machine[0]}/console", "supervdsm"}


def until_stored(pair: Pair) -> None:
    until(lambda: int(pair.show("NFileDescriptorStore")) == 3, PATIENCE, "the descriptors to be stored")


def test_start_returns_when_vdsmd_serves(installed_pair: Pair) -> None:
    installed_pair.systemctl("start")
    found = installed_pair.found()
    assert found.generation == 0 and found.show("StatusText").startswith("Generation 0")
    assert (user_of(found.main_pid), user_of(found.pid)) == ("root", "vdsm")
    assert not (found.run_dir / "svdsm.sock").exists()
    assert run("systemctl", "is-active", "vdsmd.service", check=False).strip() == "inactive"


def test_reload_replaces_both(pair: Pair, guest_of_pair: Machine) -> None:
    before, helper, process = pair.generation, pair.main_pid, pair.pid
    replaced = pair.log().count("Replaced; going on")
    pair.systemctl("reload")
    assert (pair.main_pid, pair.pid, pair.generation) == (helper, process, before + 1)
    until(lambda: pair.log().count("Replaced; going on") > replaced, PATIENCE, "the helper to be replaced")
    assert pair.show("ActiveState") == "active"
    until(lambda: settled(pair), PATIENCE, "a safe point")
    assert_unharmed(pair, guest_of_pair)


@pytest.mark.parametrize("victim", ["the helper", "vdsmd"])
def test_after_a_kill_both_are_back_with_the_descriptors(pair: Pair, guest_of_pair: Machine, victim: str) -> None:
    before, port, old = pair.restarts, pair.port, (pair.main_pid, pair.pid)
    until_stored(pair)
    os.kill(old[0] if victim == "the helper" else old[1], signal.SIGKILL)
    pair.restarted(before)
    assert not any(is_process(process) for process in old)
    assert pair.port == port and pair.generation == 0
    assert_stored(pair, guest_of_pair)
    assert_unharmed(pair, guest_of_pair)


@pytest.fixture
def watched(pair: Pair) -> Iterator[Pair]:
    """Return it with a watchdog that is not as patient as the unit's own."""
    drop_in(UNIT, "[Service]\nWatchdogSec=20\nTimeoutAbortSec=2\n")
    pair.systemctl("restart")
    yield pair.found()
    drop_in(UNIT, "")
    pair.systemctl("restart")


def test_a_vdsmd_that_is_stuck_is_ended_by_the_watchdog(watched: Pair, guest_of_pair: Machine) -> None:
    before, stuck = watched.restarts, watched.pid
    os.kill(stuck, signal.SIGSTOP)
    watched.restarted(before)
    assert "Watchdog timeout" in watched.log()
    assert watched.pid != stuck and not is_process(stuck)
    assert_unharmed(watched, guest_of_pair)


def test_a_helper_that_is_stuck_ends_itself(pair: Pair, guest_of_pair: Machine) -> None:
    before, stuck = pair.restarts, pair.main_pid
    os.kill(stuck, signal.SIGSTOP)
    pair.restarted(before)
    assert pair.main_pid != stuck
    assert_unharmed(pair, guest_of_pair)


def test_stop_ends_both_and_start_finds_the_guest(pair: Pair, guest_of_pair: Machine) -> None:
    old = pair.main_pid, pair.pid
    pair.systemctl("stop")
    assert pair.show("ActiveState") == "inactive" and pair.show("Result") == "success"
    assert pair.show("NFileDescriptorStore") == "0"
    assert not any(is_process(process) for process in old) and is_process(guest_of_pair[1])
    assert Path("/run/vdsm").is_dir()
    pair.start()
    assert_unharmed(pair, guest_of_pair)
