"""vdsmctl as a process, against a real daemon on libvirt's mock driver."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.running import Running, Stage

pytestmark = pytest.mark.slow

Ctl = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def running() -> Iterator[Running]:
    """Return one daemon for this module; its tests leave it as they found it."""
    stage = Stage()
    try:
        yield stage.start()
    finally:
        stage.clear(tell=False)


@pytest.fixture
def ctl(running: Running) -> Ctl:
    """Give a function that runs vdsmctl, and returns what came of it."""

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "vdsmd.ctl.main", "--config", str(running.config), *words]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=240)

    return run


def told(ran: subprocess.CompletedProcess[str]) -> Any:
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)


@pytest.fixture
def machine(ctl: Ctl) -> Iterator[str]:
    """Return the name of a machine that runs."""
    made = ctl("vm", "create", "--name", "a machine", "--memory", "64", "--wait")
    assert made.returncode == 0, made.stderr
    yield "a machine"
    ctl("vm", "destroy", "a machine")


def test_the_life_of_a_machine(ctl: Ctl, machine: str) -> None:
    (listed,) = [each for each in told(ctl("--json", "vm", "list"))["vmList"] if each["vmName"] == machine]
    vm_id = listed["vmId"]
    assert (listed["status"], listed["memSize"]) == ("Up", 64)
    assert ctl("vm", "list", "--quiet").stdout == f"{machine}\n"
    line = ctl("vm", "list", vm_id[:8]).stdout.splitlines()[1]
    assert all(part in line for part in (machine, vm_id, "Up", "64 MiB"))

    assert ctl("vm", "pause", machine).stdout == "done\n"
    assert told(ctl("vm", "stats", vm_id, "--json"))["statsList"][0]["status"] == "Paused"
    assert ctl("vm", "cont", vm_id[:8]).stdout == "done\n"
    assert "Up" in ctl("vm", "stats").stdout
    assert ctl("vm", "stats", machine).stdout.startswith("vmId")

    assert ctl("vm", "destroy", machine).stdout == "done\n"
    assert ctl("vm", "list").stdout == "No virtual machines.\n"
    assert ctl("vm", "stats").stdout == "No virtual machines.\n"


def test_a_machine_that_nobody_knows(ctl: Ctl, machine: str) -> None:
    ran = ctl("vm", "pause", "another machine")
    assert (ran.returncode, ran.stdout) == (1, "")
    assert ran.stderr == "vdsmctl: another machine: no such virtual machine\n"
    ran = ctl("vm", "pause", "11111111-2222-3333-4444-555555555555")
    assert ran.stderr == "vdsmctl: Virtual machine does not exist (code 1, noVM)\n"


def test_a_name_that_means_several(ctl: Ctl, machine: str) -> None:
    second = told(ctl("vm", "create", "--name", machine, "--memory", "64", "--json"))["vmList"]["vmId"]
    ran = ctl("vm", "pause", machine)
    assert ran.returncode == 1
    assert "several virtual machines match" in ran.stderr
    assert ctl("vm", "destroy", second).returncode == 0


def test_wrong_parameters_of_a_machine(ctl: Ctl) -> None:
    ran = ctl("vm", "create", "--id", "no uuid")
    assert (ran.returncode, ran.stdout) == (1, "")
    assert "vmId" in ran.stderr
    assert ctl("vm", "create", "--memory", "much").returncode == 2


def test_the_host(ctl: Ctl) -> None:
    assert ctl("host", "ping").stdout == "done\n"
    assert told(ctl("host", "caps", "--json"))["info"]["vmTypes"] == ["kvm"]
    assert "generationID" in ctl("host", "stats").stdout
    assert told(ctl("state", "show", "host", "--json"))["generation_id"]


def test_a_reexec_done(ctl: Ctl, running: Running) -> None:
    before = running.generation
    first = told(ctl("host", "stats", "--json"))["info"]["generationID"]
    outcome = told(ctl("reexec", "--json"))
    assert outcome["state"] == "done"
    assert outcome["generation"] == before + 1
    assert outcome["pause_ms"] > 0
    assert "generation" in ctl("reexec").stdout
    status = told(ctl("status", "--json"))
    assert (status["generation"], status["reexec"]["state"]) == (before + 2, "done")
    assert told(ctl("host", "stats", "--json"))["info"]["generationID"] == first


def test_a_reexec_refused(ctl: Ctl, running: Running) -> None:
    before, good = running.generation, running.config.read_text()
    running.config.write_text(good + "[vars]\nssl = perhaps\n")
    try:
        # The socket's place stands in the same file, so that the client is asked for it elsewhere.
        other = running.base / "other.conf"
        other.write_text(good)
        ran = subprocess.run(
            [sys.executable, "-m", "vdsmd.ctl.main", "--config", str(other), "reexec"],
            capture_output=True,
            text=True,
            check=False,
            timeout=240,
        )
    finally:
        running.config.write_text(good)
    assert ran.returncode == 3, ran.stdout + ran.stderr
    assert ran.stdout.startswith("refused: ")
    assert running.generation == before


def test_nothing_is_waiting_to_be_cancelled(ctl: Ctl) -> None:
    ran = ctl("reexec", "--cancel")
    assert ran.returncode == 1
    assert "none is waiting" in ran.stderr
