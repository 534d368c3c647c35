"""Plans as data: what is done for which request, on kernels in memory; and what holds for every request there could be."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drivers.errors import DriverError
from drivers.network.errors import BringUpFailed, TakeDownFailed
from drivers.network.kernel import OURS, Address, Link, Route
from drivers.network.merge import merged
from drivers.network.model import Configuration
from drivers.network.plan import plan
from drivers.network.request import request
from supervdsm.client import Failed
from tests.drivers.network.fakekernel import ASKING, FakeKernel
from tests.drivers.network.stand import Stand, Struck

NICS = ("em1", "em2", "em3", "em4", "em5")
BOND = {"nics": ["em1", "em2"], "options": "mode=4 miimon=100"}
ADDRESS = {"ipaddr": "192.0.2.10", "netmask": "255.255.255.0", "gateway": "192.0.2.1"}


def steps(kernel: FakeKernel, networks: Any, bonds: Any = None, running: Configuration | None = None) -> list[str]:
    running = running or Configuration()
    asked = request(networks, bonds or {}, {}, check=False)
    known = kernel.look()
    return [str(step.do) for step in plan(known, running, merged(running, known, asked))]


PLANS: dict[str, tuple[Any, Any, list[str]]] = {
    "no nic": ({"net": {}}, {}, ["bridge.create name=net stp=off", "link.mtu link=net mtu=1500", "link.up link=net"]),
    "bridgeless": (
        {"net": {"nic": "em1", "bridged": False, **ADDRESS}},
        {},
        [
            "link.up link=em1",
            "link.autoconf link=em1 on=off",
            "address.add link=em1 address=192.0.2.10/24",
            "route.add destination=0.0.0.0/0 link=em1 gateway=192.0.2.1",
        ],
    ),
    "a VLAN with a bridge": (
        {"net": {"nic": "em1", "vlan": "100", "mtu": 9000}},
        {},
        [
            "vlan.create name=em1.100 link=em1 tag=100",
            "bridge.create name=net stp=off",
            "link.attach link=em1.100 master=net",
            "link.mtu link=em1 mtu=9000",
            "link.mtu link=em1.100 mtu=9000",
            "link.mtu link=net mtu=9000",
            "link.up link=em1",
            "link.up link=em1.100",
            "link.up link=net",
            "link.autoconf link=em1.100 on=off",
            "link.autoconf link=net on=off",
        ],
    ),
    "a bond with a VLAN": (
        {"net": {"bonding": "bond0", "vlan": 7, "bridged": "false", **ADDRESS}},
        {"bond0": BOND},
        [
            "bond.create name=bond0 options=mode=802.3ad,miimon=100",
            "vlan.create name=bond0.7 link=bond0 tag=7",
            "link.attach link=em1 master=bond0",
            "link.attach link=em2 master=bond0",
            "link.mtu link=bond0 mtu=1500",
            "link.mtu link=bond0.7 mtu=1500",
            "link.up link=bond0",
            "link.up link=bond0.7",
            "link.autoconf link=em1 on=off",
            "link.autoconf link=em2 on=off",
            "link.autoconf link=bond0.7 on=off",
            "address.add link=bond0.7 address=192.0.2.10/24",
            "route.add destination=0.0.0.0/0 link=bond0.7 gateway=192.0.2.1",
        ],
    ),
}


@pytest.mark.parametrize("name", PLANS)
def test_the_plan_for(name: str) -> None:
    networks, bonds, expected = PLANS[name]
    kernel = FakeKernel(*NICS)
    found = steps(kernel, networks, bonds)
    if name == "no nic":
        expected = [*expected, "link.autoconf link=net on=off"]
    assert found == expected


def test_a_nic_gives_up_its_addresses_for_a_bridge_and_gets_them_back(tmp_path: Path) -> None:
    kernel = FakeKernel(*NICS)
    kernel.links["em1"].up = True
    kernel.links["em1"].addresses = {
        "192.0.2.1/24": Address(broadcast="192.0.2.255"),
        "192.0.2.2/24": Address(),
        "2001:db8::1/64": Address(preferred=100, valid=200),
    }
    kernel.routes = [
        Route(destination="0.0.0.0/0", gateway="192.0.2.254", link="em1", protocol=16, metric=100),
        Route(destination="198.51.100.0/24", gateway="192.0.2.9", link="em1", source="192.0.2.2"),
        Route(destination="::/0", gateway="fe80::1", link="em1", metric=1024),
    ]
    del kernel.routes[2]
    before = kernel.look()
    stand = Stand(tmp_path, root=kernel, look=kernel.look)
    stand.setup({"net": {"nic": "em1"}})
    assert kernel.look().links["em1"].addresses == {}
    assert kernel.look().routes == []
    count = len(kernel.calls)
    for number in range(1, count + 1):
        taken_back(tmp_path, before, number)


def taken_back(base: Path, before: Any, number: int) -> None:
    """Do the same again on a kernel that fails at the action with that number: everything is as before."""
    kernel = FakeKernel()
    kernel.links, kernel.routes = msgspec.convert(before.links, dict[str, Link]), list(before.routes)
    kernel.links = {name: msgspec.structs.replace(link) for name, link in before.links.items()}
    with tempfile.TemporaryDirectory() as place:
        stand = Stand(Path(place), root=Failing(kernel, number), look=kernel.look)
        with pytest.raises(DriverError):
            stand.setup({"net": {"nic": "em1"}})
    assert kernel.look() == before


class Failing:
    """A helper that fails, or at which the daemon dies, at its action with a number (from 1)."""

    def __init__(self, kernel: FakeKernel, number: int, error: BaseException | None = None) -> None:
        self.kernel = kernel
        self.left = number
        self.error = error or Failed("struck")

    def call(self, action: str, *, timeout: float | None = None, **arguments: Any) -> Any:
        self.left -= action not in ASKING
        if self.left == 0:
            raise self.error
        return self.kernel.call(action, **arguments)


# What holds for every request

names = st.sampled_from(["net", "blue", "red"])


REMOVE: dict[str, Any] = {"remove": True}


@st.composite
def requests(draw: st.DrawFn) -> tuple[dict[str, Any], dict[str, Any]]:
    """Mostly sensible ones: a host has bonds or uses its nics as they are, now and then both."""
    layout = draw(st.sampled_from(["nics", "nics", "bonds", "bonds", "mixed"]))
    bonds: dict[str, Any] = {}
    if layout != "nics":
        for name, nics in (("bond0", ["em1", "em2"]), ("bond1", ["em3", "em4"])):
            mode = draw(st.sampled_from(["mode=1 miimon=100", "mode=4"]))
            bonds[name] = {"nics": nics[: draw(st.integers(1, 2))], "options": mode}
    bases: list[dict[str, Any]] = [{}]
    bases += [{"nic": nic} for nic in NICS] if layout != "bonds" else []
    bases += [{"bonding": bond} for bond in bonds]
    networks = {name: draw(network(bases)) for name in draw(st.sets(names, min_size=1))}
    if layout == "nics" and draw(st.integers(0, 2)) == 0:
        bonds = {"bond0": REMOVE, "bond1": REMOVE}
    return networks, bonds


@st.composite
def network(draw: st.DrawFn, bases: list[dict[str, Any]]) -> dict[str, Any]:
    if draw(st.integers(0, 9)) == 0:
        return REMOVE
    base = draw(st.sampled_from(bases))
    wanted: dict[str, Any] = {
        **base,
        "bridged": draw(st.booleans()) or not base,
        "mtu": draw(st.sampled_from([0, 1400, 9000])),
        "vlan": draw(st.sampled_from(["", 5, 6, 7])) if base else "",
        "defaultRoute": False,
    }
    if draw(st.booleans()):
        wanted |= {"ipaddr": f"192.0.2.{draw(st.integers(10, 30))}", "netmask": "24", "gateway": "192.0.2.1"}
        wanted["defaultRoute"] = draw(st.integers(0, 2)) == 0
    elif draw(st.integers(0, 2)) == 0:
        wanted |= {"bootproto": "dhcp", "defaultRoute": draw(st.booleans())}
    if draw(st.booleans()):
        wanted |= {"ipv6addr": f"2001:db8::{draw(st.integers(1, 99))}/64", "ipv6autoconf": draw(st.booleans())}
        wanted |= {"ipv6gateway": draw(st.sampled_from(["", "2001:db8::fe"])), "dhcpv6": draw(st.booleans())}
    if base and draw(st.integers(0, 2)) == 0:
        wanted["hostQos"] = {"out": {"ls": {"m2": draw(st.sampled_from([1000, 2000]))}}}
    if base and draw(st.integers(0, 2)) == 0:
        wanted["qosInbound"] = {"average": draw(st.sampled_from([1000, 2000]))}
    wanted["stp"] = wanted["bridged"] and draw(st.booleans())
    return wanted


def fresh() -> FakeKernel:
    kernel = FakeKernel(*NICS)
    kernel.links["theirs"] = Link(name="theirs", kind="bridge", up=True, addresses={"10.0.0.1/8": Address()})
    kernel.links["em1"].up = True
    kernel.links["em1"].addresses = {"198.51.100.1/24": Address(broadcast="198.51.100.255")}
    kernel.links["em5.9"] = Link(name="em5.9", kind="vlan", below="em5", tag=9, mtu=1500, up=True)
    kernel.links["em2"].mtu = 2000
    return kernel


def theirs(kernel: FakeKernel) -> dict[str, Link]:
    return {name: link for name, link in kernel.look().links.items() if link.group != OURS and name not in NICS}


@pytest.mark.slow
@given(st.lists(requests(), min_size=1, max_size=4), st.integers(1, 40), st.booleans())
@settings(max_examples=100, deadline=None)
def test_every_change_is_whole_or_not_at_all(changes: list[Any], number: int, dies: bool) -> None:
    """A run of changes; then one more that fails, or at which the daemon dies, somewhere; then everything is removed."""
    kernel = fresh()
    others = theirs(kernel)
    with tempfile.TemporaryDirectory() as place:
        stand = Stand(Path(place), root=kernel, look=kernel.look)
        for networks, bonds in changes[:-1]:
            change(stand, kernel, networks, bonds)
        before = kernel.look()
        failing = Failing(kernel, number, Struck() if dies else None)
        stand = Stand(Path(place), root=failing, look=kernel.look)
        try:
            stand.setup(*(known_removals(stand, items) for items in changes[-1]))
        except (DriverError, Struck):
            stand = Stand(Path(place), root=kernel, look=kernel.look)
            assert kernel.look() == before
        stand = Stand(Path(place), root=kernel, look=kernel.look)
        running = stand.driver.snapshot().running
        assert plan(kernel.look(), running, running) == []
        stand.setup(
            {name: {"remove": True} for name in running.networks}, {name: {"remove": True} for name in running.bonds}
        )
    assert not [link.name for link in kernel.links.values() if link.ours]
    assert theirs(kernel) == others
    assert [(link.mtu, link.up, link.master) for link in nics(kernel)] == [
        (link.mtu, link.up, "") for link in nics(fresh())
    ]


def nics(kernel: FakeKernel) -> list[Link]:
    return [kernel.links[name] for name in NICS]


def change(stand: Stand, kernel: FakeKernel, networks: Any, bonds: Any) -> None:
    """Make a change that is done, and then leaves nothing to do; or is refused, and has done nothing."""
    before = kernel.look()
    try:
        stand.setup(known_removals(stand, networks), known_removals(stand, bonds))
    except DriverError as error:
        assert getattr(error, "wire", "").startswith("ERR_"), error
        assert not isinstance(error, (BringUpFailed, TakeDownFailed)), error
        assert kernel.look() == before
        return
    running = stand.driver.snapshot().running
    assert plan(kernel.look(), running, running) == []
    count = len(kernel.calls)
    stand.setup(without_removals(networks), without_removals(bonds))
    assert len(kernel.calls) == count


def known_removals(stand: Stand, items: dict[str, Any]) -> dict[str, Any]:
    """Leave out removals of what is not there, which would only be refused."""
    running = stand.driver.snapshot().running
    return {name: item for name, item in items.items() if item != REMOVE or name in {*running.networks, *running.bonds}}


def without_removals(items: dict[str, Any]) -> dict[str, Any]:
    return {name: item for name, item in items.items() if item != REMOVE}
