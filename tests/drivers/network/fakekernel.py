"""A kernel in memory: does what the helper's actions do, with the side effects of the real one that plans must reckon with.

It promises to be written from the kernel's behaviour, not from the planner's idea of it; the same suite runs on the real one.
"""

from __future__ import annotations

import copy
from ipaddress import ip_address, ip_interface
from typing import Any

from drivers.network.kernel import OURS, Address, Kernel, Link, Route, Rule
from supervdsm.errors import AlreadyExists, Invalid, NotAllowed, NotFound

ASKING = ("dhcp.list", "rate.list")
"""Actions that change nothing."""


class FakeKernel:
    """`call` is that of `host.root`, `look` that of `drivers.network.netlink`."""

    def __init__(self, *nics: str) -> None:
        self.links = {"lo": Link(name="lo", loopback=True, up=True, mtu=65536)}
        self.links |= {nic: Link(name=nic, kind="veth", advertised6=True, autoconf6=True) for nic in nics}
        self.routes: list[Route] = []
        self.rules: list[Rule] = []
        self.original_mtu: dict[str, int] = {}
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.leases: dict[str, bool] = {}
        """The links with a DHCP client, and whether it sets the default route."""
        self.leases6: set[str] = set()
        self.rates: dict[str, int] = {}

    def look(self) -> Kernel:
        """Return what there is, with what only root sees."""
        found = Kernel(links=self.links, routes=sorted(self.routes), rules=sorted(self.rules), clients=self.dhcp_list())
        found = copy.deepcopy(found)
        for link, number in self.rates.items():
            found.links[link].rates = number
        return found

    def call(self, action: str, *, timeout: float | None = None, **arguments: Any) -> Any:
        if action not in ASKING:
            self.calls.append((action, arguments))
        return getattr(self, action.replace(".", "_"))(**arguments)

    # Making and removing

    def bridge_create(self, name: str, stp: bool = False, mac: str = "") -> None:
        self._make(Link(name=name, kind="bridge", stp=stp))
        self.links[name].stp = stp

    def bridge_edit(self, name: str, stp: bool) -> None:
        self._ours(name).stp = stp

    def vlan_create(self, name: str, link: str, tag: int) -> None:
        below = self._must(link)
        if any(each.tag == tag and each.name != name for each in self.look().above(link)):
            raise AlreadyExists(name)
        self._make(Link(name=name, kind="vlan", below=link, tag=tag, mtu=below.mtu))

    def bond_create(self, name: str, options: dict[str, str]) -> None:
        self._make(Link(name=name, kind="bond", options={"mode": "balance-rr", "miimon": "0", **options}))

    def bond_edit(self, name: str, options: dict[str, str]) -> None:
        bond = self._ours(name)
        if options.keys() & {"mode", "lacp_rate"}:
            vlans = self.look().above(name)
            for each in (name, *(vlan.name for vlan in vlans)):
                self.link_down(each)
                self.links[each].up = True
        bond.options = {**bond.options, **options}

    def link_delete(self, link: str) -> None:
        if link not in self.links:
            return
        self._ours(link)
        for above in self.look().above(link):
            self._drop(above.name)
        for port in self.look().ports(link):
            self.link_detach(port, link)
        self._drop(link)

    # States

    def link_up(self, link: str) -> None:
        self._must(link).up = True

    def link_down(self, link: str) -> None:
        """The kernel forgets routes over a link that goes down, and IPv6 addresses too."""
        found = self._must(link)
        found.up = False
        self.routes = [route for route in self.routes if route.link != link]
        found.addresses = {address: known for address, known in found.addresses.items() if ":" not in address}

    def link_mtu(self, link: str, mtu: int) -> None:
        found = self._must(link)
        if found.kind == "vlan" and mtu > self.links[found.below].mtu:
            raise Invalid(f"{mtu} is more than that of {found.below}")
        found.mtu = mtu
        followers = self.look().ports(link) if found.kind == "bond" else []
        followers += [vlan.name for vlan in self.look().above(link) if vlan.mtu > mtu]
        for name in followers:
            self.link_mtu(name, mtu)

    def link_autoconf(self, link: str, on: bool, routes: bool = False) -> None:
        found = self._must(link)
        found.advertised6, found.autoconf6 = on or routes, on

    def link_attach(self, link: str, master: str) -> None:
        port, above = self._must(link), self._must(master)
        assert above.kind in ("bridge", "bond"), f"{master} is no master"
        if port.master == master:
            return
        if port.master:
            self.link_detach(link, port.master)
        port.master = master
        if above.kind == "bond":
            self.original_mtu[link] = port.mtu
            port.up, port.mtu = True, above.mtu

    def link_detach(self, link: str, master: str) -> None:
        port = self.links.get(link)
        if port is None or port.master != master:
            return
        port.master = ""
        if self.links[master].kind == "bond":
            port.mtu = self.original_mtu.pop(link)
            self.link_down(link)

    # Addresses and routes

    def address_add(
        self, link: str, address: str, broadcast: str = "", preferred: int = 2**32 - 1, valid: int = 2**32 - 1
    ) -> None:
        found = self._must(link)
        known = Address(broadcast=broadcast, preferred=preferred, valid=valid)
        found.addresses.setdefault(address, known)

    def address_delete(self, link: str, address: str) -> None:
        """With the first address of an IPv4 network its later ones go, and with the last of all every route."""
        found = self.links.get(link)
        if found is None or address not in found.addresses:
            return
        order, mine = list(found.addresses), ip_interface(address)
        later = order[order.index(address) :] if mine.version == 4 else [address]
        for each in later:
            if ip_interface(each).network == mine.network:
                del found.addresses[each]
        if not any(":" not in each for each in found.addresses):
            self.routes = [route for route in self.routes if route.link != link or ":" in route.destination]

    def route_add(self, destination: str, link: str, gateway: str = "", **details: Any) -> None:
        found = self._must(link)
        if not found.up:
            raise Invalid(f"{link} is down")
        if gateway and not any(ip_address(gateway) in ip_interface(each).network for each in found.addresses):
            raise Invalid(f"{gateway} is out of reach")
        route = Route(destination=destination, link=link, gateway=gateway, **details)
        if route not in self.routes:
            self.routes.append(route)

    def route_delete(self, destination: str, link: str, gateway: str = "", table: int = 254, metric: int = 0) -> None:
        for route in list(self.routes):
            if (route.destination, route.link, route.gateway, route.table) == (destination, link, gateway, table):
                self.routes.remove(route)

    def rule_add(self, **given: Any) -> None:
        if Rule(**given) not in self.rules:
            self.rules.append(Rule(**given))

    def rule_delete(self, **given: Any) -> None:
        if Rule(**given) in self.rules:
            self.rules.remove(Rule(**given))

    # Shares and rates

    def rate_list(self) -> dict[str, int]:
        return dict(self.rates)

    def rate_set(self, link: str, handle: int, limits: dict[str, Any]) -> None:
        self._must(link)
        self.rates[link] = handle

    def rate_clear(self, link: str) -> None:
        self.rates.pop(link, None)

    def qos_set(self, link: str, handle: int, shares: dict[str, Any]) -> None:
        self._must(link).shaper = handle

    def qos_clear(self, link: str) -> None:
        if link in self.links:
            self.links[link].shaper = 0

    # DHCP

    def dhcp_list(self) -> list[str]:
        four = [f"{link} default" if default else link for link, default in self.leases.items()]
        return sorted([*four, *(f"{link} 6" for link in self.leases6)])

    def dhcp_start(self, link: str, default_route: bool, wait: bool = True, table: int = 0) -> None:
        self._must(link)
        self.leases[link] = default_route
        self.address_add(link, self._lease(link), preferred=600, valid=600)
        gateway = str(ip_interface(self._lease(link)).network.network_address + 1)
        self.route_add("0.0.0.0/0", link, gateway, protocol=16, **({} if default_route else {"table": table}))

    def dhcp6_start(self, link: str, wait: bool = True) -> None:
        self._must(link)
        self.leases6.add(link)
        self.address_add(link, self._lease6(link), preferred=600, valid=600)

    def dhcp6_stop(self, link: str) -> None:
        if link in self.leases6:
            self.leases6.remove(link)
            self.address_delete(link, self._lease6(link))

    def dhcp_stop(self, link: str, table: int = 0) -> None:
        if self.leases.pop(link, None) is not None and link in self.links:
            self.routes = [route for route in self.routes if route.link != link or route.protocol != 16]
            self.address_delete(link, self._lease(link))

    def _lease(self, link: str) -> str:
        return f"10.77.{sum(link.encode()) % 256}.9/24"

    def _lease6(self, link: str) -> str:
        return f"2001:db8:77::{sum(link.encode()) % 256:x}/128"

    # Help

    def _make(self, link: Link) -> None:
        known = self.links.get(link.name)
        if known is not None and (known.kind != link.kind or not known.ours):
            raise AlreadyExists(link.name)
        if known is None:
            link.group, link.advertised6, link.autoconf6 = OURS, True, True
            self.links[link.name] = link

    def _must(self, name: str) -> Link:
        if name not in self.links:
            raise NotFound(name)
        return self.links[name]

    def _ours(self, name: str) -> Link:
        link = self._must(name)
        if not link.ours:
            raise NotAllowed(name)
        return link

    def _drop(self, name: str) -> None:
        del self.links[name]
        self.routes = [route for route in self.routes if route.link != name]
        self.rates.pop(name, None)
