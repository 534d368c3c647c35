"""Kernel: what the kernel has by way of networks at one moment, as data.

It promises to be complete for what a plan may touch: links, their global addresses, and the routes and rules that somebody has
set (the kernel's own follow from the addresses).
"""

from __future__ import annotations

import msgspec

OURS = 30308
"""The link group of every link that we have made: the kernel's word, also after a crash, that it is ours to remove."""
MAIN = 254
"""The number of the main table of routes."""
DEFAULT, DEFAULT6 = "0.0.0.0/0", "::/0"
OUR_TABLES = range(0x76000000, 0x77000000)
"""The numbers of tables of routes that we fill: each for what comes and goes by one link that has a gateway of its own."""
BY_DHCP = 16
"""The kernel's number for who has set a route or rule: a DHCP client."""

FOR_EVER = 2**32 - 1
"""Seconds of an address that does not end."""


class Address(msgspec.Struct, kw_only=True, frozen=True):
    """What is to be known of an address to give it back as it was. Lifetimes in seconds."""

    broadcast: str = ""
    preferred: int = FOR_EVER
    valid: int = FOR_EVER

    @property
    def passing(self) -> bool:
        """Whether it ends by itself: it came by DHCP or a router advertisement."""
        return self.valid != FOR_EVER


class Link(msgspec.Struct, kw_only=True):
    """One network device. `kind` is the kernel's word (bridge, vlan, bond, veth, tun, ...), '' for a physical one."""

    name: str
    index: int = 0
    kind: str = ""
    mac: str = ""
    permanent_mac: str = ""
    mtu: int = 1500
    up: bool = False
    carrier: bool = False
    loopback: bool = False
    group: int = 0
    master: str = ""
    below: str = ""
    """The link that a VLAN is on."""
    tag: int = 0
    stp: bool = False
    options: dict[str, str] = {}
    """Of a bond: what we can set, `mode` by its name, and `active_slave`."""
    advertised6: bool = False
    """Router advertisements give it routes."""
    autoconf6: bool = False
    """They give it addresses, too."""
    shaper: int = 0
    """The number of the root queueing discipline that we have set: it says which shares are in force. 0 for none of ours."""
    rates: int = 0
    """The number of the limits that we have set, which follows from them. 0 for none. Known where root has been asked."""
    addresses: dict[str, Address] = {}
    """By themselves with their prefix lengths. Both families, without those of link scope."""
    local6: list[str] = []
    """Addresses of link scope."""

    @property
    def ours(self) -> bool:
        return self.group == OURS


class Route(msgspec.Struct, kw_only=True, frozen=True, order=True):
    """A route that somebody has set. `destination` is a network; the default route's is 0.0.0.0/0 or ::/0."""

    destination: str
    gateway: str = ""
    link: str
    table: int = MAIN
    metric: int = 0
    source: str = ""
    scope: int = 0
    protocol: int = 4

    @property
    def is_default(self) -> bool:
        return self.table == MAIN and self.destination in (DEFAULT, DEFAULT6)


class Rule(msgspec.Struct, kw_only=True, frozen=True, order=True):
    """Which packets are routed by a table of ours: those from an address, or those to a network that come in by a link."""

    table: int
    source: str = ""
    destination: str = ""
    link: str = ""


class Kernel(msgspec.Struct, kw_only=True):
    links: dict[str, Link] = {}
    routes: list[Route] = []
    rules: list[Rule] = []
    """Those that lead to tables of ours, and were not set by a DHCP client."""
    clients: list[str] = []
    """The links with a DHCP client, each with ' default' behind it when that sets the default route, and ' 6' for DHCPv6."""

    def ports(self, master: str) -> list[str]:
        return sorted(link.name for link in self.links.values() if link.master == master)

    def above(self, below: str) -> list[Link]:
        """Return the VLANs on a link."""
        return [link for link in self.links.values() if link.kind == "vlan" and link.below == below]

    def routes_of(self, link: str) -> list[Route]:
        return [route for route in self.routes if route.link == link]
