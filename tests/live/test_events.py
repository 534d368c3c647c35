"""The event journal of a real daemon: over re-execs, crashes and damage, nothing is missed, doubled or silently lost."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.running import PATIENCE, Running, Stage
from tests.until import until

pytestmark = pytest.mark.slow

Start = Callable[..., Running]
Told = list[dict[str, Any]]
CTL = [sys.executable, "-m", "vdsmd.ctl.main", "--config"]


def events(daemon: Running, since: int = 0) -> Told:
    """Return what `vdsmctl events --json` tells."""
    command = [*CTL, str(daemon.config), "events", "--json", "--since", str(since)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE)
    assert ran.returncode == 0, ran.stderr
    return [json.loads(line) for line in ran.stdout.splitlines()]


def named(told: Told, *names: str) -> list[str]:
    """Return the names, in order, of those events that are called so."""
    return [event["name"] for event in told if event.get("name") in names]


def until_told(daemon: Running, name: str, count: int = 1) -> Told:
    return until(lambda: told if len(named(told := events(daemon), name)) >= count else [], PATIENCE, name)


def assert_whole(told: Told) -> None:
    assert [event.get("number") for event in told] == list(range(1, len(told) + 1))


def test_the_life_of_a_machine_and_of_the_daemon(daemon: Start, stage: Stage) -> None:
    vdsmd = daemon()
    vm_id = str(uuid.uuid4())
    vdsmd.must("create", {"vmId": vm_id, "vmName": "m", "memSize": 64, "display": "vnc", "smp": 1})
    until(lambda: [vm["status"] for vm in vdsmd.must("list")["vmList"]] == ["Up"], PATIENCE)
    assert vdsmd.reexec() == 1
    until_told(vdsmd, "reexec.done")
    vdsmd.must("destroy", vm_id)
    assert vdsmd.stop() == 0
    again = stage.start(again=vdsmd)
    told = until_told(again, "libvirt.found", 3)
    assert_whole(told)
    mine = [event["name"] for event in told if event["fields"].get("vm") == vm_id]
    assert (mine[0], mine[-1]) == ("vm.created", "vm.removed")
    assert {"status": "Up", "vm": vm_id} in [event["fields"] for event in told]
    life = ["daemon.started", "reexec.asked", "reexec.done", "daemon.stopped", "daemon.started"]
    assert named(told, *life) == life
    (done,) = [event["fields"] for event in told if event["name"] == "reexec.done"]
    assert (done["number"], done["generation"], float(done["pause_ms"]) > 0) == ("1", "1", True)


def test_a_refusal_is_told_with_its_reason(daemon: Start) -> None:
    vdsmd = daemon()
    good = vdsmd.config.read_text()
    vdsmd.config.write_text(good.replace("management_port = 0", "management_port = http"))
    os.kill(vdsmd.pid, signal.SIGHUP)
    until_told(vdsmd, "reexec.refused")
    os.kill(vdsmd.pid, signal.SIGUSR1)
    told = until_told(vdsmd, "config.refused")
    for name in ("reexec.refused", "config.refused"):
        (refused,) = [event for event in told if event["name"] == name]
        assert "management_port = http: expected a whole number" in refused["fields"]["reason"]
    vdsmd.config.write_text(good)
    os.kill(vdsmd.pid, signal.SIGUSR1)
    until_told(vdsmd, "config.reloaded")


def test_a_torn_last_line_after_a_crash(daemon: Start, stage: Stage) -> None:
    vdsmd = daemon()
    before = until_told(vdsmd, "libvirt.found")
    vdsmd.kill()
    (path,) = (vdsmd.lib_dir / "events").glob("*.jsonl")
    whole = path.read_bytes()
    last = len(whole.splitlines())
    assert last >= len(before)
    path.write_bytes(whole + b'{"number":%d,"time":17600000' % (last + 1))
    again = stage.start(again=vdsmd)
    told = until_told(again, "daemon.started", 2)
    assert told[last] == {"missed": [last + 1, last + 1]}
    assert [event["name"] for event in told[last + 1 : last + 3]] == ["journal.cut", "daemon.started"]
    assert again.reexec() == 1
    after = until_told(again, "reexec.done")
    assert after[: len(told)] == told


class Follower:
    """A `vdsmctl events --follow --json` of its own."""

    def __init__(self, daemon: Running) -> None:
        self._out = daemon.base / "followed"
        with self._out.open("wb") as out:
            self.process = subprocess.Popen([*CTL, str(daemon.config), "events", "--follow", "--json"], stdout=out)

    def told(self) -> Told:
        assert self.process.poll() is None, "the follower has ended"
        return [json.loads(line) for line in self._out.read_text().rpartition("\n")[0].splitlines()]

    def await_events(self, name: str, count: int) -> Told:
        return until(lambda: told if len(named(told := self.told(), name)) >= count else [], PATIENCE, name)

    def end(self) -> int:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        return self.process.wait(PATIENCE)


@pytest.fixture
def follow() -> Iterator[Callable[[Running], Follower]]:
    started: list[Follower] = []

    def start(daemon: Running) -> Follower:
        started.append(Follower(daemon))
        return started[-1]

    yield start
    for follower in started:
        follower.end()


@pytest.mark.slow
def test_a_follower_misses_none_and_doubles_none(
    daemon: Start, stage: Stage, follow: Callable[[Running], Follower]
) -> None:
    vdsmd = daemon()
    follower = follow(vdsmd)
    follower.await_events("daemon.started", 1)
    for generation in (1, 2, 3):
        assert vdsmd.reexec() == generation
    follower.await_events("reexec.done", 3)
    vdsmd.kill()
    again = stage.start(again=vdsmd)
    assert again.reexec() == 1
    until_told(again, "reexec.done", 4)
    told = until(
        lambda: seen if (seen := follower.told()) == events(again) else [], PATIENCE, "the follower to see all"
    )
    assert_whole(told)
    assert len(named(told, "reexec.done")) == 4
    assert len(named(told, "daemon.started")) == 2
    assert follower.end() == 0


def test_a_journal_that_cannot_be_read_for_a_while(daemon: Start, stage: Stage, tmp_path: Path) -> None:
    vdsmd = daemon()
    vdsmd.kill()
    before = len((vdsmd.lib_dir / "events" / "000000000001.jsonl").read_bytes().splitlines())
    kept = tmp_path / "events"
    (vdsmd.lib_dir / "events").rename(kept)
    (vdsmd.lib_dir / "events").write_text("in the way")
    again = stage.start(again=vdsmd)
    assert again.must("ping")
    assert named(events(again), "daemon.started") == ["daemon.started"]
    again.kill()
    (vdsmd.lib_dir / "events").unlink()
    kept.rename(vdsmd.lib_dir / "events")
    third = stage.start(again=vdsmd)
    told = until_told(third, "daemon.started", 2)
    assert [event["number"] for event in told[: before + 1]] == list(range(1, before + 2))
