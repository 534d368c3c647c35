"""The engine's rounds over a daemon that stands still: what the shipped policies ask for, and what trouble does."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from state.directory import StateDirectory
from vdsmd.ctl.wire import Refused, Unreachable
from vdsmd.policy.engine import Engine, run
from vdsmd.policy.rules import Rules

MIB = 1024


class Api:
    """Answers as a daemon on a host of 1000 MiB would."""

    def __init__(self) -> None:
        self.stats: dict[str, Any] = {"memFree": 500, "ksmState": False, "ksmPages": 100}
        self.guests: list[dict[str, Any]] = []
        self.done: list[tuple[str, Any]] = []
        self.fails: Exception | None = None
        self.refuses = ""

    def call(self, verb: str, *args: object) -> dict[str, Any]:
        if self.fails is not None:
            raise self.fails
        match verb:
            case "getVdsCapabilities":
                return {"info": {"memSize": "1000", "cpuThreads": "4"}}
            case "getVdsStats":
                return {"info": self.stats}
            case "getAllVmStats":
                return {"statsList": self.guests}
        if verb == self.refuses:
            raise Refused(71, "no")
        self.done.append((verb, args))
        return {}

    def close(self) -> None:
        """Nothing is open."""

    def guest(self, name: str, *, current: int, unused: int | None = None, status: str = "Up") -> None:
        """Add a guest of 400 MiB, of which 100 are its own in any case. All in MiB."""
        balloon = {"balloon_max": 400, "balloon_min": 100, "balloon_cur": current}
        self.guests.append(
            {
                "vmId": name,
                "vmName": name,
                "status": status,
                "balloonInfo": {key: str(value * MIB) for key, value in balloon.items()},
                "memoryStats": {} if unused is None else {"mem_unused": str(unused * MIB)},
            }
        )


class Stand:
    def __init__(self, path: Path) -> None:
        self.rules = Rules(StateDirectory(str(path / "state")), str(path / "none"), "01-parameters")
        self.api = Api()
        self.engine = Engine(self.rules, self.api)

    def round(self) -> list[tuple[str, Any]]:
        self.api.done.clear()
        self.engine.round()
        return list(self.api.done)


@pytest.fixture
def stand(tmp_path: Path) -> Stand:
    return Stand(tmp_path)


def test_nothing_is_done_until_parameters_ask_for_it(stand: Stand) -> None:
    stand.api.stats["memFree"] = 10
    stand.api.guest("a", current=400, unused=300)
    assert stand.round() == []


def test_under_pressure_guests_give_what_they_do_not_use(stand: Stand) -> None:
    stand.rules.set_parameters({"balloonEnabled": True})
    stand.api.stats["memFree"] = 100
    stand.api.guest("idle", current=400, unused=300)
    stand.api.guest("busy", current=400, unused=30)
    stand.api.guest("silent", current=400)
    stand.api.guest("starting", current=400, unused=300, status="Powering up")
    # 5 % of its memory a round at most; one that needs what it has keeps it.
    assert stand.round() == [("setBalloonTarget", ("idle", 380 * MIB))]


def test_no_guest_gets_less_than_it_was_promised(stand: Stand) -> None:
    stand.rules.set_parameters({"balloonEnabled": True, "most_change": 1})
    stand.rules.set_policy('(with Guests g (g.Control "balloon_target" 1))')
    stand.api.guest("a", current=400, unused=399)
    assert stand.round() == [("setBalloonTarget", ("a", 100 * MIB))]
    stand.rules.set_policy('(with Guests g (g.Control "balloon_target" 1e12))')
    assert stand.round() == [("setBalloonTarget", ("a", 400 * MIB))]


def test_without_pressure_guests_get_it_back(stand: Stand) -> None:
    stand.rules.set_parameters({"balloonEnabled": "true"})
    stand.api.guest("small", current=200, unused=10)
    stand.api.guest("whole", current=400, unused=10)
    assert stand.round() == [("setBalloonTarget", ("small", 220 * MIB))]


def test_pages_are_shared_on_demand(stand: Stand) -> None:
    stand.rules.set_parameters({"ksmEnabled": True})
    stand.api.stats["memFree"] = 100
    assert stand.round() == [("setKsmTune", ({"run": 1, "pages_to_scan": 400, "sleep_millisecs": 1638},))]
    stand.api.stats |= {"ksmState": True, "ksmPages": 400, "memFree": 100}
    assert stand.round() == [("setKsmTune", ({"pages_to_scan": 700},))]
    for _ in range(9):  # what counts is the mean of the last ten
        stand.api.stats |= {"ksmPages": 64, "memFree": 900}
        last = stand.round()
    assert last == [("setKsmTune", ({"run": 0},))]


def test_the_way_pages_are_shared_between_nodes_is_set_once(stand: Stand) -> None:
    stand.rules.set_parameters({"ksmMergeAcrossNodes": False})
    stand.api.refuses = "setKsmTune"
    assert stand.round() == []
    stand.api.refuses = ""
    assert stand.round() == [("setKsmTune", ({"merge_across_nodes": 0},))]
    assert stand.round() == []


def test_trouble_is_told_once_and_the_next_round_begins(stand: Stand, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "policy")
    stand.rules.set_parameters({"ksmEnabled": True})
    stand.api.stats["memFree"] = 100
    stand.api.fails = Unreachable("nobody")
    rounds = iter([True, True, False])
    run(stand.engine, lambda: next(rounds))
    assert [record.getMessage() for record in caplog.records] == ["The daemon does not answer: nobody"]
    stand.api.fails = None
    assert stand.round()
    stand.api.fails = Unreachable("nobody")
    stand.round()
    assert len(caplog.records) == 2


def test_a_policy_that_fails_does_not_keep_the_next_from_its_due(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "policy")
    own = tmp_path / "own"
    own.mkdir()
    (own / "02-balloon.policy").write_text("(/ 1 0)")
    (own / "50-broken.policy").write_text("(")
    rules = Rules(StateDirectory(str(tmp_path / "state")), str(own), "01-parameters")
    rules.set_parameters({"ksmEnabled": True})
    api = Api()
    api.stats["memFree"] = 100
    Engine(rules, api).round()
    assert api.done
    told = [record.getMessage() for record in caplog.records]
    assert told == ["Policy 02-balloon: line 1: float division by zero", "Policy 50-broken: line 1: ( is never closed"]
