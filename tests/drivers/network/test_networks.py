"""Networks in a real kernel: what is asked for is there, what is not ours is untouched, and what fails leaves no trace."""

from __future__ import annotations

import json
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest

from drivers.errors import DriverError
from drivers.network import errors
from supervdsm.client import Failed, HelperGone
from tests.drivers.network.namespace import different, ip, nics, state
from tests.drivers.network.stand import Stand, Struck
from tests.until import until

pytestmark = [pytest.mark.netns, pytest.mark.slow]

MANAGEMENT = {
    "nic": "em1",
    "bridged": "true",
    "STP": "no",
    "mtu": "1400",
    "bootproto": "none",
    "ipaddr": "192.0.2.10",
    "netmask": "255.255.255.0",
    "gateway": "192.0.2.1",
    "ipv6addr": "2001:db8:1::10/64",
    "ipv6gateway": "2001:db8:1::1",
    "defaultRoute": True,
}


def surroundings() -> None:
    """Make two nics, one of which somebody has configured, and networks of other people's."""
    nics("em1", "em2", "other")
    ip("addr add 192.0.2.77/24 brd 192.0.2.255 dev em1")
    ip("addr add 192.0.2.78/24 dev em1")
    ip("link set em1 up")
    ip("route add default via 192.0.2.1 dev em1")
    ip("route add 203.0.113.0/24 via 192.0.2.2 dev em1 proto 77")
    ip("link add name theirs type bridge stp_state 1")
    ip("link set other master theirs")
    ip("link set other up")
    ip("addr add 10.99.0.1/24 dev theirs")
    ip("link set theirs up")
    ip("route add 10.98.0.0/16 via 10.99.0.2")


def addresses(name: str) -> list[str]:
    told = json.loads(ip(f"-j addr show dev {name}"))[0]["addr_info"]
    return [f"{each['local']}/{each['prefixlen']}" for each in told if each["scope"] == "global"]


def link(name: str) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(ip(f"-d -j link show dev {name}"))[0]
    return told


def test_a_bridged_network_takes_over_a_nic(tmp_path: Path) -> None:
    surroundings()
    stand = Stand(tmp_path)
    stand.setup({"ovirtmgmt": MANAGEMENT})
    assert link("em1")["master"] == "ovirtmgmt"
    assert addresses("em1") == []
    assert addresses("ovirtmgmt") == ["192.0.2.10/24", "2001:db8:1::10/64"]
    assert link("ovirtmgmt")["mtu"] == link("em1")["mtu"] == 1400
    assert link("ovirtmgmt")["linkinfo"]["info_data"]["stp_state"] == 0
    assert "default via 192.0.2.1 dev ovirtmgmt" in ip("route")
    assert "default via 2001:db8:1::1 dev ovirtmgmt" in ip("-6 route")


def test_a_bridgeless_network_and_one_without_a_nic(tmp_path: Path) -> None:
    nics("em1")
    Stand(tmp_path).setup(
        {
            "plain": {"nic": ["em1"], "bridged": False, "ipaddr": "192.0.2.9", "netmask": "255.255.255.0", "mtu": 1300},
            "alone": {"bridged": True, "stp": True, "mtu": 9000},
        }
    )
    assert addresses("em1") == ["192.0.2.9/24"]
    assert link("em1")["mtu"] == 1300
    assert link("alone")["mtu"] == 9000
    assert link("alone")["linkinfo"]["info_data"]["stp_state"] == 1
    assert "UP" in link("alone")["flags"]


def test_what_is_not_ours_is_untouched(tmp_path: Path) -> None:
    surroundings()
    theirs = ("em1", "em1x", "net", "n2", "em2", "em2x")
    before = state(*theirs)
    stand = Stand(tmp_path)
    stand.setup({"net": MANAGEMENT})
    stand.setup({"n2": {"nic": "em2"}, "net": {**MANAGEMENT, "bridged": False}})
    assert different(before, state(*theirs)) == []
    stand.setup({"net": {"remove": True}, "n2": {"remove": "true"}})
    assert different(before, state(*theirs)) == []


def test_a_removed_network_gives_its_nic_back(tmp_path: Path) -> None:
    nics("em1")
    before = state()
    stand = Stand(tmp_path)
    stand.setup({"net": MANAGEMENT})
    stand.setup({"net": {"remove": True}})
    assert different(before, state()) == []


def test_the_same_again_changes_nothing(tmp_path: Path) -> None:
    surroundings()
    stand = Stand(tmp_path)
    stand.setup({"net": MANAGEMENT})
    before, calls = state(), len(stand.root.calls)
    stand.setup({"net": MANAGEMENT})
    assert different(before, state()) == []
    assert len(stand.root.calls) == calls


def test_guests_keep_their_bridge_over_an_edit(tmp_path: Path) -> None:
    nics("em1", "em2")
    stand = Stand(tmp_path)
    stand.setup({"net": MANAGEMENT})
    stand.root.call("tap.create", name="vdnet0", bridge="net", mtu=1400, mac="52:54:00:00:00:01")
    index = link("net")["ifindex"]
    stand.setup({"net": {"nic": "em2", "mtu": 1450, "stp": "on"}})
    assert link("net")["ifindex"] == index
    assert link("vdnet0")["master"] == link("em2")["master"] == "net"
    assert "master" not in link("em1")
    with pytest.raises(errors.UsedBridge):
        stand.setup({"net": {"remove": True}})
    with pytest.raises(errors.UsedBridge):
        stand.setup({"net": {"nic": "em2", "bridged": False}})
    stand.setup({"net": {"remove": True}}, force=True)
    assert "master" not in link("vdnet0")


def test_several_networks_in_one_change_swap_their_nics(tmp_path: Path) -> None:
    nics("em1", "em2")
    stand = Stand(tmp_path)
    stand.setup({"a": {"nic": "em1"}, "b": {"nic": "em2"}})
    stand.setup({"a": {"nic": "em2"}, "b": {"nic": "em1"}})
    assert link("em1")["master"] == "b"
    assert link("em2")["master"] == "a"


def test_a_failure_at_any_step_leaves_everything_as_it_was(tmp_path: Path) -> None:
    surroundings()
    before = state()
    for number in range(200):
        stand = Stand(tmp_path)

        def fail(at: int, number: int = number) -> None:
            if at == number:
                raise Failed("struck")

        stand.root.before = fail
        try:
            stand.setup(
                {"net": MANAGEMENT, "n2": {"nic": "em2", "bridged": False, "ipaddr": "10.5.0.1", "netmask": "16"}}
            )
        except DriverError:
            assert different(before, state()) == [], f"after failing at {stand.root.calls[number]}"
            assert stand.events[-1][0] == "network.taken_back"
            continue
        assert number > 8
        return
    pytest.fail("it never succeeded")


def shaped(name: str) -> dict[str, str]:
    """Return the classes of traffic on a link by the ends of their names, and as '' its scheduler, if that has classes."""
    told = {line.split()[2].partition(":")[2]: line for line in tc("class", name)}
    return told | {"": next((line.split()[1] for line in tc("qdisc", name) if line.split()[1] in ("hfsc", "htb")), "")}


def tc(what: str, name: str) -> list[str]:
    done = subprocess.run(["tc", "-s", what, "show", "dev", name], check=True, capture_output=True, text=True)
    return [line for line in done.stdout.splitlines() if line.startswith(what)]


def limits() -> list[Any]:
    """Return who shares the nics, and what is set by rates on them."""
    set_by_rates = [line for line in rules().splitlines() if "device" in line or "limit" in line]
    return [shaped("em1"), shaped("em2"), set_by_rates]


QOS = {"out": {"ls": {"m2": 8_000_000}, "rt": {"m2": 1_000_000}, "ul": {"m2": 4_000_000}}}


def test_networks_share_a_nic_as_they_are_told(tmp_path: Path) -> None:
    """With htb or hfsc, whichever this kernel has."""
    nics("em1")
    before, kind = state(), shaped("em1")
    stand = Stand(tmp_path)
    stand.setup({"net": {"nic": "em1", "hostQos": QOS}})
    told = shaped("em1")
    assert told[""] in ("hfsc", "htb") and "4Mbit" in told["1"] and "1Mbit" in told["1"]
    facts = stand.driver.facts({})
    assert facts["networks"]["net"]["hostQos"] == QOS
    calls = len(stand.root.calls)
    stand.setup({"net": {"nic": "em1", "hostQos": QOS}})
    assert len(stand.root.calls) == calls
    stand.setup({"net": {"nic": "em1", "hostQos": {"out": {"ls": {"m2": "1000000"}}}}})
    assert "4Mbit" not in shaped("em1")["1"]
    subprocess.run(["tc", "qdisc", "del", "dev", "em1", "root"], check=True)
    Stand(tmp_path)
    assert shaped("em1")[""] == told[""]
    stand.setup({"net": {"remove": True}})
    assert shaped("em1") == kind
    assert different(before, state()) == []


def test_a_scheduler_that_others_have_set_stays(tmp_path: Path) -> None:
    nics("em1")
    subprocess.run(["tc", "qdisc", "add", "dev", "em1", "root", "handle", "1:", "htb", "default", "1"], check=True)
    before = state(), shaped("em1")
    with pytest.raises(errors.BringUpFailed, match="others have set"):
        Stand(tmp_path).setup({"net": {"nic": "em1", "hostQos": QOS}})
    assert (state(), shaped("em1")) == before
    stand = Stand(tmp_path)
    stand.setup({"net": {"nic": "em1"}})
    stand.setup({"net": {"remove": True}})
    assert (state(), shaped("em1")) == before


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("way", ["up", "edit", "down"])
def test_a_kill_at_any_step_leaves_the_old_or_the_new(tmp_path: Path, moment: str, way: str) -> None:
    """The fault matrix of a change: the daemon dies before or after each action of it, and the next one recovers."""
    surroundings()
    slow = {"average": 100}
    first = {"net": {**MANAGEMENT, "hostQos": QOS, "qosInbound": slow}}
    second = {
        "net": {
            "nic": "em2",
            "ipaddr": "192.0.2.10",
            "netmask": "24",
            "mtu": 1500,
            "hostQos": QOS,
            "qosOutbound": slow,
        },
        "n2": {**SECOND, "nic": "em1", "bridged": False},
    }
    start, change = {
        "up": ({}, first),
        "edit": (first, second),
        "down": (first, {"net": {"remove": True}}),
    }[way]
    if start:
        Stand(tmp_path).setup(start)
    before, sharing = state(), limits()
    for number in range(200):
        stand = Stand(tmp_path)

        def strike(at: int, number: int = len(stand.root.calls) + number) -> None:
            if at == number:
                raise Struck

        setattr(stand.root, moment, strike)
        try:
            stand.setup(change)
        except Struck:
            recovered = Stand(tmp_path)
            assert different(before, state()) == [], f"killed {moment} {stand.root.calls[-1]}"
            assert limits() == sharing
            assert recovered.driver.drift == []
            continue
        assert number > 3
        assert state() != before
        after = state()
        assert {action for action, _ in Stand(tmp_path).root.calls} <= {"rate.list"}
        assert state() == after
        return
    pytest.fail("it never succeeded")


def test_a_kill_while_it_is_taken_back_is_taken_back_too(tmp_path: Path) -> None:
    surroundings()
    before = state()
    for number in range(8, 40):
        stand = Stand(tmp_path)

        def strike(at: int, number: int = number) -> None:
            if at == 8:
                raise Failed("struck")
            if at == number and at > 8:
                raise Struck

        stand.root.before = strike
        with pytest.raises((errors.BringUpFailed, Struck)) as raised:
            stand.setup({"net": MANAGEMENT})
        Stand(tmp_path)
        assert different(before, state()) == []
        if raised.type is not Struck and number > 8:
            return
    pytest.fail("it never came to its end")


def test_a_helper_that_is_gone_is_waited_for(tmp_path: Path) -> None:
    surroundings()
    before = state()
    stand = Stand(tmp_path)

    def gone(at: int) -> None:
        if at >= 7:
            raise HelperGone("struck")

    stand.root.before = gone
    with pytest.raises(errors.ChangeUnfinished):
        stand.setup({"net": MANAGEMENT})
    with pytest.raises(errors.ChangeUnfinished):
        stand.setup({})
    assert state() != before
    stand.root.before = lambda at: None
    stand.run_later()
    assert different(before, state()) == []
    stand.setup({"net": MANAGEMENT})
    assert link("em1")["master"] == "net"


def test_a_nic_that_vanishes_in_the_middle(tmp_path: Path) -> None:
    nics("em1", "em2")
    ip("addr add 10.7.0.1/24 dev em2")
    before = state("em1", "em1x")
    stand = Stand(tmp_path)

    def pull(at: int) -> None:
        if stand.root.calls[at][0] == "link.attach" and stand.root.calls[at][1]["link"] == "em1":
            ip("link del em1")

    stand.root.before = pull
    with pytest.raises(errors.BringUpFailed):
        stand.setup({"a": {"nic": "em2"}, "b": {"nic": "em1"}})
    assert different(before, state("em1", "em1x")) == []


def test_the_engine_must_call_again(tmp_path: Path) -> None:
    surroundings()
    before = state()
    stand = Stand(tmp_path)
    stand.call_like_an_engine()
    with pytest.raises(errors.ConnectionLost):
        stand.driver.setup({"net": MANAGEMENT}, {}, {"connectivityTimeout": 1})
    assert different(before, state()) == []
    assert stand.events[-1][0] == "network.taken_back"


def test_a_crash_repairs_what_is_ours(tmp_path: Path) -> None:
    nics("em1", "em2")
    stand = Stand(tmp_path)
    stand.setup({"net": MANAGEMENT, "n2": {"nic": "em2"}})
    before = state()
    ip("link set em1 nomaster")
    ip("link del n2")
    Stand(tmp_path)
    assert different(before, state()) == []


def reboot(base: Path) -> None:
    """Have the files say that they are of another boot, and the kernel know nothing of it."""
    for path in [*base.rglob("*.json"), *base.rglob("journal")]:
        path.write_text(path.read_text().replace('"boot": "', '"boot": "another '))
    while made := [each["ifname"] for each in json.loads(ip("-j link show group 30308")) if each]:
        ip(f"link del {made[-1]}")


def test_a_reboot_brings_back_what_was_made_safe(tmp_path: Path) -> None:
    nics("em1", "em2")
    stand = Stand(tmp_path)
    assert not stand.driver.dirty
    stand.setup({"net": MANAGEMENT})
    assert stand.driver.dirty
    stand.driver.set_safe()
    assert not stand.driver.dirty
    kept = state("em2", "em2x")
    stand.setup({"n2": {"nic": "em2"}})
    assert stand.driver.dirty
    reboot(tmp_path)
    again = Stand(tmp_path)
    assert state("em2", "em2x") == kept
    assert not again.driver.dirty
    assert "master" not in link("em2")


def test_a_reboot_without_one_nic_brings_back_the_rest(tmp_path: Path) -> None:
    nics("em1", "em2")
    stand = Stand(tmp_path)
    stand.setup({"net": MANAGEMENT, "n2": {"nic": "em2"}})
    stand.driver.set_safe()
    reboot(tmp_path)
    ip("link del em2")
    again = Stand(tmp_path)
    assert addresses("net") == ["192.0.2.10/24", "2001:db8:1::10/64"]
    assert not again.driver.dirty
    nics("em2")
    Stand(tmp_path)
    assert link("em2")["master"] == "n2"


def test_damaged_files_are_set_aside(tmp_path: Path) -> None:
    nics("em1")
    stand = Stand(tmp_path)
    stand.setup({"net": {"nic": "em1"}})
    before = state()
    (tmp_path / "lib" / "network" / "running.json").write_text("{")
    again = Stand(tmp_path)
    assert different(before, state()) == []
    assert again.driver.dirty is False
    assert list((tmp_path / "lib" / "network").glob("running.json.*.set-aside"))


def test_an_address_changes_within_its_subnet(tmp_path: Path) -> None:
    surroundings()
    stand = Stand(tmp_path)
    stand.setup({"net": MANAGEMENT})
    ip("route add 198.51.100.0/24 via 192.0.2.9 proto 77")
    stand.setup({"net": {**MANAGEMENT, "ipaddr": "192.0.2.11", "ipv6addr": "2001:DB8:1:0::11/64"}})
    assert addresses("net") == ["192.0.2.11/24", "2001:db8:1::11/64"]
    assert "default via 192.0.2.1 dev net" in ip("route")
    assert "198.51.100.0/24 via 192.0.2.9 dev net proto 77" in ip("route")


SECOND = {
    "nic": "em2",
    "ipaddr": "198.51.100.2",
    "netmask": "24",
    "gateway": "198.51.100.1",
    "ipv6addr": "2001:db8:2::2/64",
    "ipv6gateway": "2001:db8:2::1",
    "defaultRoute": False,
}


def way(source: str, to: str = "203.0.113.9") -> str:
    """Return over what the kernel sends from an address of ours to somebody far away."""
    return ip(f"route get {to} from {source}").split(" uid ")[0].split(" dev ")[0]


def test_what_comes_in_by_a_gateway_is_answered_over_it(tmp_path: Path) -> None:
    surroundings()
    ip("route del 203.0.113.0/24")
    stand = Stand(tmp_path)
    stand.setup({"net": MANAGEMENT})
    stand.setup({"second": SECOND})
    assert way("198.51.100.2").endswith("via 198.51.100.1")
    assert way("192.0.2.10").endswith("via 192.0.2.1")
    assert way("2001:db8:2::2", "2001:db8:9::9").endswith("via 2001:db8:2::1")
    assert "default via 198.51.100.1" not in ip("route")
    told = stand.driver.facts({})["networks"]["second"]
    assert (told["gateway"], told["ipv6gateway"]) == ("198.51.100.1", "2001:db8:2::1")
    assert len(ip("rule").splitlines()) == 3 + 2
    ip("rule del priority 32000 from 198.51.100.2")
    ip("link set second down")
    Stand(tmp_path)
    assert way("198.51.100.2").endswith("via 198.51.100.1")
    stand = Stand(tmp_path)
    stand.setup({"second": {**SECOND, "defaultRoute": True}, "net": {**MANAGEMENT, "defaultRoute": False}})
    assert way("192.0.2.10").endswith("via 192.0.2.1")
    stand.driver.set_safe()
    kept = state()
    reboot(tmp_path)
    Stand(tmp_path)
    assert different(kept, state()) == []
    stand = Stand(tmp_path)
    stand.setup({"net": {"remove": True}, "second": {"remove": True}})
    assert len(ip("rule").splitlines()) == len(ip("-6 rule").splitlines()) + 1 == 3
    assert not [key for key in state() if "'table': '19" in key], "tables of ours"


def test_a_failure_leaves_no_rule_behind(tmp_path: Path) -> None:
    nics("em1", "em2")
    before = state()
    for number in range(100):
        stand = Stand(tmp_path)

        def fail(at: int, number: int = number) -> None:
            if at == number:
                raise Failed("struck")

        stand.root.after = fail
        try:
            stand.setup({"second": SECOND})
        except DriverError:
            assert different(before, state()) == [], f"after {stand.root.calls[number]}"
            continue
        assert number > 12
        return
    pytest.fail("it never succeeded")


def test_rates_of_a_network(tmp_path: Path) -> None:
    """By what nft shows; and as far as the kernel goes, by what it drops."""
    nics("em1", "em2")
    stand = Stand(tmp_path)
    slow = {"average": 100, "burst": 64}
    stand.setup(
        {
            "net": {"nic": "em1", "qosInbound": slow, "qosOutbound": {"average": "200", "peak": 300}},
            "n2": {"nic": "em2"},
        }
    )
    assert "limit rate over 100 kbytes/second burst 64 kbytes drop" in rules()
    assert "limit rate over 200 kbytes/second" in rules()
    told = stand.driver.facts({})["networks"]
    assert (told["net"]["qosInbound"], told["net"]["qosOutbound"]) == (slow, {"average": 200, "peak": 300})
    assert "qosInbound" not in told["n2"]
    calls = len(stand.root.calls)
    stand.setup({"net": {"nic": "em1", "qosInbound": slow, "qosOutbound": {"average": 200, "peak": 300}}})
    assert {action for action, _ in stand.root.calls[calls:]} == {"rate.list"}
    received = packets("em1", "rx")
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as frames:
        frames.bind(("em1x", 0))
        for _ in range(1000):
            frames.send(bytes.fromhex("ffffffffffff02000000000188b5") + bytes(1400))
    until(lambda: packets("em1", "rx") >= received + 1000, 60, "all frames to have come")
    assert packets("net", "rx") < 500
    subprocess.run(["nft", "flush", "ruleset"], check=True)
    Stand(tmp_path)
    assert "limit rate over 100 kbytes/second" in rules()
    stand = Stand(tmp_path)
    stand.setup({"net": {"nic": "em2", "qosOutbound": slow}, "n2": {"remove": True}})
    assert rules().count("limit rate") == 1 and 'device "em2"' in rules()
    stand.setup({"net": {"nic": "em2"}})
    assert "limit rate" not in rules()


def rules() -> str:
    return subprocess.run(["nft", "list", "ruleset"], check=True, capture_output=True, text=True).stdout


def packets(name: str, way: str) -> int:
    told: int = json.loads(ip(f"-s -j link show dev {name}"))[0]["stats64"][way]["packets"]
    return told


def noticed(stand: Stand) -> list[str]:
    """Have the daemon look at what it has been told of. Return the names of the events since then."""
    until(stand.poller.ready, 60, "the kernel to tell")
    stand.events.clear()
    stand.run_later()
    return [name for name, _ in stand.events]


def test_what_others_change_is_told_and_repaired_but_not_for_ever(tmp_path: Path) -> None:
    nics("em1", "em2")
    stand = Stand(tmp_path, watch=True)
    stand.setup({"net": MANAGEMENT, "second": SECOND})
    before = state()
    assert noticed(stand) == []
    ip("addr add 10.5.5.5/24 dev em2x")
    assert noticed(stand) == [], "that is none of our business"
    for _ in range(3):
        ip("link set em1 nomaster")
        assert noticed(stand) == ["network.drift", "network.repaired"]
        assert link("em1")["master"] == "net" and stand.driver.drift == []
    ip("link set em1 nomaster")
    assert noticed(stand) == ["network.drift", "network.left_alone"]
    assert stand.driver.drift[0] == "link.attach link=em1 master=net"
    ip("addr add 10.5.5.6/24 dev em2x")
    assert noticed(stand) == [], "once told is enough"
    ip("rule del priority 32000 from 198.51.100.2")
    assert noticed(stand) == ["network.drift", "network.repaired"], "the rest is looked after all the same"
    assert "link.attach link=em1 master=net" in stand.driver.drift and "rule.add" not in str(stand.driver.drift)
    stand.setup({"net": MANAGEMENT})
    assert stand.driver.drift == []
    ip("rule del priority 32000 from 198.51.100.2")
    assert noticed(stand) == ["network.drift", "network.repaired"]
    ip("addr del 10.5.5.5/24 dev em2x")
    assert different(before, state()) == []
    stand.driver.settle()
    assert not stand.poller.watched, "no repair begins before a re-exec"
    stand.driver.resume()
    ip("rule del priority 32000 from 198.51.100.2")
    assert noticed(stand) == ["network.drift", "network.repaired"]
    stand.driver.quiesce(0)
    assert not stand.poller.watched
    stand.driver.start()
    ip("link del net")
    assert noticed(stand) == ["network.drift", "network.repaired"]
    assert different(before, state()) == []
    stand.driver.quiesce(0)


def test_a_nic_that_comes_back_is_used_again(tmp_path: Path) -> None:
    nics("em1", "em2")
    stand = Stand(tmp_path, watch=True)
    stand.setup({"net": MANAGEMENT, "n2": {"nic": "em2"}})
    ip("link del em2")
    assert noticed(stand) == []
    nics("em2")
    assert noticed(stand) == ["network.drift", "network.repaired"]
    assert link("em2")["master"] == "n2"
    stand.driver.quiesce(0)
