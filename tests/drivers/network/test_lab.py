"""Bonds and VLANs in a kernel that has them: the plans that are tested as data elsewhere, carried out."""

from __future__ import annotations

import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest

from drivers.errors import DriverError
from drivers.network.netlink import look
from supervdsm.client import Failed
from tests.drivers.network.namespace import different, ip, nics, state
from tests.drivers.network.stand import Stand, Struck
from tests.drivers.network.test_networks import addresses, link, reboot, shaped
from tests.until import until

pytestmark = [pytest.mark.lab, pytest.mark.netns]

BOND = {"nics": ["em1", "em2"], "options": "mode=1 miimon=100"}
ADDRESS = {"ipaddr": "192.0.2.10", "netmask": "24", "gateway": "192.0.2.1"}
FIRST = (
    {
        "net": {"bonding": "bond0", "vlan": 100, "mtu": 9000, **ADDRESS},
        "plain": {"bonding": "bond0", "bridged": False, "mtu": 1400, "ipaddr": "198.51.100.2", "netmask": "24"},
        "tagged": {"nic": "em3", "vlan": 7, "bridged": False},
    },
    {"bond0": BOND},
)
SECOND = (
    {
        "net": {"nic": "em1", "vlan": 101, **ADDRESS},
        "plain": {"remove": True},
        "tagged": {"bonding": "bond0", "vlan": 7},
    },
    {"bond0": {"nics": ["em2", "em4"], "options": "mode=4 miimon=200"}},
)


def test_a_bond_with_a_vlan_under_a_bridge(tmp_path: Path) -> None:
    nics("em1", "em2", "em3")
    before = state()
    stand = Stand(tmp_path)
    stand.setup(*FIRST)
    bond = link("bond0")["linkinfo"]["info_data"]
    assert (bond["mode"], bond["miimon"]) == ("active-backup", 100)
    assert link("em1")["master"] == link("em2")["master"] == "bond0"
    assert link("bond0.100")["linkinfo"]["info_data"]["id"] == 100
    assert link("bond0.100")["master"] == "net"
    assert [link(name)["mtu"] for name in ("em1", "em2", "bond0", "bond0.100", "net")] == [9000] * 5
    assert addresses("net") == ["192.0.2.10/24"]
    assert addresses("bond0") == ["198.51.100.2/24"]
    stand.setup({name: {"remove": True} for name in FIRST[0]}, {"bond0": {"remove": True}})
    assert different(before, state()) == []


def test_networks_on_vlans_share_a_bond(tmp_path: Path) -> None:
    nics("em1", "em2", "em3")
    stand = Stand(tmp_path)
    curve = {"m1": 20_000_000, "d": 10_000, "m2": 10_000_000}
    qos = {"net": {"out": {"ls": curve, "ul": {"m2": 50_000_000}}}, "plain": {"out": {"ls": {"m2": 5_000_000}}}}
    stand.setup({name: {**network, "hostQos": qos.get(name)} for name, network in FIRST[0].items()}, FIRST[1])
    told = shaped("bond0")
    assert told[""] == "hfsc" and "m1 20Mbit d 10ms m2 10Mbit" in told["66"] and "m2 5Mbit" in told["1"]
    assert stand.driver.facts({})["networks"]["net"]["hostQos"] == qos["net"]
    before = sent("66")
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as frames:
        frames.bind(("bond0.100", 0))
        frames.send(bytes.fromhex("ffffffffffff02000000000188b5") + bytes(50))
    until(lambda: sent("66") > before, 60, "the frame to be counted with its VLAN")
    stand.setup(*FIRST)
    assert shaped("bond0")[""] == ""


def sent(name: str) -> int:
    """Return how many bytes a class of bond0 has sent."""
    told = subprocess.run(["tc", "-s", "class", "show", "dev", "bond0"], check=True, capture_output=True, text=True)
    lines = iter(told.stdout.splitlines())
    next(line for line in lines if line.startswith("class") and line.split()[2].endswith(f":{name}"))
    return int(next(lines).split()[1])


def test_options_of_a_bond_change_under_its_networks(tmp_path: Path) -> None:
    nics("em1", "em2", "em3")
    stand = Stand(tmp_path)
    stand.setup(*FIRST)
    index = link("bond0.100")["ifindex"]
    stand.setup({}, {"bond0": {**BOND, "options": "mode=802.3ad miimon=50 lacp_rate=fast"}})
    bond = link("bond0")["linkinfo"]["info_data"]
    assert (bond["mode"], bond["miimon"], bond["ad_lacp_rate"]) == ("802.3ad", 50, "fast")
    assert link("bond0.100")["ifindex"] == index
    assert link("em1")["master"] == "bond0"
    assert stand.driver.drift == []


@pytest.mark.timeout(1200)  # a hundred changes, in an emulated machine that may not be alone
@pytest.mark.parametrize("dies", [False, True])
@pytest.mark.parametrize("way", ["up", "edit", "down"])
def test_whatever_happens_at_any_step(tmp_path: Path, way: str, dies: bool) -> None:
    nics("em1", "em2", "em3", "em4")
    ip("addr add 203.0.113.1/24 dev em1")
    gone: tuple[Any, Any] = ({name: {"remove": True} for name in FIRST[0]}, {"bond0": {"remove": True}})
    start, change = {"up": (({}, {}), FIRST), "edit": (FIRST, SECOND), "down": (FIRST, gone)}[way]
    Stand(tmp_path).setup(*start)
    before = state()
    for number in range(200):
        stand = Stand(tmp_path)

        def strike(at: int, number: int = number) -> None:
            if at == number:
                raise Struck if dies else Failed("struck")

        stand.root.before = strike
        try:
            stand.setup(*change)
        except (DriverError, Struck):
            Stand(tmp_path)
            assert different(before, state()) == [], f"at {number} {stand.root.calls[number]}"
            continue
        assert number > 5
        return
    pytest.fail("it never succeeded")


def test_a_reboot_brings_a_bond_with_a_vlan_back(tmp_path: Path) -> None:
    nics("em1", "em2", "em3")
    stand = Stand(tmp_path)
    stand.setup(*FIRST)
    stand.driver.set_safe()
    before = state()
    reboot(tmp_path)
    Stand(tmp_path)
    assert different(before, state()) == []


def bond() -> dict[str, Any]:
    told: dict[str, Any] = link("bond0")["linkinfo"]["info_data"]
    return told


def test_options_of_a_bond_that_name_links_and_addresses(tmp_path: Path) -> None:
    nics("em1", "em2", "em3")
    before = state()
    stand = Stand(tmp_path)
    by_arp = "mode=1 arp_interval=200 arp_ip_target=192.0.2.1,192.0.2.2 arp_validate=none"
    stand.setup({"net": {"bonding": "bond0"}}, {"bond0": {**BOND, "options": by_arp}})
    assert (bond()["arp_interval"], bond()["arp_ip_target"]) == (200, ["192.0.2.1", "192.0.2.2"])
    stand.setup(
        {}, {"bond0": {**BOND, "options": "mode=1 miimon=50 primary=em2 primary_reselect=better num_grat_arp=3"}}
    )
    assert (bond()["primary"], bond()["miimon"], bond()["num_peer_notif"]) == ("em2", 50, 3)
    assert "arp_ip_target" not in bond() or not bond()["arp_ip_target"]
    assert look().links["bond0"].options["primary"] == "em2"
    until(lambda: bond()["active_slave"] == "em2", 60, "the primary slave to be the active one")
    stand.setup({}, {"bond0": {**BOND, "options": "mode=1 miimon=50 active_slave=em1"}})
    assert bond()["active_slave"] == "em1" and "primary" not in bond()
    ip("link set em1x down")
    until(lambda: bond()["active_slave"] == "em2", 60, "the other slave to take over")
    assert stand.driver.drift == [] and Stand(tmp_path).root.calls == []
    ip("link set em1x up")
    stand = Stand(tmp_path)
    stand.setup({}, {"bond0": {"nics": ["em2", "em3"], "options": "mode=1 miimon=50 primary=em3"}})
    assert bond()["primary"] == "em3"
    ip("link del em3")
    assert Stand(tmp_path).driver.drift == []
    nics("em3")
    assert Stand(tmp_path).driver.drift == [] and bond()["primary"] == "em3"
    stand = Stand(tmp_path)
    stand.setup({}, {"bond0": {"nics": ["em2", "em3"], "options": "mode=4"}})
    assert bond()["mode"] == "802.3ad"
    stand.setup({"net": {"remove": True}}, {"bond0": {"remove": True}})
    assert different({key: item for key, item in before.items() if "em3" not in key}, state("em3", "em3x")) == []


def test_routes_outlive_a_change_of_mode(tmp_path: Path) -> None:
    nics("em1", "em2")
    stand = Stand(tmp_path)
    plain = {"bonding": "bond0", "bridged": False, **ADDRESS, "ipv6addr": "2001:db8::9/64"}
    tagged = {
        "bonding": "bond0",
        "vlan": 5,
        "bridged": False,
        "ipaddr": "10.5.0.9",
        "netmask": "24",
        "gateway": "10.5.0.1",
    }
    stand.setup({"plain": plain, "tagged": {**tagged, "defaultRoute": False}}, {"bond0": BOND})
    ip("route add 203.0.113.0/24 via 10.5.0.2")
    before = state()
    stand.setup({}, {"bond0": {**BOND, "options": "mode=4"}})
    assert different(before, state()) == []
    assert stand.driver.drift == []
