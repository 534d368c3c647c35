"""Requests: what cannot be meant or is in use is refused with the contract's code, and nothing is changed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers.errors import DriverError
from drivers.network.bandwidth import MOST
from drivers.network.errors import BadAddress, BadParams
from drivers.network.kernel import OUR_TABLES, OURS, Address, Link, Route
from drivers.network.legacy import Asked, single
from drivers.network.model import Rate
from drivers.network.netlink import BOND_MODES
from drivers.network.netlink import WORDS as WORDS_OF_BONDS
from drivers.network.options import NUMBERS, parse
from drivers.network.request import Request, request
from supervdsm import links
from supervdsm.actions import bond as bonds
from supervdsm.actions import rate
from tests.drivers.network.fakekernel import FakeKernel
from tests.drivers.network.stand import Stand

ADDRESS = {"nic": "em1", "ipaddr": "192.0.2.10", "netmask": "255.255.255.0"}
ROUTED = {**ADDRESS, "gateway": "192.0.2.1"}
OTHER = {"nic": "em3", "ipaddr": "198.51.100.2", "netmask": "24", "gateway": "198.51.100.1"}
BOND = {"nics": ["em3", "em4"], "options": "mode=1 miimon=100"}

WRONG: list[tuple[str, Any, Any]] = [
    # Names
    ("ERR_BAD_BRIDGE", {"": {}}, {}),
    ("ERR_BAD_BRIDGE", {"a-name-of-sixteen": {}}, {}),
    ("ERR_BAD_BRIDGE", {"a b": {}}, {}),
    ("ERR_BAD_BRIDGE", {"a/b": {}}, {}),
    ("ERR_BAD_BRIDGE", {"a:b": {}}, {}),
    ("ERR_BAD_BRIDGE", {"a.b": {}}, {}),
    ("ERR_BAD_BRIDGE", {"..": {}}, {}),
    ("ERR_BAD_BRIDGE", {"n\u00fc": {}}, {}),
    ("ERR_BAD_BRIDGE", {"default": {}}, {}),
    ("ERR_BAD_BRIDGE", {"a\n": {}}, {}),
    ("ERR_BAD_BRIDGE", {"a\0": {}}, {}),
    ("ERR_BAD_BRIDGE", {"nobody": {"remove": True}}, {}),
    ("ERR_USED_BRIDGE", {"em2": {}}, {}),
    ("ERR_USED_BRIDGE", {"theirs": {}}, {}),
    # Attributes
    ("ERR_BAD_PARAMS", {"new": "text"}, {}),
    ("ERR_BAD_PARAMS", {"new": {"nic": "em1", "bonding": "bond0"}}, {}),
    ("ERR_BAD_PARAMS", {"new": {"nic": ["em1", "em2"]}}, {}),
    ("ERR_BAD_PARAMS", {"new": {"bridged": False}}, {}),
    ("ERR_BAD_PARAMS", {"new": {"bridged": "perhaps", "nic": "em1"}}, {}),
    ("ERR_BAD_PARAMS", {"new": {"bridged": False, "stp": True, "nic": "em1"}}, {}),
    ("ERR_BAD_PARAMS", {"new": {"mtu": "large"}}, {}),
    ("ERR_BAD_PARAMS", {"new": {"mtu": 67}}, {}),
    ("ERR_BAD_PARAMS", {"new": {"mtu": "70000"}}, {}),
    ("ERR_BAD_PARAMS", {"new": {"mtu": 1000, "ipv6autoconf": True}}, {}),
    ("ERR_BAD_PARAMS", {"new": {"bootproto": "bootp"}}, {}),
    ("ERR_BAD_PARAMS", {"new": {**ADDRESS, "bootproto": "dhcp"}}, {}),
    ("ERR_BAD_PARAMS", {"new": {"nic": "em1", "dhcpv6": "perhaps"}}, {}),
    ("ERR_BAD_PARAMS", {"new": {"nic": "em1", "vlan": 5, "VLAN": 6}}, {}),
    *(
        ("ERR_BAD_PARAMS", {"new": {"nic": "em1", "hostQos": qos}}, {})
        for qos in (
            {"out": {"ls": {"m2": -1}}},
            {"out": {"ls": {"m2": "much"}}},
            {"out": {"ls": {"m2": 10**12}}},
            {"out": {"ls": {"m1": 5}}},
            {"out": {"ls": {"m1": 5, "m2": 5}}},
            {"out": {"ul": {"m2": 5}}},
            {"out": {"ls": {"m2": 5}, "in": {"m2": 5}}},
            {"out": {"ls": {"m2": 5}, "rt": {"m2": 9}, "ul": {"m2": 8}}},
            {"out": "much"},
            "much",
        )
    ),
    ("ERR_BAD_PARAMS", {"new": {"hostQos": {"out": {"ls": {"m2": 1}}}}}, {}),
    *(
        ("ERR_BAD_PARAMS", {"new": {"nic": "em1", "qosInbound": qos}}, {})
        for qos in ({"peak": 5}, {"average": "much"}, {"average": -1}, {"average": 10**12}, {"average": 5, "peak": 4}, [5])
    ),
    ("ERR_BAD_PARAMS", {"new": {"qosOutbound": {"average": 1000}}}, {}),
    ("ERR_BAD_PARAMS", {"new": {"custom": ["text"]}}, {}),
    # Nics
    ("ERR_BAD_NIC", {"new": {"nic": "em9"}}, {}),
    ("ERR_BAD_NIC", {"new": {"nic": "lo"}}, {}),
    ("ERR_BAD_NIC", {"new": {"nic": "theirs"}}, {}),
    ("ERR_BAD_NIC", {"new": {"nic": 5.0}}, {}),
    ("ERR_USED_NIC", {"new": {"nic": "em2"}}, {}),
    ("ERR_USED_NIC", {"new": {"nic": "em5"}}, {}),
    ("ERR_USED_NIC", {"new": {"nic": "em3"}}, {"bond1": BOND}),
    ("ERR_USED_NIC", {"a": {"nic": "em1"}, "b": {"nic": "em1"}}, {}),
    ("ERR_USED_NIC", {"a": {"nic": "em1", "vlan": 5}, "b": {"nic": "em1", "vlan": "5"}}, {}),
    ("ERR_USED_NIC", {"a": {"nic": "em1", "vlan": 9}}, {}),
    # VLANs
    ("ERR_BAD_VLAN", {"new": {"nic": "em1", "vlan": 4095}}, {}),
    ("ERR_BAD_VLAN", {"new": {"nic": "em1", "vlan": -1}}, {}),
    ("ERR_BAD_VLAN", {"new": {"nic": "em1", "vlan": "ten"}}, {}),
    ("ERR_BAD_VLAN", {"new": {"nic": "em1", "vlan": True}}, {}),
    ("ERR_BAD_VLAN", {"new": {"vlan": 5}}, {}),
    # Addresses
    ("ERR_BAD_ADDR", {"new": {"nic": "em1", "ipaddr": "192.0.2.300", "netmask": "24"}}, {}),
    ("ERR_BAD_ADDR", {"new": {"nic": "em1", "ipaddr": "192.0.2.1"}}, {}),
    ("ERR_BAD_ADDR", {"new": {"nic": "em1", "netmask": "255.255.255.0"}}, {}),
    ("ERR_BAD_ADDR", {"new": {"nic": "em1", "gateway": "192.0.2.1"}}, {}),
    ("ERR_BAD_ADDR", {"new": {"nic": "em1", "bootproto": "static"}}, {}),
    ("ERR_BAD_ADDR", {"new": {**ADDRESS, "netmask": "255.0.255.0"}}, {}),
    ("ERR_BAD_ADDR", {"new": {**ADDRESS, "netmask": "0.0.0.255"}}, {}),
    ("ERR_BAD_ADDR", {"new": {**ADDRESS, "netmask": "0.0.0.0"}}, {}),
    ("ERR_BAD_ADDR", {"new": {**ADDRESS, "netmask": "33"}}, {}),
    ("ERR_BAD_ADDR", {"new": {**ADDRESS, "ipaddr": "192.0.2.0"}}, {}),
    ("ERR_BAD_ADDR", {"new": {**ADDRESS, "ipaddr": "192.0.2.255"}}, {}),
    ("ERR_BAD_ADDR", {"new": {**ADDRESS, "ipaddr": "224.0.0.1"}}, {}),
    ("ERR_BAD_ADDR", {"new": {**ADDRESS, "ipaddr": "127.0.0.1"}}, {}),
    ("ERR_BAD_ADDR", {"new": {**ADDRESS, "ipaddr": "2001:db8::1"}}, {}),
    ("ERR_BAD_ADDR", {"new": {**ADDRESS, "gateway": "198.51.100.1"}}, {}),
    ("ERR_BAD_ADDR", {"new": {**ADDRESS, "gateway": "192.0.2.10"}}, {}),
    ("ERR_BAD_ADDR", {"new": {**ADDRESS, "gateway": "the router"}}, {}),
    ("ERR_BAD_ADDR", {"new": {"nic": "em1", "ipv6addr": "2001:db8::1/129"}}, {}),
    ("ERR_BAD_ADDR", {"new": {"nic": "em1", "ipv6addr": "fe80::1%em1/64"}}, {}),
    ("ERR_BAD_ADDR", {"new": {"nic": "em1", "ipv6gateway": "2001:db8::1"}}, {}),
    ("ERR_BAD_ADDR", {"new": {"nic": "em1", "ipv6addr": "2001:db8::2/64", "ipv6gateway": "2001:db9::1"}}, {}),
    ("ERR_BAD_ADDR", {"a": ADDRESS, "b": {**ADDRESS, "nic": "em3"}}, {}),
    ("ERR_BAD_PARAMS", {"a": {**ROUTED, "defaultRoute": True}, "b": {**OTHER, "defaultRoute": True}}, {}),
    # Bonds
    ("ERR_BAD_BONDING", {"new": {"bonding": "bond7"}}, {}),
    ("ERR_BAD_BONDING", {}, {"team0": BOND}),
    ("ERR_BAD_BONDING", {}, {"bond": BOND}),
    ("ERR_BAD_BONDING", {}, {"bond0123456789ab": BOND}),
    ("ERR_BAD_BONDING", {}, {"bond1": {**BOND, "options": "mode"}}),
    ("ERR_BAD_BONDING", {}, {"bond1": {**BOND, "options": "mode=9"}}),
    ("ERR_BAD_BONDING", {}, {"bond1": {**BOND, "options": "mode=fast"}}),
    ("ERR_BAD_BONDING", {}, {"bond1": {**BOND, "options": "miimon=often"}}),
    ("ERR_BAD_BONDING", {}, {"bond1": {**BOND, "options": "colour=blue"}}),
    *(
        ("ERR_BAD_BONDING", {}, {"bond1": {**BOND, "options": options}})
        for options in (
            "mode=1 primary=em9", "mode=4 primary=em3", "mode=0 active_slave=em3", "mode=1 arp_ip_target=nowhere",
            "mode=1 arp_ip_target=2001:db8::1", "mode=4 arp_interval=100 arp_ip_target=192.0.2.1",
            "mode=1 miimon=100 arp_interval=100", "mode=1 num_grat_arp=256", "mode=1 primary=",
        )
    ),
    ("ERR_BAD_BONDING", {}, {"bond1": {"remove": True}}),
    ("ERR_BAD_PARAMS", {}, {"bond1": {}}),
    ("ERR_BAD_PARAMS", {}, {"bond1": {"nics": []}}),
    ("ERR_BAD_PARAMS", {}, {"bond1": {"nics": "em3"}}),
    ("ERR_BAD_PARAMS", {}, {"bond1": {"nics": ["em3", "em3"]}}),
    ("ERR_BAD_PARAMS", {}, {"bond1": 5}),
    ("ERR_BAD_NIC", {}, {"bond1": {"nics": ["em9"]}}),
    ("ERR_BAD_NIC", {}, {"bond1": {"nics": ["theirs"]}}),
    ("ERR_USED_NIC", {}, {"bond1": {"nics": ["em2"]}}),
    ("ERR_USED_NIC", {}, {"bond1": {"nics": ["em1"]}}),
    ("ERR_USED_NIC", {}, {"bond1": {"nics": ["em6"]}}),
    ("ERR_USED_NIC", {}, {"bond1": BOND, "bond2": BOND}),
    ("ERR_USED_BOND", {}, {"bond9": BOND}),
    ("ERR_USED_BOND", {}, {"bond0": {"remove": True}}),
    ("ERR_USED_BOND", {"new": {"bonding": "bond0"}}, {}),
    # Guests
    ("ERR_USED_BRIDGE", {"guests": {"remove": True}}, {}),
    ("ERR_USED_BRIDGE", {"guests": {"bonding": "bond0", "bridged": False}}, {}),
]  # fmt: skip


@pytest.fixture
def stand(tmp_path: Path) -> Stand:
    """Give a host with a bond under a network with a guest, a nic under another network, and what others have made."""
    kernel = FakeKernel("em1", "em2", "em3", "em4", "em5", "em6", "em7")
    kernel.links["theirs"] = Link(name="theirs", kind="bridge", addresses={"10.0.0.1/24": Address()}, up=True)
    kernel.links["em2"].master = "theirs"
    kernel.links["bond9"] = Link(name="bond9", kind="bond")
    kernel.links["em1.9"] = Link(name="em1.9", kind="vlan", below="em1", tag=9)
    stand = Stand(tmp_path, root=kernel, look=kernel.look)
    stand.setup({"guests": {"bonding": "bond0"}, "used": {"nic": "em5"}}, {"bond0": {"nics": ["em6", "em7"]}})
    kernel.links["vdnet0"] = Link(name="vdnet0", kind="tun", master="guests")
    return stand


def number_of(row: tuple[str, Any, Any]) -> str:
    return f"{WRONG.index(row)} {row[0]}"


@pytest.mark.parametrize("row", WRONG, ids=number_of)
def test_what_is_wrong_is_refused(stand: Stand, row: tuple[str, Any, Any]) -> None:
    wire, networks, bonds = row
    before, running = stand.root.look(), stand.driver.snapshot().running
    with pytest.raises(DriverError) as raised:
        stand.setup(networks, bonds)
    assert raised.value.wire == wire, raised.value
    assert stand.root.look() == before
    assert stand.driver.snapshot().running == running


def test_a_bad_request_spoils_the_good_ones_beside_it(stand: Stand) -> None:
    before = stand.root.look()
    with pytest.raises(DriverError):
        stand.setup({"good": {"nic": "em3"}, "bad": {"nic": "em9"}})
    assert stand.root.look() == before


def understood(networks: Any = None, bonds: Any = None, **options: Any) -> Request:
    return request(networks or {}, bonds or {}, options, check=True)


def test_the_words_of_engines() -> None:
    asked = understood(
        {"net": {"nic": "em1", "vlan": "12", "bridged": "true", "STP": "yes", "mtu": "9000", "BOOTPROTO": "none"}},
        {"bond0": {"nics": ["em1"], "options": "mode=4 custom=queue:3"}},
    ).networks["net"]
    assert asked is not None
    assert (asked.vlan, asked.bridged, asked.stp, asked.mtu) == (12, True, True, 9000)
    given = {"nic": "em1", "remove": "False", "dhcpv6": "YES", "custom": {"Colour": "Blue"}, "ipv6addr": "2001:DB8::1"}
    asked = understood({"net": {**given, "ipv6gateway": "FE80::1", "qosOutbound": {"average": "5"}}}).networks["net"]
    assert asked is not None and asked.dhcp6 and asked.custom == {"Colour": "Blue"}
    assert (asked.address6, asked.gateway6, asked.outbound) == ("2001:db8::1/64", "fe80::1", Rate(average=5))
    assert understood({"net": {"remove": " True "}}).networks["net"] is None
    assert (understood().check, understood().timeout) == (True, 4.0)
    assert not understood(connectivityCheck="false").check
    assert not understood(connectivityCheck=0).check
    assert understood(connectivityTimeout="60").timeout == 60
    with pytest.raises(BadParams):
        understood(connectivityTimeout=0)


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("", {"mode": "802.3ad", "miimon": "150"}),
        ("mode=4", {"mode": "802.3ad", "miimon": "100"}),
        ("mode=802.3ad miimon=100", {"mode": "802.3ad", "miimon": "100"}),
        ("mode=active-backup  arp_interval=007", {"mode": "active-backup", "arp_interval": "7"}),
        ("miimon=100", {"mode": "balance-rr", "miimon": "100"}),
        (
            "mode=1 primary=em2 arp_interval=100 arp_ip_target=192.0.2.1,+192.0.2.2,192.0.2.1 num_unsol_na=2",
            {
                "mode": "active-backup",
                "primary": "em2",
                "arp_interval": "100",
                "arp_ip_target": "192.0.2.1,192.0.2.2",
                "num_grat_arp": "2",
            },
        ),
        ("mode=2 xmit_hash_policy=2 custom=x", {"mode": "balance-xor", "xmit_hash_policy": "layer2+3"}),
    ],
)
def test_options_of_a_bond(text: str, options: dict[str, str]) -> None:
    assert parse("bond0", text, ("em1", "em2")) == options


def test_a_gateway_without_a_word_about_it_gets_the_default_route_when_it_is_free(stand: Stand) -> None:
    stand.setup({"a": ROUTED})
    stand.setup({"b": OTHER})
    running = stand.driver.snapshot().running
    assert [name for name, network in running.networks.items() if network.default_route] == ["a"]
    stand.setup({"b": {**OTHER, "defaultRoute": True}})
    running = stand.driver.snapshot().running
    assert [name for name, network in running.networks.items() if network.default_route] == ["b"]
    assert [(route.link, route.gateway) for route in stand.root.routes if route.is_default] == [("b", "198.51.100.1")]


def test_the_default_route_of_others_stays_alone(stand: Stand) -> None:
    theirs = Route(destination="0.0.0.0/0", gateway="10.0.0.254", link="theirs")
    stand.root.routes.append(theirs)
    stand.setup({"a": ROUTED})
    assert [route for route in stand.root.routes if route.is_default] == [theirs]
    assert stand.driver.snapshot().running.networks["a"].gateway == "192.0.2.1"


def test_only_one_that_is_removed_rightly_is_removed(stand: Stand) -> None:
    for vlan, bond, nics, wire in (
        (5, "", [], "ERR_BAD_VLAN"),
        (None, "bond1", [], "ERR_BAD_BONDING"),
        (None, "", ["em1"], "ERR_BAD_NIC"),
    ):
        with pytest.raises(DriverError) as raised:
            stand.driver.one("used", "", vlan, bond, nics, {})
        assert raised.value.wire == wire
    stand.driver.one("used", "", "", "", ["em5"], {})
    stand.driver.one("guests", "", None, "bond0", ["em6", "em7"], {"force": True})
    assert not [link.name for link in stand.root.links.values() if link.group == OURS]


def test_one_network_is_added_changed_and_renamed(stand: Stand) -> None:
    stand.driver.one("", "new", "12", "", ["em1"], {"STP": "yes", "mtu": "1400", "onboot": "yes", "blockingdhcp": True})
    assert stand.root.links["new"].stp and stand.root.links["em1.12"].master == "new"
    stand.driver.one("new", "other", "", "bond1", ["em3", "em4"], {"bondingOptions": "mode=1 miimon=100"})
    assert "new" not in stand.root.links and stand.root.links["bond1"].master == "other"
    stand.driver.one("other", "other", None, "", ["em1"], {})
    assert stand.root.links["em1"].master == "other" and "bond1" not in stand.root.links
    for old, new, nics, wire in (
        ("", "other", ["em3"], "ERR_USED_BRIDGE"),
        ("new", "newer", ["em3"], "ERR_BAD_BRIDGE"),
        ("other", "used", ["em3"], "ERR_USED_BRIDGE"),
        ("", "newer", ["em3", "em4"], "ERR_BAD_BONDING"),
        ("", "newer", ["em9"], "ERR_BAD_NIC"),
    ):
        with pytest.raises(DriverError) as raised:
            stand.driver.one(old, new, None, "", nics, {})
        assert raised.value.wire == wire


def test_one_network_in_the_words_of_the_older_verbs() -> None:
    asked = Asked("5", "bond0", ["em1", "em2"], {"bondingOptions": "mode=1", "MTU": 9000, "force": True})
    network, bonds, options = single(asked)
    assert network == {"mtu": 9000, "vlan": "5", "bonding": "bond0"}
    assert bonds == {"bond0": {"nics": ["em1", "em2"], "options": "mode=1"}}
    assert options == {"force": True}


junk = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)
WORDS = (
    "nic", "bonding", "vlan", "bridged", "stp", "mtu", "ipaddr", "netmask", "gateway", "bootproto", "ipv6addr", "hostqos",
    "custom", "defaultroute", "remove", "nics", "options", "dhcpv6", "ipv6gateway", "qosinbound", "qosoutbound",
)  # fmt: skip
struct = st.dictionaries(st.sampled_from(WORDS), junk)


@given(st.dictionaries(st.text(), struct | junk), st.dictionaries(st.text() | st.just("bond0"), struct | junk), struct)
def test_whatever_comes_is_understood_or_refused(networks: Any, bonds: Any, options: Any) -> None:
    try:
        request(networks, bonds, options, check=True)
    except DriverError as error:
        assert error.wire.startswith("ERR_"), error


def test_an_address_says_what_is_wrong() -> None:
    with pytest.raises(BadAddress, match="outside"):
        understood({"net": {**ADDRESS, "gateway": "203.0.113.1"}})


def test_the_helper_goes_by_the_same_numbers_and_words() -> None:
    """It is a program of its own, which imports nothing of the daemon."""
    assert (links.OURS, links.OUR_TABLES) == (OURS, OUR_TABLES)
    assert bonds.WORDS == {"mode": BOND_MODES, **WORDS_OF_BONDS}
    assert set(bonds.NUMBERS) == NUMBERS.keys()
    assert rate.MOST == MOST
