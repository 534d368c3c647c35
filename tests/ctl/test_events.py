"""`vdsmctl events`: what it shows, and that a follower misses nothing and is told of what is missing."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.ctl.conftest import Run
from tests.ctl.serving import Server
from tests.until import until

pytestmark = pytest.mark.slow

PATIENCE = 120.0


def note(server: Server, count: int) -> None:
    for index in range(count):
        server.daemon.journal.note("test.event", index=index)


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_nothing_has_happened(server: Server, run: Run) -> None:
    ran = run("events")
    assert (ran.status, ran.out.split(), ran.err) == (0, ["NUMBER", "TIME", "EVENT", "WHAT"], "")
    assert run("events", "--json") == (0, "", "")


def test_for_people(server: Server, run: Run) -> None:
    server.daemon.journal.note("vm.status", vm="an id", status="\x1b[31mUp")
    line = run("events").out.splitlines()[1]
    assert re.fullmatch(
        r"      1  \d{4}-\d\d-\d\d \d\d:\d\d:\d\d  vm\.status         vm=an id status=\ufffd\[31mUp", line
    )


def test_for_programs(server: Server, run: Run) -> None:
    note(server, 2500)
    told = lines(run("events", "--json").out)
    assert [event["number"] for event in told] == list(range(1, 2501))
    assert (told[0]["name"], told[0]["fields"], told[0]["time"] > 1e9) == ("test.event", {"index": "0"}, True)
    assert [event["number"] for event in lines(run("--json", "events", "--since", "2498").out)] == [2499, 2500]
    assert [event["number"] for event in lines(run("--json", "events", "--since", "-1").out)] == [2500]


def test_missing_events_are_told_in_their_place(server: Server, config: Path, run: Run) -> None:
    note(server, 9)
    server.close()
    path = config.parent / "events" / "000000000001.jsonl"
    kept = [line for line in path.read_bytes().splitlines(keepends=True) if json.loads(line)["number"] not in (1, 4, 5)]
    path.write_bytes(b"".join(kept))
    (config.parent / "vdsmd.sock").unlink()
    again = Server(config.parent)
    try:
        told = lines(run("events", "--json").out)
        assert [event.get("missed") or event["number"] for event in told] == [[1, 1], 2, 3, [4, 5], 6, 7, 8, 9]
        shown = [line for line in run("events").out.splitlines() if line.startswith("-- ")]
        assert shown == [
            "-- event 1 is missing: lost, or too old to be kept",
            "-- events 4 to 5 are missing: lost, or too old to be kept",
        ]
    finally:
        again.close()


def test_a_number_that_the_journal_has_not_reached(server: Server, run: Run) -> None:
    note(server, 2)
    out = run("events", "--since", "500").out.splitlines()
    assert out[1] == "-- numbers have begun anew: what came before is lost"
    assert len(out) == 4


def test_exit_statuses(config: Path, run: Run) -> None:
    assert run("events", "--since", "x").status == 2
    ran = run("events", "--follow")
    assert ran.status == 1
    assert "no vdsmd answers" in ran.err


class Follower:
    """A `vdsmctl events --follow --json` of its own."""

    def __init__(self, config: Path) -> None:
        self._out = config.parent / "followed"
        command = [sys.executable, "-m", "vdsmd.ctl.main", "--config", str(config), "events", "--follow", "--json"]
        with self._out.open("wb") as out:
            self.process = subprocess.Popen(command, stdout=out, stderr=subprocess.PIPE, text=True)

    def told(self) -> list[dict[str, Any]]:
        return lines(self._out.read_text().rpartition("\n")[0])

    def await_number(self, number: int) -> list[dict[str, Any]]:
        return until(lambda: told if (told := self.told()) and told[-1].get("number") == number else [], PATIENCE)

    def interrupt(self) -> tuple[int, str]:
        """Return the exit status and what it complained of."""
        self.process.send_signal(signal.SIGINT)
        _, complaints = self.process.communicate(timeout=PATIENCE)
        return self.process.returncode, complaints


Follow = Callable[[], Follower]


@pytest.fixture
def follow(config: Path) -> Iterator[Follow]:
    started: list[Follower] = []

    def start() -> Follower:
        started.append(Follower(config))
        return started[-1]

    yield start
    for follower in started:
        if follower.process.poll() is None:
            follower.process.kill()
            follower.process.communicate()


def test_a_follower_sees_events_as_they_come_and_leaves_on_request(server: Server, follow: Follow) -> None:
    note(server, 1)
    follower = follow()
    follower.await_number(1)
    for number in range(2, 5):
        server.drop_clients()
        note(server, 1)
        follower.await_number(number)
    assert [event["number"] for event in follower.told()] == [1, 2, 3, 4]
    assert follower.interrupt() == (0, "")


def test_a_follower_waits_for_a_daemon_that_is_away(server: Server, config: Path, follow: Follow) -> None:
    note(server, 3)
    follower = follow()
    follower.await_number(3)
    server.close()
    assert follower.process.stderr is not None
    assert "Waiting for the daemon: no vdsmd answers at" in follower.process.stderr.readline()
    (config.parent / "vdsmd.sock").unlink()
    again = Server(config.parent)
    try:
        note(again, 2)
        follower.await_number(5)
        assert "answers again" in follower.process.stderr.readline()
        assert [event["number"] for event in follower.told()] == [1, 2, 3, 4, 5]
        assert follower.interrupt() == (0, "")
    finally:
        again.close()


def test_a_follower_is_told_that_numbers_began_anew(server: Server, config: Path, follow: Follow) -> None:
    note(server, 2)
    follower = follow()
    follower.await_number(2)
    server.close()
    shutil.rmtree(config.parent / "events")
    os.unlink(config.parent / "vdsmd.sock")
    again = Server(config.parent)
    try:
        note(again, 3)
        told = follower.await_number(3)
        assert [event.get("number", "anew") for event in told] == [1, 2, "anew", 1, 2, 3]
        assert told[2] == {"journal": again.daemon.journal.end["journal"]}
    finally:
        again.close()
