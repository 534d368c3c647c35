"""A re-exec that cannot be carried out now: refused before anything is given up, or pending until its reason ends."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Guest
from tests.live.test_guests import boot, console, stats
from tests.live.test_lifecycle import Local, create, outcome, refused, status_of
from tests.running import Running, Stage, runs
from tests.until import until

Start = Callable[..., Running]


def test_too_little_room_for_the_document(daemon: Start) -> None:
    vdsmd = daemon(config={"vars": {"state_min_free_mb": 100_000_000}})
    vm_id = create(vdsmd)
    assert "MiB free, state_min_free_mb is 1e+08" in refused(vdsmd)
    assert status_of(vdsmd, vm_id) == "Up"


def test_too_soon_after_the_last_one(daemon: Start) -> None:
    vdsmd = daemon(config={"vars": {"reexec_min_interval": 10_000}})
    vdsmd.reexec()
    assert "less than reexec_min_interval (10000 s)" in refused(vdsmd)
    vdsmd.config.write_text(vdsmd.config.read_text().replace("reexec_min_interval = 10000", "reexec_min_interval = 0"))
    os.kill(vdsmd.pid, signal.SIGUSR1)
    until(lambda: "was read again" in vdsmd.log(), 60)
    assert vdsmd.reexec() == 2


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_live_locked_guest_postpones_it_until_it_answers(daemon: Start, guest: Guest) -> None:
    """Its monitor has not answered since the last exec: an exec now could lose it."""
    vdsmd = daemon(uri="embed")
    pids = boot(vdsmd, guest, 2)
    locked, free = pids
    os.kill(pids[locked], signal.SIGSTOP)
    try:
        generation = vdsmd.reexec()
        local = Local(vdsmd.socket)
        waits = "monitors have not answered since the last re-exec"
        until(lambda: waits in vdsmd.must("vdsmd.status")["info"]["owners"]["vm"], 120, "it to be seen")
        refused_now = local.call("vdsmd.reexec", True)
        assert refused_now["status"]["code"] == 0
        told = until(lambda: (o := outcome(vdsmd))["state"] == "refused" and o, 60)
        assert waits in told["reason"] and locked in told["reason"]
        os.kill(vdsmd.pid, signal.SIGHUP)
        pending = until(lambda: (o := outcome(vdsmd))["state"] == "pending" and o["waits_for"] and o, 120)
        assert locked in pending["waits_for"][0]
        assert stats(vdsmd, free)["status"] == "Up" and vdsmd.must("ping")
        assert local.call("vdsmd.cancel")["status"]["code"] == 0
        assert outcome(vdsmd)["state"] == "cancelled"
        os.kill(vdsmd.pid, signal.SIGHUP)
        until(lambda: outcome(vdsmd)["state"] == "pending", 120)
        assert vdsmd.generation == generation
    finally:
        os.kill(pids[locked], signal.SIGCONT)
    until(lambda: vdsmd.generation == generation + 1, 240, "it to happen by itself")
    until(lambda: stats(vdsmd, locked)["monitorResponse"] == "0", 240)
    assert {vm_id: int(stats(vdsmd, vm_id)["pid"]) for vm_id in pids} == pids
    seen = console(vdsmd, locked)
    until(lambda: console(vdsmd, locked) != seen, 120, "it to count on")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_call_that_does_not_come_back_refuses_it(daemon: Start, guest: Guest) -> None:
    vdsmd = daemon(uri="embed", config={"vars": {"quiesce_timeout": 1}})
    pids = boot(vdsmd, guest)
    (vm_id,) = pids
    answers: list[dict[str, Any]] = []
    caller = threading.Thread(target=lambda: answers.append(vdsmd.call("pause", vm_id)))
    os.kill(pids[vm_id], signal.SIGSTOP)
    try:
        caller.start()
        until(lambda: "call verb=pause client=127.0.0.1" in vdsmd.log(), 60)
        assert "did not end in time" in refused(vdsmd)
        assert vdsmd.must("ping") and vdsmd.must("list")
        assert not answers
    finally:
        os.kill(pids[vm_id], signal.SIGCONT)
    caller.join(240)
    assert answers and answers[0]["status"]["code"] == 0
    assert vdsmd.reexec() == 1
    assert stats(vdsmd, vm_id)["status"] == "Paused"


@pytest.mark.slow
def test_a_stop_is_not_outlived_by_a_reexec_that_waits(daemon: Start, stage: Stage) -> None:
    """A call is under way, and ends only after the stop was asked for: then it would have been time for the re-exec."""
    hooks, gate = stage.base / "hooks", stage.base / "gate"
    script = hooks / "before_vm_pause" / "50_wait"
    script.parent.mkdir(parents=True)
    script.write_text(f"#!/bin/sh\necho >{gate}.reached\nread line <{gate}\n")
    script.chmod(0o755)
    os.mkfifo(gate)
    vdsmd = daemon(config={"paths": {"hooks": hooks}})
    vm_id = create(vdsmd)
    caller = threading.Thread(target=vdsmd.call, args=("pause", vm_id))
    caller.start()
    until(Path(f"{gate}.reached").exists, 60, "the hook to be run")
    os.kill(vdsmd.pid, signal.SIGHUP)
    until(lambda: outcome(vdsmd)["state"] == "pending", 120)
    os.kill(vdsmd.pid, signal.SIGTERM)
    until(lambda: "virtual machines are left running" in vdsmd.log(), 60, "the stop to begin")
    gate.write_text("go on\n")
    caller.join(60)
    until(lambda: not runs(vdsmd.pid), 60, "the daemon to end")
    assert "reexec.cancelled" in vdsmd.log() and "Re-exec done" not in vdsmd.log()
