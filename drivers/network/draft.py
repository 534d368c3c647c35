"""Draft: a plan as it is being made. It plays every step through on a copy of the kernel's state.

It promises that a step's undo leads back to exactly the state before the step, as far as the kernel told it, and that no step
is written down that would change nothing.
"""

from __future__ import annotations

import copy
from ipaddress import ip_interface
from typing import Any

from drivers.network.devices import USUAL_MTU, Device
from drivers.network.kernel import FOR_EVER, MAIN, OURS, Address, Kernel, Link, Route
from drivers.network.model import Act, Qos, Step
from drivers.network.shares import number, told

UNKNOWN_MTU = 0
"""Of a link that is yet to be made, and of one that has just left a bond: the kernel decides, until it is told."""


class Draft:
    """`kernel` is what there would be after the `steps`."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = copy.deepcopy(kernel)
        self.steps: list[Step] = []

    def find(self, name: str) -> Link | None:
        return self.kernel.links.get(name)

    # Making and removing

    def create(self, device: Device) -> None:
        link = Link(name=device.name, kind=device.kind, group=OURS, autoconf6=True, mtu=UNKNOWN_MTU)
        link.below, link.tag, link.stp, link.options = device.below, device.tag, device.stp, dict(device.options)
        self._do(self._making(link), act("link.delete", link=device.name))
        self.kernel.links[device.name] = link

    def delete(self, name: str) -> None:
        """Remove a link of ours. What is still on it (guests, where the caller insists) is given back with it."""
        routes = self.kernel.routes_of(name)
        link = self.kernel.links.pop(name)
        undo = [self._making(link, with_mac=True), act("link.mtu", link=name, mtu=link.mtu)]
        undo += [act("link.autoconf", link=name, on=False)] * (not link.autoconf6)
        undo += [act("link.attach", link=port, master=name) for port in self.kernel.ports(name)]
        undo += [act("link.up", link=name)] * link.up
        undo += [_adding(name, address, known) for address, known in link.addresses.items()]
        undo += [_restoring(route) for route in routes]
        self._do(act("link.delete", link=name), *undo)
        for port in self.kernel.ports(name):
            self.kernel.links[port].master = ""
        self.kernel.routes = [route for route in self.kernel.routes if route not in routes]

    def set_stp(self, name: str, stp: bool) -> None:
        link = self.kernel.links[name]
        if link.stp != stp:
            self._do(act("bridge.edit", name=name, stp=stp), act("bridge.edit", name=name, stp=link.stp))
            link.stp = stp

    def set_options(self, name: str, options: dict[str, str]) -> None:
        link = self.kernel.links[name]
        new = {key: value for key, value in options.items() if link.options.get(key) != value}
        if new:
            old = {key: link.options[key] for key in new if key in link.options}
            self._do(act("bond.edit", name=name, options=new), *[act("bond.edit", name=name, options=old)] * bool(old))
            link.options = {**link.options, **new}

    # Attaching

    def attach(self, name: str, master: str) -> None:
        link, above = self.kernel.links[name], self.kernel.links[master]
        undo = [act("link.detach", link=name, master=master)]
        if above.kind == "bond":
            undo.append(act("link.up" if link.up else "link.down", link=name))
            undo += [act("link.mtu", link=name, mtu=link.mtu)] * (link.mtu != UNKNOWN_MTU)
            link.up, link.mtu = True, above.mtu or USUAL_MTU
        self._do(act("link.attach", link=name, master=master), *undo)
        link.master = master

    def detach(self, name: str) -> None:
        link = self.kernel.links[name]
        master = link.master
        self._do(act("link.detach", link=name, master=master), act("link.attach", link=name, master=master))
        if self.kernel.links[master].kind == "bond":
            link.up, link.mtu = (
                False,
                UNKNOWN_MTU,
            )  # the kernel takes it down, and gives it the MTU that it once came with
        link.master = ""

    # States

    def set_up(self, name: str) -> None:
        link = self.kernel.links[name]
        if not link.up:
            self._do(act("link.up", link=name), act("link.down", link=name))
            link.up = True

    def set_down(self, name: str) -> None:
        link = self.kernel.links[name]
        if link.up:
            self._do(act("link.down", link=name), act("link.up", link=name))
            link.up = False

    def set_mtu(self, name: str, mtu: int) -> None:
        """A bond's is its slaves' too, and no VLAN keeps a greater one than what it is on."""
        link = self.kernel.links[name]
        if link.mtu == mtu:
            return
        followers = [each for each in self.kernel.links.values() if link.kind == "bond" and each.master == name]
        cut = [each for each in self.kernel.above(name) if each.mtu > mtu]
        undo = [act("link.mtu", link=each.name, mtu=each.mtu) for each in (link, *followers, *cut) if each.mtu]
        self._do(act("link.mtu", link=name, mtu=mtu), *undo)
        for each in (link, *followers, *cut):
            each.mtu = mtu

    def set_autoconf(self, name: str, on: bool) -> None:
        link = self.kernel.links[name]
        if link.autoconf6 != on:
            self._do(act("link.autoconf", link=name, on=on), act("link.autoconf", link=name, on=link.autoconf6))
            link.autoconf6 = on

    def share(self, name: str, shares: dict[str, Qos], before: dict[str, Qos]) -> None:
        """Have networks share a link. `before`: how they do now, if we have arranged that."""
        link, wanted = self.kernel.links[name], number(shares)
        if link.shaper != wanted:
            old = before if number(before) == link.shaper else {}
            self._do(_sharing(name, shares), _sharing(name, old))
            link.shaper = wanted

    # Addresses and routes

    def start_client(self, name: str, *, default_route: bool) -> None:
        known = _client(name, default_route)
        if known not in self.kernel.clients:
            self.stop_client(name)
            start = act("dhcp.start", link=name, default_route=default_route)
            self._do(start, act("dhcp.stop", link=name))
            self.kernel.clients.append(known)

    def stop_client(self, name: str) -> None:
        """Its address goes with it. Who undoes that need not wait for a lease: the addresses are given back on their own."""
        for default_route in (False, True):
            known = _client(name, default_route)
            if known in self.kernel.clients:
                start = act("dhcp.start", link=name, default_route=default_route, wait=False)
                self._do(act("dhcp.stop", link=name), start)
                self.kernel.clients.remove(known)

    def add_address(self, name: str, address: str) -> None:
        link = self.kernel.links[name]
        if address not in link.addresses:
            self._do(_adding(name, address, Address()), act("address.delete", link=name, address=address))
            link.addresses[address] = Address()

    def delete_address(self, name: str, address: str) -> None:
        """The kernel may drop with it the later ones of the same network."""
        link = self.kernel.links[name]
        mine = ip_interface(address)
        order = list(link.addresses)
        later = order[order.index(address) :] if mine.version == 4 else [address]
        gone = [each for each in later if ip_interface(each).network == mine.network]
        undo = [_adding(name, each, link.addresses[each]) for each in gone]
        self._do(act("address.delete", link=name, address=address), *undo)
        for each in gone:
            del link.addresses[each]

    def add_route(self, route: Route) -> None:
        if not any(same(route, each) for each in self.kernel.routes):
            self._do(act("route.add", **_way(route)), act("route.delete", **_way(route)))
            self.kernel.routes.append(route)

    def delete_route(self, route: Route) -> None:
        self._do(act("route.delete", **_way(route)), _restoring(route))
        self.kernel.routes.remove(route)

    # Help

    def _do(self, do: Act, *undo: Act) -> None:
        self.steps.append(Step(do=do, undo=undo))

    def _making(self, link: Link, *, with_mac: bool = False) -> Act:
        if link.kind == "vlan":
            return act("vlan.create", name=link.name, link=link.below, tag=link.tag)
        if link.kind == "bond":
            options = {key: value for key, value in link.options.items() if key != "active_slave"}
            return act("bond.create", name=link.name, options=options)
        mac = {"mac": link.mac} if with_mac and link.mac else {}
        return act("bridge.create", name=link.name, stp=link.stp, **mac)


def act(action: str, **arguments: Any) -> Act:
    return Act(action=action, arguments=arguments)


def same(one: Route, other: Route) -> bool:
    """Whether two routes lead the same way, whoever has set them."""
    return all(getattr(one, part) == getattr(other, part) for part in ("destination", "gateway", "link", "table"))


def _client(link: str, default_route: bool) -> str:
    return f"{link} default" if default_route else link


def _adding(link: str, address: str, known: Address) -> Act:
    details: dict[str, Any] = {"broadcast": known.broadcast} if known.broadcast else {}
    if known.valid != FOR_EVER:
        details |= {"preferred": known.preferred, "valid": known.valid}
    return act("address.add", link=link, address=address, **details)


def _sharing(link: str, shares: dict[str, Qos]) -> Act:
    if not shares:
        return act("qos.clear", link=link)
    return act("qos.set", link=link, handle=number(shares), shares=told(shares))


def _restoring(route: Route) -> Act:
    return act("route.add", **_way(route), source=route.source, scope=route.scope, protocol=route.protocol)


def _way(route: Route) -> dict[str, Any]:
    given: dict[str, Any] = {"destination": route.destination, "link": route.link, "gateway": route.gateway}
    given |= {"table": route.table} if route.table != MAIN else {}
    return given | ({"metric": route.metric} if route.metric else {})
