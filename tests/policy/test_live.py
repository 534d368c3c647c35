"""The engine as a process beside a real daemon: it acts through the API, follows what clients set, and lives as it should."""

from __future__ import annotations

import os
import signal
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.running import PATIENCE, Running
from tests.until import until

pytestmark = pytest.mark.slow

Start = Callable[..., Running]
OFTEN = {"mom": {"interval": 0.1}, "vars": {"vm_sample_interval": 0.1, "ssl": "false", "takeover_timeout": 120}}
BALLOON = {"type": "balloon", "device": "memballoon", "specParams": {"model": "virtio"}}


def status(daemon: Running) -> Any:
    return daemon.must("getVdsStats")["info"]["momStatus"]


def engine(daemon: Running) -> int:
    """Return the engine's pid, 0 when there is none."""
    children = daemon.must("vdsmd.status")["info"]["children"]
    return next((int(child["pid"]) for child in children if child["name"] == "policy"), 0)


def start_engine(daemon: Running) -> int:
    daemon.must("setMOMPolicyParameters", {"balloonEnabled": False})
    return until(lambda: engine(daemon), PATIENCE, "the engine to be started")


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def machine(daemon: Running) -> str:
    vm_id = str(uuid.uuid4())
    daemon.must("create", {"vmId": vm_id, "vmName": "m", "memSize": 64, "devices": [BALLOON]})
    return vm_id


def balloon(daemon: Running, vm_id: str) -> str:
    return str(daemon.must("getVmStats", vm_id)["statsList"][0]["balloonInfo"].get("balloon_target"))


def test_pressure_makes_it_shrink_a_guest_through_the_api(daemon: Start) -> None:
    running = daemon(config=OFTEN)
    vm_id = machine(running)
    shrink = """(if (< (/ Host.mem_free Host.mem_available) pressure_threshold)
        (with Guests g (g.Control "balloon_target" size)))"""
    assert status(running) == "inactive"
    running.must("setMOMPolicyParameters", {"size": 32768, "pressure_threshold": 0})
    running.must("setMOMPolicy", shrink)
    assert status(running) == "active"
    assert balloon(running, vm_id) != "32768"
    running.must("setMOMPolicyParameters", {"size": "32768", "pressure_threshold": 2})
    until(lambda: balloon(running, vm_id) == "32768", PATIENCE, "the balloon to be set")
    running.must("setMOMPolicyParameters", {"size": 16384, "pressure_threshold": 2})
    until(lambda: balloon(running, vm_id) == "16384", PATIENCE, "a change of the parameters to be followed")
    assert f"client=local:pid={engine(running)}," in running.log()


def test_no_policy_is_refused_and_the_old_one_stays(daemon: Start) -> None:
    running = daemon(config=OFTEN)
    vm_id = machine(running)
    running.must("setMOMPolicy", '(with Guests g (g.Control "balloon_target" 32768))')
    until(lambda: balloon(running, vm_id) == "32768", PATIENCE, "the balloon to be set")
    for verb, argument in (("setMOMPolicy", "(with Guests"), ("setMOMPolicyParameters", {"not a name": 1})):
        answer = running.call(verb, argument)["status"]
        assert answer["code"] == 54, answer
    running.must("setBalloonTarget", vm_id, 65536)
    until(lambda: balloon(running, vm_id) == "32768", PATIENCE, "the old policy to be followed")


def test_it_outlives_a_reexec_and_not_a_crash(daemon: Start) -> None:
    first = daemon(config=OFTEN)
    pid = start_engine(first)
    first.reexec()
    assert (engine(first), status(first)) == (pid, "active")
    first.kill()
    until(lambda: not alive(pid), PATIENCE, "the engine to have seen the daemon's end")
    second = daemon(config=OFTEN, again=first)
    fresh = until(lambda: engine(second), PATIENCE, "another engine")
    assert fresh != pid
    second.stop()
    assert not alive(fresh)


def test_one_that_ends_is_started_again(daemon: Start) -> None:
    running = daemon(config=OFTEN)
    pid = start_engine(running)
    os.kill(pid, signal.SIGKILL)
    until(lambda: engine(running) not in (0, pid), PATIENCE, "another engine")


def test_one_that_hangs_ends_with_the_daemon(daemon: Start) -> None:
    running = daemon(config=OFTEN)
    pid = start_engine(running)
    os.kill(pid, signal.SIGSTOP)
    running.stop()
    until(lambda: not alive(pid), PATIENCE, "the engine to be ended")


def test_where_it_is_not_wanted_there_is_none(daemon: Start) -> None:
    running = daemon(config={"mom": {"enabled": "false"}})
    running.must("setMOMPolicyParameters", {"balloonEnabled": True})
    assert (status(running), engine(running)) == ("disabled", 0)


def test_an_operators_policy_is_followed_from_the_start(daemon: Start, tmp_path: Path) -> None:
    (tmp_path / "50-own.policy").write_text('(with Guests g (g.Control "balloon_target" 20480))')
    running = daemon(config={**OFTEN, "mom": {"interval": 0.1, "policy_dir": tmp_path}})
    vm_id = machine(running)
    until(lambda: balloon(running, vm_id) == "20480", PATIENCE, "the balloon to be set")
