"""QEMU's guest agent: what its answers mean, and what answers that mean nothing do."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drivers.errors import Failed, NoSuchVm, NotResponding
from drivers.vm.agents.guest import load, save
from drivers.vm.agents.qemu import _QUESTIONS, shut_down, survey
from drivers.vm.agents.told import Kept, Told, shown, statistics
from tests.drivers.vm.agents.inside import QemuAgent
from tests.drivers.vm.agents.test_messages import JSON
from tests.drivers.vm.conftest import VM
from vdsmd.api.xmlrpc import encode_reply

REFUSED = Failed(action="asking", reason="unable to execute QEMU agent command: command not found")

ANSWERS: dict[str, tuple[Any, dict[str, Any]]] = {
    "guest-network-get-interfaces": (
        [
            {
                "name": "lo",
                "hardware-address": "00:00:00:00:00:00",
                "ip-addresses": [{"ip-address": "127.0.0.1", "ip-address-type": "ipv4", "prefix": 8}],
            },
            {
                "name": "eth0",
                "hardware-address": "52:54:00:00:00:01",
                "ip-addresses": [
                    {"ip-address": "192.0.2.10", "ip-address-type": "ipv4", "prefix": 24},
                    {"ip-address": "fe80::1", "ip-address-type": "ipv6", "prefix": 64},
                ],
                "statistics": {"rx-bytes": 5},
            },
            {"name": "sit0"},
        ],
        {
            "netIfaces": [
                {"name": "lo", "hw": "00:00:00:00:00:00", "inet": ["127.0.0.1"], "inet6": []},
                {"name": "eth0", "hw": "52:54:00:00:00:01", "inet": ["192.0.2.10"], "inet6": ["fe80::1"]},
                {"name": "sit0", "hw": "", "inet": [], "inet6": []},
            ],
            "guestIPs": "192.0.2.10",
        },
    ),
    "guest-get-users": (
        [{"user": "root", "login-time": 5.0}, {"user": "alice", "domain": "EXAMPLE", "login-time": 7.5}],
        {"username": "alice@EXAMPLE", "session": "UserLoggedOn", "lastLogin": 7.5},
    ),
    "guest-get-host-name": ({"host-name": "a.example"}, {"guestName": "a.example", "guestFQDN": "a.example"}),
    "guest-get-osinfo": (
        {
            "id": "debian",
            "name": "Debian GNU/Linux",
            "pretty-name": "Debian GNU/Linux 12 (bookworm)",
            "version": "12 (bookworm)",
            "version-id": "12",
            "kernel-release": "6.1.0",
            "machine": "x86_64",
        },
        {
            "guestOs": "Debian GNU/Linux 12 (bookworm)",
            "guestOsInfo": {
                "version": "12",
                "distribution": "Debian GNU/Linux",
                "codename": "bookworm",
                "arch": "x86_64",
                "type": "linux",
                "kernel": "6.1.0",
            },
        },
    ),
    "guest-get-timezone": ({"zone": "CET", "offset": 3600}, {"guestTimezone": {"zone": "CET", "offset": 60}}),
    "guest-get-fsinfo": (
        [
            {"name": "vda1", "mountpoint": "/", "type": "ext4", "used-bytes": 1, "total-bytes": 2**40, "disk": []},
            {"name": "sr0", "mountpoint": "/media", "type": "iso9660", "disk": []},
        ],
        {"disksUsage": [{"path": "/", "total": "1099511627776", "used": "1", "fs": "ext4"}]},
    ),
    "guest-get-vcpus": ([{"logical-id": 0}, {"logical-id": 1, "online": False}], {"guestCPUCount": 1}),
}


@pytest.fixture
def agent() -> QemuAgent:
    agent = QemuAgent()
    agent.answers = {"guest-ping": {}, **dict.fromkeys(_QUESTIONS, REFUSED)}
    return agent


def ask(agent: QemuAgent, before: Told | None = None) -> dict[str, Any]:
    link: Any = SimpleNamespace(agent=agent)
    return shown(survey(link, VM, before or Told()))


@pytest.mark.parametrize("command", _QUESTIONS)
def test_answers(agent: QemuAgent, command: str) -> None:
    answer, expected = ANSWERS[command]
    agent.answers[command] = answer
    assert ask(agent) == expected


def test_nobody_is_logged_in(agent: QemuAgent) -> None:
    agent.answers["guest-get-users"] = []
    assert ask(agent) == {"username": "None", "session": "LoggedOff"}


def test_all_at_once(agent: QemuAgent) -> None:
    agent.answers.update({command: answer for command, (answer, _) in ANSWERS.items()})
    assert ask(agent) == {key: value for _, facts in ANSWERS.values() for key, value in facts.items()}


def test_what_cannot_be_told_now_stays(agent: QemuAgent) -> None:
    agent.answers["guest-get-host-name"] = {"host-name": "new"}
    before = Told(guest_name="old", guest_os="os")
    assert ask(agent, before) == {"guestName": "new", "guestFQDN": "new", "guestOs": "os"}
    assert before.guest_name == "old"


@pytest.mark.parametrize("error", [NotResponding(what="x", reason="y"), NoSuchVm()])
def test_without_an_agent_nothing_more_is_asked(agent: QemuAgent, error: Any) -> None:
    agent.answers["guest-ping"] = error
    with pytest.raises(type(error)):
        ask(agent)
    assert agent.asked == ["guest-ping"]


@pytest.mark.parametrize("answer", ["", "{", "[]", "5", '{"return": "\\ud800"}', "[" * 100000])
def test_answers_that_are_none(agent: QemuAgent, answer: str) -> None:
    for command in _QUESTIONS:
        agent.answers[command] = answer
    assert ask(agent) == {}


@settings(deadline=None, derandomize=True, database=None, max_examples=40)
@given(st.fixed_dictionaries({}, optional=dict.fromkeys(_QUESTIONS, JSON)))
def test_whatever_is_answered_can_be_shown_and_kept(answers: dict[str, Any]) -> None:
    agent = QemuAgent()
    agent.answers = {"guest-ping": {}, **dict.fromkeys(_QUESTIONS, REFUSED), **answers}
    link: Any = SimpleNamespace(agent=agent)
    kept = Kept(survey=survey(link, VM, Told()))
    encode_reply(statistics(kept, mem_size=64, now=time.monotonic(), patience=60))
    assert load(save({"a": kept})) == {"a": kept}


def test_shutting_down_is_answered_with_silence(agent: QemuAgent) -> None:
    link: Any = SimpleNamespace(agent=agent)
    shut_down(link, VM, reboot=False)
    shut_down(link, VM, reboot=True)
    assert agent.asked == ["guest-ping", "guest-shutdown powerdown", "guest-ping", "guest-shutdown reboot"]
    agent.answers["guest-shutdown"] = REFUSED
    with pytest.raises(Failed):
        shut_down(link, VM, reboot=False)
    agent.answers["guest-ping"] = NotResponding(what="x", reason="y")
    with pytest.raises(NotResponding):
        shut_down(link, VM, reboot=False)
