"""Draft: a plan as it is being made. It plays every step through on a copy of the kernel's state.

It promises that a step's undo leads back to exactly the state before the step, as far as the kernel told it, and that no step
is written down that would change nothing.
"""

from __future__ import annotations

import copy
from ipaddress import ip_interface

from drivers.network import acts, rates
from drivers.network.devices import USUAL_MTU, Device
from drivers.network.kernel import OURS, Address, Kernel, Link, Route, Rule
from drivers.network.model import Act, Qos, Step
from drivers.network.options import CHOSEN
from drivers.network.shares import number
from drivers.network.ways import table

UNKNOWN_MTU = 0
"""Of a link that is yet to be made, and of one that has just left a bond: the kernel decides, until it is told."""
ONLY_DOWN = ("mode", "lacp_rate", "fail_over_mac", "tlb_dynamic_lb")
"""Options of a bond that change while it is down, and by which it loses what links lose then."""


class Draft:
    """`kernel` is what there would be after the `steps`."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = copy.deepcopy(kernel)
        self.steps: list[Step] = []

    def find(self, name: str) -> Link | None:
        return self.kernel.links.get(name)

    # Making and removing

    def create(self, device: Device) -> None:
        link = Link(name=device.name, kind=device.kind, group=OURS, advertised6=True, autoconf6=True, mtu=UNKNOWN_MTU)
        link.below, link.tag, link.stp = device.below, device.tag, device.stp
        link.options = {name: value for name, value in device.options.items() if name != CHOSEN}
        self._do(acts.making(link), acts.act("link.delete", link=device.name))
        self.kernel.links[device.name] = link

    def delete(self, name: str, device: Device) -> None:
        """Remove a link of ours, made as `device` says. What is still on it (guests, where the caller insists) is given back
        with it."""
        routes = self.kernel.routes_of(name)
        link = self.kernel.links.pop(name)
        link.options = {key: link.options[key] for key in device.options if link.options.get(key) and key != CHOSEN}
        undo = [acts.making(link, with_mac=True), acts.act("link.mtu", link=name, mtu=link.mtu)]
        undo += [acts.advertising(name, link)] * (not link.autoconf6)
        undo += [acts.act("link.attach", link=port, master=name) for port in self.kernel.ports(name)]
        undo += [acts.act("link.up", link=name)] * link.up
        undo += [acts.adding(name, address, known) for address, known in link.addresses.items()]
        undo += [acts.restoring(route) for route in routes]
        self._do(acts.act("link.delete", link=name), *undo)
        for port in self.kernel.ports(name):
            self.kernel.links[port].master = ""
        self.kernel.routes = [route for route in self.kernel.routes if route not in routes]

    def set_stp(self, name: str, stp: bool) -> None:
        link = self.kernel.links[name]
        if link.stp != stp:
            self._do(acts.act("bridge.edit", name=name, stp=stp), acts.act("bridge.edit", name=name, stp=link.stp))
            link.stp = stp

    def set_options(self, name: str, options: dict[str, str]) -> None:
        link = self.kernel.links[name]
        new = {key: value for key, value in options.items() if link.options.get(key, "") != value}
        if not new:
            return
        old = {key: link.options[key] for key in new if key in link.options}
        lost = self._lost_when_down(name) if new.keys() & set(ONLY_DOWN) else []
        undo = [acts.act("bond.edit", name=name, options=old)] * bool(old)
        self._do(acts.act("bond.edit", name=name, options=new), *undo, *lost)
        for again in lost:
            self._do(again)
        link.options = {**link.options, **new}

    def _lost_when_down(self, name: str) -> list[Act]:
        """Return what gives back to a link, and to the VLANs on it, the routes and IPv6 addresses that go when it is down."""
        links = [self.kernel.links[name], *self.kernel.above(name)]
        found = [
            acts.adding(link.name, address, known)
            for link in links
            for address, known in link.addresses.items()
            if ":" in address
        ]
        return found + [acts.restoring(route) for link in links for route in self.kernel.routes_of(link.name)]

    # Attaching

    def attach(self, name: str, master: str) -> None:
        link, above = self.kernel.links[name], self.kernel.links[master]
        undo = [acts.act("link.detach", link=name, master=master)]
        if above.kind == "bond":
            undo.append(acts.act("link.up" if link.up else "link.down", link=name))
            undo += [acts.act("link.mtu", link=name, mtu=link.mtu)] * (link.mtu != UNKNOWN_MTU)
            link.up, link.mtu = True, above.mtu or USUAL_MTU
        self._do(acts.act("link.attach", link=name, master=master), *undo)
        link.master = master

    def detach(self, name: str) -> None:
        link = self.kernel.links[name]
        master = link.master
        self._do(acts.act("link.detach", link=name, master=master), acts.act("link.attach", link=name, master=master))
        if self.kernel.links[master].kind == "bond":
            # The kernel takes it down, and gives it the MTU that it once came with.
            link.up, link.mtu = False, UNKNOWN_MTU
        link.master = ""

    # States

    def set_up(self, name: str) -> None:
        link = self.kernel.links[name]
        if not link.up:
            self._do(acts.act("link.up", link=name), acts.act("link.down", link=name))
            link.up = True

    def set_down(self, name: str) -> None:
        link = self.kernel.links[name]
        if link.up:
            self._do(acts.act("link.down", link=name), acts.act("link.up", link=name))
            link.up = False

    def set_mtu(self, name: str, mtu: int) -> None:
        """A bond's is its slaves' too, and no VLAN keeps a greater one than what it is on."""
        link = self.kernel.links[name]
        if link.mtu == mtu:
            return
        followers = [each for each in self.kernel.links.values() if link.kind == "bond" and each.master == name]
        cut = [each for each in self.kernel.above(name) if each.mtu > mtu]
        undo = [acts.act("link.mtu", link=each.name, mtu=each.mtu) for each in (link, *followers, *cut) if each.mtu]
        self._do(acts.act("link.mtu", link=name, mtu=mtu), *undo)
        for each in (link, *followers, *cut):
            each.mtu = mtu

    def set_autoconf(self, name: str, *, routes: bool, addresses: bool) -> None:
        """Have router advertisements give the link routes, and addresses too, or not."""
        link = self.kernel.links[name]
        new = Link(name=name, advertised6=routes, autoconf6=addresses)
        if (link.advertised6, link.autoconf6) != (routes, addresses):
            self._do(acts.advertising(name, new), acts.advertising(name, link))
            link.advertised6, link.autoconf6 = routes, addresses

    def share(self, name: str, shares: dict[str, Qos], before: dict[str, Qos]) -> None:
        """Have networks share a link. `before`: how they do now, if we have arranged that."""
        link, wanted = self.kernel.links[name], number(shares)
        if link.shaper != wanted:
            old = before if number(before) == link.shaper else {}
            self._do(acts.sharing(name, shares), acts.sharing(name, old))
            link.shaper = wanted

    def limit(self, name: str, limits: rates.Told, before: rates.Told) -> None:
        """Let only so much pass. `before`: how much does now, if we have arranged that."""
        link, wanted = self.kernel.links[name], rates.number(limits)
        if link.rates != wanted:
            old = before if rates.number(before) == link.rates else {}
            self._do(acts.limiting(name, limits), acts.limiting(name, old))
            link.rates = wanted

    # Addresses and routes

    def start_client(self, name: str, *, default_route: bool) -> None:
        known = acts.client(name, default_route)
        if known not in self.kernel.clients:
            self.stop_client(name)
            self._do(acts.starting(name, default_route), acts.act("dhcp.stop", link=name, table=table(name)))
            self.kernel.clients.append(known)

    def stop_client(self, name: str) -> None:
        """Its address goes with it. Who undoes that need not wait for a lease: the addresses are given back on their own."""
        for default_route in (False, True):
            known = acts.client(name, default_route)
            if known in self.kernel.clients:
                self._do(
                    acts.act("dhcp.stop", link=name, table=table(name)), acts.starting(name, default_route, wait=False)
                )
                self.kernel.clients.remove(known)

    def start_client6(self, name: str) -> None:
        if acts.client6(name) not in self.kernel.clients:
            self._do(acts.act("dhcp6.start", link=name), acts.act("dhcp6.stop", link=name))
            self.kernel.clients.append(acts.client6(name))

    def stop_client6(self, name: str) -> None:
        if acts.client6(name) in self.kernel.clients:
            self._do(acts.act("dhcp6.stop", link=name), acts.act("dhcp6.start", link=name, wait=False))
            self.kernel.clients.remove(acts.client6(name))

    def add_address(self, name: str, address: str) -> None:
        link = self.kernel.links[name]
        if address not in link.addresses:
            self._do(acts.adding(name, address, Address()), acts.act("address.delete", link=name, address=address))
            link.addresses[address] = Address()

    def delete_address(self, name: str, address: str) -> None:
        """The kernel may drop with it the later ones of the same network."""
        link = self.kernel.links[name]
        mine = ip_interface(address)
        order = list(link.addresses)
        later = order[order.index(address) :] if mine.version == 4 else [address]
        gone = [each for each in later if ip_interface(each).network == mine.network]
        undo = [acts.adding(name, each, link.addresses[each]) for each in gone]
        self._do(acts.act("address.delete", link=name, address=address), *undo)
        for each in gone:
            del link.addresses[each]

    def add_route(self, route: Route) -> None:
        if not any(same(route, each) for each in self.kernel.routes):
            self._do(acts.routing(route), acts.act("route.delete", **acts.way(route)))
            self.kernel.routes.append(route)

    def add_again(self, route: Route) -> None:
        """Give back a route, just as it was."""
        if not any(same(route, each) for each in self.kernel.routes):
            self._do(acts.restoring(route), acts.act("route.delete", **acts.way(route)))
            self.kernel.routes.append(route)

    def delete_route(self, route: Route) -> None:
        self._do(acts.act("route.delete", **acts.way(route)), acts.restoring(route))
        self.kernel.routes.remove(route)

    def add_rule(self, rule: Rule) -> None:
        if rule not in self.kernel.rules:
            self._do(acts.act("rule.add", **acts.ruling(rule)), acts.act("rule.delete", **acts.ruling(rule)))
            self.kernel.rules.append(rule)

    def delete_rule(self, rule: Rule) -> None:
        if rule in self.kernel.rules:
            self._do(acts.act("rule.delete", **acts.ruling(rule)), acts.act("rule.add", **acts.ruling(rule)))
            self.kernel.rules.remove(rule)

    # Help

    def _do(self, do: Act, *undo: Act) -> None:
        self.steps.append(Step(do=do, undo=undo))


def same(one: Route, other: Route) -> bool:
    """Whether two routes lead the same way, whoever has set them."""
    return all(getattr(one, part) == getattr(other, part) for part in ("destination", "gateway", "link", "table"))
