"""After a boot, on a kernel in memory: a host gets as much of its networks as can be had, whatever is amiss."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from drivers.network.kernel import Kernel
from drivers.network.patience import MOST_REPAIRS, REPAIRS_WITHIN, Patience
from state.directory import StateDirectory
from supervdsm.client import ActionError, Failed, HelperGone, Unsupported
from tests.drivers.network.fakekernel import FakeKernel
from tests.drivers.network.stand import Stand, Struck

LIMITED = {"nic": "em1", "ipaddr": "192.0.2.10", "netmask": "24", "qosOutbound": {"average": 100}}
NETWORKS = {"net": LIMITED, "n2": {"nic": "em2"}, "n3": {"nic": "em3"}}


class Amiss:
    """A helper that does what it can. `wrong(action, arguments)` returns what is wrong with an action, if something is."""

    def __init__(self, kernel: FakeKernel, wrong: Callable[[str, dict[str, Any]], BaseException | None]) -> None:
        self.kernel = kernel
        self.wrong = wrong

    def call(self, action: str, *, timeout: float | None = None, **arguments: Any) -> Any:
        error = self.wrong(action, arguments)
        if error is not None:
            raise error
        return self.kernel.call(action, **arguments)


def booted(base: Path, networks: Any = NETWORKS) -> FakeKernel:
    """Make networks, keep them, and boot. Return the kernel, which has not heard of them."""
    kernel = FakeKernel("em1", "em2", "em3")
    stand = Stand(base, root=kernel, look=kernel.look)
    stand.setup(networks)
    stand.driver.set_safe()
    booted_files(base)
    return FakeKernel("em1", "em2", "em3")


def booted_files(base: Path) -> None:
    for path in (base / "lib" / "network").glob("*.json"):
        path.write_text(path.read_text().replace('"boot": "', '"boot": "another '))


def without_limits(action: str, _: dict[str, Any]) -> ActionError | None:
    """A kernel that cannot limit anything, and says so in this way or that."""
    return {"rate.set": Unsupported("no nft"), "rate.list": Failed("no nft"), "qos.set": Unsupported("no hfsc")}.get(
        action
    )


def blind(kernel: FakeKernel) -> Callable[[], Kernel]:
    """`look` of an ordinary user, who does not see rates."""

    def look() -> Kernel:
        found = kernel.look()
        for link in found.links.values():
            link.rates = 0
        return found

    return look


@pytest.mark.parametrize("limit", ["qosOutbound", "hostQos"])
def test_networks_come_without_limits_rather_than_not_at_all(tmp_path: Path, limit: str) -> None:
    limits = {"qosOutbound": {"average": 100}, "hostQos": {"out": {"ls": {"m2": 1000}}}}
    network = {key: value for key, value in LIMITED.items() if key != "qosOutbound"} | {limit: limits[limit]}
    kernel = booted(tmp_path, NETWORKS | {"net": network})
    stand = Stand(tmp_path, root=Amiss(kernel, without_limits), look=blind(kernel))
    assert kernel.links["net"].addresses.keys() == {"192.0.2.10/24"} and kernel.links["em1"].master == "net"
    assert [step.partition(" ")[0] for step in stand.driver.drift] == [
        "rate.set" if limit == "qosOutbound" else "qos.set"
    ]
    assert limit in stand.driver.facts({})["networks"]["net"]
    stand = Stand(tmp_path, root=kernel, look=blind(kernel))
    assert stand.driver.drift == []


def test_a_helper_that_goes_in_the_middle_is_waited_for(tmp_path: Path) -> None:
    kernel = booted(tmp_path)
    gone: list[str] = []

    def wrong(action: str, _: dict[str, Any]) -> ActionError | None:
        if action == "link.attach":
            gone.append(action)
        return HelperGone("struck") if gone else None

    root = Amiss(kernel, wrong)
    stand = Stand(tmp_path, root=root, look=kernel.look)
    assert "net" in kernel.links and kernel.links["em1"].master == ""
    root.wrong = lambda action, arguments: None
    stand.run_later()
    assert stand.driver.drift == [] and kernel.links["em3"].master == "n3"
    assert kernel.calls[0][0] == "bridge.create" and ("link.delete", {"link": "net"}) in kernel.calls


def test_a_full_disk_costs_no_networks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = booted(tmp_path)
    write = StateDirectory.write

    def full(self: StateDirectory, name: str, *given: Any, **how: Any) -> None:
        if name == "running.json":
            raise OSError(errno.ENOSPC, "No space left on device")
        write(self, name, *given, **how)

    monkeypatch.setattr(StateDirectory, "write", full)
    stand = Stand(tmp_path, root=kernel, look=kernel.look)
    assert stand.driver.drift == [] and kernel.links["em3"].master == "n3"
    count = len(kernel.calls)
    assert Stand(tmp_path, root=kernel, look=kernel.look).driver.drift == []
    assert len(kernel.calls) == count


def test_a_death_on_the_way_forgets_no_network(tmp_path: Path) -> None:
    """One network cannot be had, so they come one by one; and the daemon dies over the last."""
    kernel = booted(tmp_path)

    def wrong(action: str, arguments: dict[str, Any]) -> BaseException | None:
        if action == "bridge.create" and arguments["name"] == "n2":
            return Failed("no bridge today")
        alone = action == "bridge.create" and arguments["name"] == "n3" and kernel.links.get("net")
        return Struck() if alone and kernel.links["net"].up else None

    with pytest.raises(Struck):
        Stand(tmp_path, root=Amiss(kernel, wrong), look=kernel.look)
    assert kernel.links["em1"].master == "net" and "n3" not in kernel.links
    stand = Stand(tmp_path, root=kernel, look=kernel.look)
    assert stand.driver.drift == []
    assert [kernel.links[nic].master for nic in ("em1", "em2", "em3")] == ["net", "n2", "n3"]


def test_what_cannot_be_had_leaves_no_trace(tmp_path: Path) -> None:
    kernel = booted(tmp_path)

    def wrong(action: str, arguments: dict[str, Any]) -> ActionError | None:
        return Failed("that nic is broken") if action == "link.attach" and arguments["link"] == "em2" else None

    stand = Stand(tmp_path, root=Amiss(kernel, wrong), look=kernel.look)
    assert [kernel.links[nic].master for nic in ("em1", "em2", "em3")] == ["net", "", "n3"]
    assert "n2" not in kernel.links and not kernel.links["em2"].up
    assert stand.driver.drift[0].startswith("bridge.create name=n2")


def test_a_bond_that_cannot_be_made_costs_its_own_networks_only(tmp_path: Path) -> None:
    kernel = FakeKernel("em1", "em2", "em3", "em4")
    stand = Stand(tmp_path, root=kernel, look=kernel.look)
    bonds = {"bond0": {"nics": ["em2"]}, "bond1": {"nics": ["em3"]}, "bond2": {"nics": ["em4"]}}
    networks = {"n0": {"bonding": "bond0"}, "net": {"nic": "em1"}, "n1": {"bonding": "bond1", "vlan": 5}}
    stand.setup(networks, bonds)
    stand.driver.set_safe()
    booted_files(tmp_path)
    kernel = FakeKernel("em1", "em2", "em3", "em4")

    def wrong(action: str, arguments: dict[str, Any]) -> ActionError | None:
        return Failed("no such mode") if action == "bond.create" and arguments["name"] == "bond0" else None

    stand = Stand(tmp_path, root=Amiss(kernel, wrong), look=kernel.look)
    masters = {nic: kernel.links[nic].master for nic in ("em1", "em2", "em3", "em4")}
    assert masters == {"em1": "net", "em2": "", "em3": "bond1", "em4": "bond2"}
    assert kernel.links["bond1.5"].master == "n1" and "n0" not in kernel.links
    Stand(tmp_path, root=kernel, look=kernel.look)
    assert kernel.links["em2"].master == "bond0" and kernel.links["bond0"].master == "n0"


def test_patience_is_for_each_step() -> None:
    now = 0.0
    patience = Patience(lambda: now)
    for _ in range(MOST_REPAIRS):
        assert patience.left_alone(["a", "b"]) == []
        patience.take(["a"])
    patience.take(["b"])
    assert patience.left_alone(["a", "b"]) == ["a"]
    assert patience.is_news(["a"]) and not patience.is_news(["a"]) and not patience.is_news([])
    now = REPAIRS_WITHIN
    assert patience.left_alone(["a", "b"]) == []
    assert patience.is_news(["a"]), "an hour later it is told again"
    patience.take(["b"] * MOST_REPAIRS)
    assert patience.left_alone(["b"]) == ["b"]
    patience.forget()
    assert patience.left_alone(["b"]) == []
