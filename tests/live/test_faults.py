"""The fault matrix: a daemon with a real guest is struck at every point of its life, in every way, and nothing is lost.

The points come from `state.points`, so a new one is struck without anyone remembering. What becomes of each strike stands in
docs/faults.md, which must say what is seen here: `VDSMD_WRITE_FAULTS=1 scripts/test tests/live/test_faults.py` writes it anew.
"""

from __future__ import annotations

import json
import os
import re
import signal
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from scripts.benchmarks.client import Client
from state.points import ERRORS, HOW, Point
from tests.running import Running, Stage
from tests.until import until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

ROOT = Path(__file__).parents[2]
TABLE = ROOT / "docs" / "faults.md"
ROWS = ROOT / ".cache" / "faults"
PATIENCE = 240.0

SERVED = "the new code serves"
REFUSED = "refused: the old code serves on"
UNDONE = "undone: the previous release serves again"
STOPPED = "stopped as asked; the next start finds everything"
KILLED = "killed; the next start finds everything"
NO_START = "did not start, and said why; the next start finds everything"


class Prober:
    """Calls in a loop, and knows the longest time in which no call was answered."""

    def __init__(self, daemon: Running) -> None:
        self._daemon = daemon
        self._ended = threading.Event()
        self._last = time.monotonic()
        self.longest = 0.0
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Prober:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        client = Client(self._daemon.port)
        while not self._ended.wait(0.005):
            try:
                client.must("ping")
            except (OSError, RuntimeError):
                continue
            now = time.monotonic()
            self.longest, self._last = max(self.longest, now - self._last), now


class Struck:
    """A daemon with one guest, and the file that has it struck."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.order = stage.base / "strike"
        self.silence = {"start": 0.0, "re-exec": 0.0, "hang": 0.0}
        """The longest time without an answer: of a start, of a re-exec that did not end the daemon, and of one that hung."""
        self.env = {"VDSMD_STRIKE": str(self.order)}
        self.options = {"vars": {"log_level": "INFO"}}
        self.daemon = stage.start(uri="embed", config=self.options, env=self.env)
        self.vm_id, self.qemu = self.guest()
        until(self.is_kept, PATIENCE, "the release to be kept")
        self.held = until(self.settled, PATIENCE, "the daemon to settle")

    def guest(self) -> tuple[str, int]:
        """Start a guest; return its id and its QEMU's pid."""
        vm_id = str(uuid.uuid4())
        machine = {"vmId": vm_id, "vmName": vm_id[:8], "memSize": 16, "display": "vnc", "kvmEnable": False}
        self.daemon.must("create", {**machine, "launchPaused": True, "devices": []})
        until(lambda: self.stats(vm_id)["status"] == "Paused", PATIENCE, "the guest to be there")
        return vm_id, int(self.stats(vm_id)["pid"])

    def stats(self, vm_id: str = "") -> dict[str, Any]:
        found: dict[str, Any] = self.daemon.must("getVmStats", vm_id or self.vm_id)["statsList"][0]
        return found

    def killing_a_guest(self, strike: Callable[[Point, str], str], point: Point) -> str:
        """Have another guest's QEMU killed there: it is told to be Down, whatever else happens."""
        vm_id, qemu = self.guest()
        outcome = strike(point, f"child:{qemu}")
        until(lambda: self.stats(vm_id)["status"] == "Down", PATIENCE, "its end to be told")
        assert self.stats(vm_id)["exitCode"] == 1
        self.daemon.must("destroy", vm_id)
        return outcome

    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = self.daemon.must("vdsmd.status")["info"]
        return found

    def is_kept(self) -> bool:
        return any(path.suffix != ".new" for path in (self.daemon.lib_dir / "kept").glob("*"))

    def settled(self) -> set[str]:
        """Return the names of what is held, once nothing is under way."""
        status = self.status()
        assert status["recovering"] == "" and status["libvirt"].startswith("connected")
        assert not any(status["owners"].values()) and status["reexec"]["state"] not in (
            "rehearsing",
            "pending",
            "quiescing",
        )
        return set(status["named_descriptors"])

    def again(self) -> None:
        begun = time.monotonic()
        self.daemon = self.stage.start(uri="embed", config=self.options, env=self.env, again=self.daemon, wait=False)
        until(lambda: self.daemon.endpoints() and self.answers(), PATIENCE, "an answer")
        self.silence["start"] = max(self.silence["start"], time.monotonic() - begun)

    def answers(self) -> bool:
        try:
            return bool(self.daemon.call("ping")["status"]["code"] == 0)
        except OSError:
            return False

    def check(self) -> None:
        """The guest lives, under the same pid, and is shown as it is; nothing has been gained or lost."""
        fields = Path(f"/proc/{self.qemu}/stat").read_text().rpartition(")")[2].split()
        assert fields[0] not in "ZX"
        until(lambda: self.settled() == self.held, PATIENCE, "the same descriptors as before")
        stats = self.stats()
        assert (stats["status"], int(stats["pid"])) == ("Paused", self.qemu)
        assert not self.order.exists(), "the point was not reached"
        until(lambda: not self.zombies(), PATIENCE, "no zombies")
        assert len(self.daemon.must("list")["vmList"]) == 1

    def zombies(self) -> list[str]:
        children = Path(f"/proc/{self.daemon.pid}/task/{self.daemon.pid}/children").read_text().split()
        found = []
        for pid in children:
            try:
                state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
            except OSError:
                continue
            found += [pid] if state == "Z" else []
        return found

    def strike_a_re_exec(self, point: Point, how: str) -> str:
        """Have a re-exec struck; return what became of it."""
        generation, number = self.daemon.generation, self.status()["reexec"]["number"]
        if how == "hang":
            self.expect_hangs()
        self.order.write_text(f"{point.name} {how}")
        if how in ("kill", "term"):
            os.kill(self.daemon.pid, signal.SIGHUP)
            return self.ended(how)
        with Prober(self.daemon) as prober:
            os.kill(self.daemon.pid, signal.SIGHUP)
            if how == "hup":
                until(lambda: self.daemon.generation > generation, PATIENCE, "a re-exec")
            outcome = until(lambda: self.outcome(number), PATIENCE, "an outcome") or {}
        what = "hang" if how == "hang" else "re-exec"
        self.silence[what] = max(self.silence[what], prober.longest)
        if outcome["state"] == "done":
            until(lambda: not self.order.exists(), PATIENCE, "the point to be reached")
            return SERVED
        return UNDONE if self.daemon.generation > generation else REFUSED

    def expect_hangs(self) -> None:
        """Have this run, and no later one, give the next as much time as it does where nobody has set it."""
        before, fair = self.events(), {"vars": {**self.options["vars"], "takeover_timeout": 0}}
        for options in (fair, self.options):
            self.daemon.configure(self.stage.options(self.daemon.base, "embed", options))
            if options is fair:
                os.kill(self.daemon.pid, signal.SIGUSR1)
                until(lambda: self.events() > before, PATIENCE, "the configuration to be read")

    def events(self) -> int:
        return int(self.status()["events"]["last"])

    def outcome(self, number: int) -> dict[str, Any] | None:
        found: dict[str, Any] = self.status()["reexec"]
        return found if found["number"] > number and found["state"] in ("done", "refused") else None

    def strike_a_start(self, point: Point, how: str) -> str:
        """Have a start after a crash struck; return what became of it."""
        self.daemon.kill()
        (self.daemon.run_dir / "endpoints.json").unlink()
        self.order.write_text(f"{point.name} {how}")
        self.daemon = self.stage.start(uri="embed", config=self.options, env=self.env, again=self.daemon, wait=False)
        if how in ("kill", "term") or (point.name.startswith("START") and how in (*ERRORS, "memory")):
            return self.ended(how)
        self.daemon.serving()
        if how == "hup":
            until(lambda: self.daemon.generation, PATIENCE, "a re-exec")
        until(lambda: not self.order.exists(), PATIENCE, "the point to be reached")
        return SERVED

    def ended(self, how: str) -> str:
        """Wait for the daemon's end, start it again, and return how it ended."""
        status = self.daemon.process.wait(PATIENCE)
        said = self.daemon.output.read_text()
        self.again()
        if how == "kill":
            assert status == -signal.SIGKILL
            return KILLED
        if how == "term":
            assert status == 0
            return STOPPED
        assert status == 1 and "at the point" in said
        return NO_START


def hows(point: Point, what: str) -> list[str]:
    """A hang before the exec, or in a cold start, is the service manager's watchdog's to end: nobody else is left to."""
    return [how for how in HOW if how != "hang" or (point.name.startswith("START") and what == "a re-exec")]


@pytest.mark.parametrize("point", Point, ids=lambda point: point.name)
def test_whatever_happens_at(stage: Stage, point: Point) -> None:
    struck = Struck(stage)
    seen: dict[str, str] = {}
    strikes: dict[str, Callable[[Point, str], str]] = {"a re-exec": struck.strike_a_re_exec}
    if not point.name.startswith("REEXEC"):
        strikes["a start"] = struck.strike_a_start
    for what, strike in strikes.items():
        for how in hows(point, what):
            seen[f"{what}: {how}"] = struck.killing_a_guest(strike, point) if how == "child" else strike(point, how)
            struck.check()
    rows = [f"| {point.value} | {what} | {outcome} |" for what, outcome in seen.items()]
    if os.environ.get("VDSMD_WRITE_FAULTS"):
        ROWS.mkdir(parents=True, exist_ok=True)
        (ROWS / f"{point.name}.json").write_text(json.dumps({"rows": rows, "silence": struck.silence}))
        write_table()
        return
    missing = [row for row in rows if row not in TABLE.read_text()]
    assert not missing, "docs/faults.md says otherwise"


HEAD = """# What becomes of a fault

A daemon with a running guest is struck at each point of its life in each way, by `tests/live/test_faults.py`, which also
wrote this table. After every strike the guest had the same QEMU and was shown as it was, the API answered, the same
descriptors were held, and no zombie was left. The ways: `enospc`, `emfile`, `eio` and `memory` are errors raised there;
`kill`, `term` and `hup` are signals that arrive there; `child` kills another guest's QEMU there, which is then told to be
Down; `hang` never goes on (before the exec, and in a cold start, that is for the service manager's watchdog).

The longest time without an answer, when this table was written: {reexec:.1f} s in a re-exec, whatever struck it but a hang;
{hang:.1f} s in one that hung (`takeover_timeout` as it is by default); and {start:.1f} s from the start of the process after it
had been ended.

| point | struck | outcome |
|---|---|---|
"""


def write_table() -> None:
    """Write what has been seen so far, in the order of the points."""
    found = {path.stem: json.loads(path.read_text()) for path in ROWS.glob("*.json")}
    rows = [row for point in Point if point.name in found for row in found[point.name]["rows"]]
    most = {what: max(point["silence"][what] for point in found.values()) for what in ("start", "re-exec", "hang")}
    head = HEAD.format(start=most["start"], reexec=most["re-exec"], hang=most["hang"])
    TABLE.write_text(head + "\n".join(rows) + "\n")


def test_the_table_speaks_of_every_point_and_of_no_other() -> None:
    told = set(re.findall(r"^\| ([a-z-]+: [^|]+?) \|", TABLE.read_text(), re.MULTILINE))
    assert told == {point.value for point in Point}
