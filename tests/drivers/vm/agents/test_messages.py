"""What the oVirt agent says, message by message, and what nobody should."""

from __future__ import annotations

import json
import time
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drivers.vm.agents import messages
from drivers.vm.agents.channel import Lines
from drivers.vm.agents.guest import MOST_BEGUN, load, save
from drivers.vm.agents.messages import LONGEST_MENDED, Unintelligible, agreed, read, take, written
from drivers.vm.agents.told import LONGEST_TEXT, MOST, Kept, Report, Told, shown, statistics
from tests.drivers.vm.agents.inside import line
from vdsmd.api.xmlrpc import encode_reply

NICS = [
    {"name": "eth0", "hw": "52:54:00:12:34:56", "inet": ["10.0.0.2", "10.0.0.3"], "inet6": ["fe80::1"]},
    {"name": "lo", "hw": "00:00:00:00:00:00", "inet": ["127.0.0.1"], "inet6": []},
]
MOUNT = {"path": "/", "total": 1099511627776, "used": "21474836480", "fs": "ext4"}
OS = {
    "version": "7.2",
    "distribution": "CentOS",
    "codename": "Core",
    "arch": "x86_64",
    "type": "linux",
    "kernel": "3.10",
}

TABLE: dict[str, tuple[list[bytes], dict[str, Any]]] = {
    "nothing": ([], {}),
    "host-name": ([line("host-name", name="grün")], {"guestName": "grün"}),
    "os-version": ([line("os-version", version="3.10.0-327")], {"guestOs": "3.10.0-327"}),
    "os-info": ([line("os-info", **OS)], {"guestOsInfo": OS}),
    "timezone": ([line("timezone", zone="CET", offset=60)], {"guestTimezone": {"zone": "CET", "offset": 60}}),
    "timezone of nowhere": ([line("timezone", zone=None, offset="x")], {"guestTimezone": {"zone": "", "offset": 0}}),
    "fqdn": ([line("fqdn", fqdn="a.example")], {"guestFQDN": "a.example"}),
    "interfaces": (
        [line("network-interfaces", interfaces=NICS)],
        {"netIfaces": NICS, "guestIPs": "10.0.0.2 10.0.0.3"},
    ),
    "interfaces of older agents": (
        [line("network-interfaces", interfaces=[{"name": "eth0", "hw": "x", "inet": "10.0.0.2", "inet6": ""}])],
        {"netIfaces": [{"name": "eth0", "hw": "x", "inet": ["10.0.0.2"], "inet6": []}], "guestIPs": "10.0.0.2"},
    ),
    "applications": ([line("applications", applications=["a-1", "b-2"])], {"appsList": ["a-1", "b-2"]}),
    "no more applications": (
        [line("applications", applications=["a-1"]), line("applications", applications=[])],
        {"appsList": []},
    ),
    "disks-usage": (
        [line("disks-usage", disks=[MOUNT], mapping={"serial": {"name": "/dev/vda"}})],
        {"disksUsage": [{"path": "/", "total": "1099511627776", "used": "21474836480", "fs": "ext4"}]},
    ),
    "number-of-cpus": ([line("number-of-cpus", count=4)], {"guestCPUCount": 4}),
    "an absurd number of cpus": ([line("number-of-cpus", count=10**12)], {"guestCPUCount": -1}),
    "session-logon": ([line("session-logon")], {"session": "UserLoggedOn"}),
    "session-lock": ([line("session-lock")], {"session": "Locked"}),
    "session-unlock": ([line("session-unlock")], {"session": "Active"}),
    "session-startup": ([line("session-startup")], {}),
    "session-shutdown": ([line("session-shutdown")], {}),
    "heartbeat": (
        [line("heartbeat", **{"free-ram": "512", "memory-stat": {"mem_total": "1024", "swap_in": 0, "majflt": 1.5}})],
        {"memUsage": "50", "memoryStats": {"mem_total": "1024", "swap_in": "0", "majflt": "1.5"}},
    ),
    "heartbeat without figures": ([line("heartbeat")], {}),
    "heartbeat of nonsense": ([line("heartbeat", **{"free-ram": "much"})], {}),
    "more free than there is": ([line("heartbeat", **{"free-ram": 4096})], {"memUsage": "0"}),
    "completion": ([line("completion", reply_id="x")], {}),
    "containers": ([line("containers", list=[])], {}),
    "unknown": ([line("who-knows", name="x")], {}),
    "uninstalled": ([line("host-name", name="x"), line("uninstalled")], {}),
}


def told(*lines: bytes) -> dict[str, Any]:
    """Return what is shown of a guest of 1024 MiB that said these lines."""
    kept = Kept()
    for text in lines:
        take(kept.report, read(text))
    return statistics(kept, mem_size=1024, now=time.monotonic(), patience=60)


@pytest.mark.parametrize("name", TABLE)
def test_messages(name: str) -> None:
    lines, expected = TABLE[name]
    assert told(*lines) == expected


@pytest.mark.parametrize("name", TABLE)
def test_messages_byte_by_byte(name: str) -> None:
    lines, expected = TABLE[name]
    cutter = Lines()
    cut = [whole for byte in b"".join(lines) for whole in cutter.feed(bytes([byte]))]
    assert told(*cut) == expected


@pytest.mark.parametrize("name", TABLE)
def test_messages_survive_an_exec(name: str) -> None:
    kept = Kept()
    for text in TABLE[name][0]:
        take(kept.report, read(text))
    assert load(save({"a": kept})) == {"a": kept}


def test_users_come_and_go() -> None:
    report = Report()
    for text in (line("active-user", name="alice@example"), line("session-logon")):
        take(report, read(text))
    seen = shown(report.told)
    assert (seen["username"], seen["session"]) == ("alice@example", "UserLoggedOn")
    assert 0 < seen["lastLogin"] <= time.time() and "lastLogout" not in seen
    for text in (line("session-logoff"), line("active-user", name="None")):
        take(report, read(text))
    seen = shown(report.told)
    assert (seen["username"], seen["session"], seen["lastUser"]) == ("None", "LoggedOff", "alice@example")
    assert seen["lastLogout"] >= seen["lastLogin"]


BROKEN = {
    "no JSON": b"hello",
    "half": b'{"__name__": "host-name", "na',
    "no name": b'{"name": "x"}',
    "a name that is none": b'{"__name__": 5}',
    "a list": b'["host-name"]',
    "a number": b"1e999",
    "not a number": b'{"__name__": "heartbeat", "free-ram": NaN}',
    "wrong type": b'{"__name__": "applications", "applications": "x"}',
    "wrong type within": b'{"__name__": "network-interfaces", "interfaces": [{"name": []}]}',
    "wrong type of no concern": b'{"__name__": "host-name", "name": {"x": 1}}',
    "deep": b'{"__name__": "host-name", "name": ' + b"[" * 100000,
    "deep and unknown": b'{"__name__": "host-name", "x": ' + b"[" * 100000 + b"]" * 100000 + b"}",
    "zeros": bytes(100),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_no_message_changes_nothing(name: str) -> None:
    with pytest.raises(Unintelligible):
        read(BROKEN[name])


def test_characters_that_xml_lacks_are_replaced() -> None:
    assert told(line("host-name", name="a\x00b\x1bc\ud800\ufffe")) == {"guestName": "a\ufffdb\ufffdc\ufffd\ufffd"}
    assert told(b'{"__name__": "host-name", "name": "\xff\\\\ud800 \\ud83d\\ude00"}') == {
        "guestName": "\ufffd\\ud800 \U0001f600"
    }


def test_what_is_too_much_is_cut() -> None:
    assert told(line("host-name", name="x" * 100000)) == {"guestName": "x" * LONGEST_TEXT}
    assert len(told(line("applications", applications=["x"] * 100000))["appsList"]) == MOST
    digits = b'{"__name__": "host-name", "name": %s}'
    assert told(digits % (b"9" * 4000))["guestName"] == "9" * LONGEST_TEXT
    with pytest.raises(Unintelligible):
        read(digits % (b"9" * 100000))


def test_a_long_line_is_not_searched_for_what_is_no_character() -> None:
    bad = b'{"__name__": "host-name", "name": "\xff%s"}'
    assert read(bad % (b"x" * 1000)).name == "\ufffd" + "x" * 1000
    with pytest.raises(Unintelligible):
        read(bad % (b"x" * LONGEST_MENDED))
    assert read(b'{"__name__": "host-name", "name": "%s"}' % (b"x" * LONGEST_MENDED)).name == "x" * LONGEST_MENDED


def test_lines_that_have_arrived_in_part_are_kept_up_to_a_limit() -> None:
    kept = {str(size): Kept(begun=b"x" * size) for size in (MOST_BEGUN, 10, 0)}
    saved = load(save(kept))
    assert saved["10"] == kept["10"] and saved["0"] == kept["0"]
    assert (saved[str(MOST_BEGUN)].begun, saved[str(MOST_BEGUN)].skipping) == (b"", True)
    assert load(save({"a": Kept(begun=b"x" * MOST_BEGUN)}))["a"].begun == b"x" * MOST_BEGUN


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda some: st.lists(some) | st.dictionaries(st.text(), some),
    max_leaves=8,
)
FIELDS = st.dictionaries(
    st.sampled_from([messages._RENAMED.get(f, f) for f in messages.Message.__struct_fields__]), JSON
)


@settings(deadline=None, derandomize=True, database=None, max_examples=40)
@given(st.lists(st.tuples(st.sampled_from(sorted(messages._MEANINGS)), FIELDS), max_size=5))
def test_whatever_comes_can_be_shown_and_kept(said: list[tuple[str, dict[str, Any]]]) -> None:
    kept = Kept()
    for kind, fields in said:
        try:
            message = read(json.dumps({**fields, "__name__": kind}).encode())
        except Unintelligible:
            continue
        take(kept.report, message)
        assert 0 <= agreed(message) <= messages.API
    stats = statistics(kept, mem_size=64, now=time.monotonic(), patience=60)
    encode_reply(stats)
    assert load(save({"a": kept})) == {"a": kept}


@settings(deadline=None, derandomize=True, database=None)
@given(st.binary())
def test_noise_is_harmless(noise: bytes) -> None:
    for text in Lines().feed(noise + b"\n"):
        try:
            take(Report(), read(text))
        except Unintelligible:
            continue


@pytest.mark.parametrize(
    ("given", "version"), [(None, 0), (0, 0), (1, 1), (3, 3), (9, 3), ("2", 2), ("x", 0), (-1, 0), (10**30, 0)]
)
def test_versions(given: Any, version: int) -> None:
    assert agreed(read(line("heartbeat", apiVersion=given))) == version


def test_what_was_true_of_a_moment_is_not_shown_for_long() -> None:
    kept = Kept()
    take(kept.report, read(line("heartbeat", **{"free-ram": 32, "memory-stat": {"mem_free": "1"}})))
    take(kept.report, read(line("host-name", name="x")))
    now = time.monotonic()
    assert statistics(kept, mem_size=64, now=now + 29, patience=30).keys() == {"memUsage", "memoryStats", "guestName"}
    assert statistics(kept, mem_size=64, now=now + 31, patience=30).keys() == {"guestName"}


def test_which_agent_is_believed() -> None:
    kept = Kept(survey=Told(guest_name="by QEMU's", guest_fqdn="only QEMU's"))
    take(kept.report, read(line("host-name", name="by oVirt's")))
    take(kept.report, read(line("heartbeat")))
    now = time.monotonic()
    expected = {"guestName": "by oVirt's", "guestFQDN": "only QEMU's"}
    assert statistics(kept, mem_size=64, now=now, patience=30) == expected
    assert statistics(kept, mem_size=64, now=now + 121, patience=30) == {**expected, "guestName": "by QEMU's"}


def test_messages_to_guests_are_lines() -> None:
    text = written("login", username="a@b", password="x\ny")
    assert text.count(b"\n") == 1 and text.endswith(b"\n")
    assert msgspec.json.decode(text) == {"__name__": "login", "username": "a@b", "password": "x\ny"}
