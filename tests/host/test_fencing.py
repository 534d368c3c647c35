"""Fencing, by a fence agent of the test's own: through the real helper, and from a real daemon."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from drivers.errors import Invalid
from tests.running import Running
from tests.supervdsm.helper import Helper
from vdsmd.api.codes import code_of
from vdsmd.host.fencing import AgentFailed, Fence, Lives, NoSuchAction, fence

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="fence agents must be root's")

SECRETS = ("open-sesame", "community-word")


class Agent:
    """A fence agent in a directory of its own. It ends as the file `code` says, and keeps what it was told."""

    def __init__(self, base: Path) -> None:
        self.folder = base / "agents"
        self.folder.mkdir(parents=True)
        self.told = base / "told"
        self._code = base / "code"
        program = self.folder / "fence_test"
        program.write_text(f"#!/bin/sh\ncat > {self.told}\ncat {self.told}\nexit $(cat {self._code})\n")
        program.chmod(stat.S_IRWXU)
        self.ends(0)

    def ends(self, code: int) -> None:
        self._code.write_text(str(code))

    def heard(self) -> list[str]:
        return self.told.read_text().splitlines() if self.told.exists() else []


class Stand:
    """The agent, and a helper that runs it."""

    def __init__(self, base: Path) -> None:
        self.agent = Agent(base)
        self.helper = Helper(options={"supervdsm": {"fence_agents_dir": self.agent.folder}})

    def fence(self, lives: Lives = lambda domain, host_id: None, **given: Any) -> dict[str, Any]:
        asked = {"addr": "10.0.0.1", "port": "", "agent": "test", "username": "admin", "password": SECRETS[0]}
        return fence(self.helper.client, Fence(**{**asked, "action": "off", **given}), lives)


@pytest.fixture
def stand(tmp_path: Path) -> Iterator[Stand]:
    made = Stand(tmp_path)
    try:
        yield made
    finally:
        made.helper.close()


@pytest.mark.parametrize(("code", "power"), [(0, "on"), (1, "unknown"), (2, "off")])
def test_the_status(stand: Stand, code: int, power: str) -> None:
    stand.agent.ends(code)
    assert stand.fence(action="status") == {"power": power}
    assert "action=status" in stand.agent.heard()


@pytest.mark.parametrize("action", ["on", "off", "reboot", "monitor"])
def test_what_is_done(stand: Stand, action: str) -> None:
    done = stand.fence(action=action, port=7, secure=True, options="power_wait=3")
    assert done == {"power": "unknown", "operationStatus": "initiated"}
    heard = stand.agent.heard()
    assert {f"action={action}", "ipaddr=10.0.0.1", "port=7", "secure=yes", "power_wait=3", "login=admin"} <= set(heard)
    assert f"passwd={SECRETS[0]}" in heard


@pytest.mark.parametrize(("code", "told"), [(1, 1), (2, 2), (3, 1), (77, 1)])
def test_a_failure_is_the_code_of_the_answer(stand: Stand, code: int, told: int) -> None:
    stand.agent.ends(code)
    done = stand.fence(options=f"snmp_community={SECRETS[1]}")
    assert (done["status"]["code"], done["power"], done["operationStatus"]) == (told, "unknown", "initiated")
    assert not [secret for secret in SECRETS if secret in str(done)]
    assert "action=off" in done["status"]["message"]


def test_a_status_that_no_agent_should_have(stand: Stand) -> None:
    stand.agent.ends(9)
    assert stand.fence(action="status")["status"]["code"] == 1


def test_what_is_no_action_reaches_no_agent(stand: Stand) -> None:
    with pytest.raises(NoSuchAction) as raised:
        stand.fence(action="explode")
    assert code_of(raised.value) == 16
    assert stand.agent.heard() == []


def test_an_agent_that_is_not_there(stand: Stand) -> None:
    for name in ("nosuch", "../../bin/true"):
        with pytest.raises(AgentFailed) as raised:
            stand.fence(agent=name)
        assert code_of(raised.value) == 43


def test_a_host_that_is_seen_alive_is_left_alone(stand: Stand) -> None:
    seen: list[tuple[str, int]] = []

    def lives(domain: str, host_id: int) -> bool:
        seen.append((domain, host_id))
        return domain == "second"

    policy = {"storageDomainHostIdMap": {"first": 3, "second": "4"}}
    assert stand.fence(lives, policy=policy) == {"operationStatus": "skipped"}
    assert seen == [("first", 3), ("second", 4)]
    assert stand.agent.heard() == []
    # Its status is asked for all the same.
    assert stand.fence(lives, action="status", policy=policy) == {"power": "on"}


@pytest.mark.parametrize("answer", [False, None])
def test_a_host_that_is_not_seen_alive_is_fenced(stand: Stand, answer: bool | None) -> None:
    policy = {"storageDomainHostIdMap": {"first": 3}}
    done = stand.fence(lambda domain, host_id: answer, policy=policy)
    assert done["operationStatus"] == "initiated"
    assert "action=off" in stand.agent.heard()


@pytest.mark.parametrize("wrong", [["a"], {"domain": "x"}, {"domain": -1}, {"domain": True}])
def test_a_policy_that_makes_no_sense_reaches_no_agent(stand: Stand, wrong: Any) -> None:
    with pytest.raises(Invalid):
        stand.fence(policy={"storageDomainHostIdMap": wrong})
    assert stand.agent.heard() == []


def test_a_daemon_fences_and_tells_no_secret(daemon: Callable[..., Running], tmp_path: Path) -> None:
    agent = Agent(tmp_path)
    running = daemon(config={"supervdsm": {"fence_agents_dir": agent.folder}})
    options = f"snmp_community={SECRETS[1]}"
    who = ("10.0.0.1", "", "test", "admin", SECRETS[0])
    assert running.must("fenceNode", *who, "status")["power"] == "on"
    done = running.must("fenceNode", *who, "reboot", "true", options, {})
    assert (done["power"], done["operationStatus"]) == ("unknown", "initiated")
    assert "secure=yes" in agent.heard() and options in agent.heard()
    agent.ends(1)
    failed = running.call("fenceNode", *who, "off", False, options)
    assert failed["status"]["code"] == 1
    assert running.call("fenceNode", *who, "explode")["status"]["code"] == 16
    assert running.call("fenceNode", *who[:2], "nosuch", *who[3:], "off")["status"]["code"] == 43
    log = running.log()
    assert "verb=fenceNode" in log and "action=fence.run" in log
    assert not [secret for secret in SECRETS if secret in log + str(failed)]
