"""Ways: the routes and rules that networks ask for.

It promises that a network with a gateway, and without the default route, answers over that gateway whoever comes in by it: what
is sent from its address, and what comes in by its link for its own subnet, is routed by a table of its own. Pure.
"""

from __future__ import annotations

import zlib
from ipaddress import IPv4Interface, IPv6Interface, ip_interface

from drivers.network.kernel import DEFAULT, DEFAULT6, MAIN, OUR_TABLES, Route, Rule
from drivers.network.model import Network

METRIC6 = 512
"""Of an IPv6 default route of ours: less than that of one from a router advertisement (1024)."""


def table(link: str) -> int:
    """Return the number of the table of routes for a link that has a gateway of its own."""
    return OUR_TABLES[zlib.crc32(link.encode()) % len(OUR_TABLES)]


def routes(link: str, network: Network | None) -> list[Route]:
    """Return the routes that a network asks for."""
    if network is None:
        return []
    if not network.default_route:
        return [route for address, gateway in _own_ways(network) for route in _own_routes(link, address, gateway)]
    ways = [(DEFAULT, network.gateway, 0), (DEFAULT6, network.gateway6, METRIC6)]
    return [Route(destination=to, gateway=via, link=link, table=MAIN, metric=metric) for to, via, metric in ways if via]


def rules(link: str, network: Network | None) -> list[Rule]:
    """Return which packets are to be routed by the table of the link."""
    if network is None or network.default_route:
        return []
    found = []
    for address, _ in _own_ways(network):
        found.append(Rule(table=table(link), source=f"{address.ip}/{address.max_prefixlen}"))
        found.append(Rule(table=table(link), destination=str(address.network), link=link))
    return found


def _own_ways(network: Network) -> list[tuple[IPv4Interface | IPv6Interface, str]]:
    ways = [(network.address, network.gateway), (network.address6, network.gateway6)]
    return [(ip_interface(address), gateway) for address, gateway in ways if address and gateway]


def _own_routes(link: str, address: IPv4Interface | IPv6Interface, gateway: str) -> list[Route]:
    to, metric = (DEFAULT, 0) if address.version == 4 else (DEFAULT6, METRIC6)
    number = table(link)
    return [
        Route(destination=str(address.network), link=link, table=number, metric=metric, scope=253 if not metric else 0),
        Route(destination=to, gateway=gateway, link=link, table=number, metric=metric),
    ]
