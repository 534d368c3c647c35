"""Actions on DHCP clients: they run as root, and outlive both daemons."""

from __future__ import annotations

import socket
from typing import Any

from supervdsm.dhcp import Clients
from supervdsm.dhcp6 import Clients6
from supervdsm.errors import NotAllowed
from supervdsm.links import OUR_TABLES, checked, interface, session
from supervdsm.registry import Context, action

BY_DHCP = 16
"""The protocol of the routes that a client sets."""


@action("dhcp.start", slow=True, timeout=60.0)
def start(context: Context, link: str, default_route: bool, wait: bool = True, table: int = 0) -> None:
    """Have the link get an IPv4 address by DHCP, and the default route if so; if not, the gateway goes into the table, by which
    is routed what comes from the address. Nothing happens when there is such a client.

    `wait`: until there is a lease, else fail. Without it, the client tries for as long as it takes.
    """
    _check(table)
    with session(f"DHCP on {link}") as kernel:
        kernel.must(link)
    Clients(context).start(link, default_route=default_route, table=table, wait=wait)


@action("dhcp.stop", slow=True)
def stop(context: Context, link: str, table: int = 0) -> None:
    """End the link's client, and take from the link, and from the table, what that has given them."""
    _check(table)
    clients = Clients(context)
    address = clients.stop(checked(link))
    clients.forget(link)
    with session(f"DHCP on {link}") as kernel:
        for rule in kernel.route.get_rules(family=socket.AF_INET, table=table) if table else ():
            if rule.get_attr("FRA_PROTOCOL") == BY_DHCP:
                kernel.route.rule("del", **_like(rule, table))
        found = kernel.find(link)
        if not address or found is None:
            return
        given = interface(address)
        for route in kernel.route.get_routes(oif=found.number, proto=BY_DHCP, family=socket.AF_INET):
            kernel.route.route("del", **_same(route, found.number))
        if any(each.get_attr("IFA_ADDRESS") == str(given.ip) for each in kernel.addresses(found)):
            kernel.route.addr("del", index=found.number, address=str(given.ip), prefixlen=given.network.prefixlen)


@action("dhcp6.start", slow=True, timeout=90.0)
def start6(context: Context, link: str, wait: bool = True) -> None:
    """Have the link get an IPv6 address by DHCP. `wait` as in `dhcp.start`."""
    with session(f"DHCPv6 on {link}") as kernel:
        kernel.must(link)
    Clients6(context).start(link, wait=wait)


@action("dhcp6.stop", slow=True)
def stop6(context: Context, link: str) -> None:
    """End the link's client, which takes from the link what it has given it."""
    Clients6(context).stop(checked(link))


@action("dhcp.list")
def list_clients(context: Context) -> list[str]:
    """Return the links that have a client, each with ' default' behind it when that sets the default route, and with ' 6' when
    it is one for IPv6."""
    told = [f"{client.link} default" if client.default_route else client.link for client in Clients(context).all()]
    return [*told, *(f"{link} 6" for link in Clients6(context).all())]


def _check(table: int) -> None:
    if table and table not in OUR_TABLES:
        raise NotAllowed(f"table {table} is none of ours")


def _same(route: Any, link: int) -> dict[str, Any]:
    given = {"dst": route.get_attr("RTA_DST") or "0.0.0.0", "dst_len": route["dst_len"], "oif": link, "proto": BY_DHCP}
    given |= {"scope": route["scope"]}
    gateway = route.get_attr("RTA_GATEWAY")
    return given | {"table": route.get_attr("RTA_TABLE")} | ({"gateway": gateway} if gateway else {})


def _like(rule: Any, table: int) -> dict[str, Any]:
    given: dict[str, Any] = {"family": socket.AF_INET, "table": table, "priority": rule.get_attr("FRA_PRIORITY")}
    given |= {"src_len": rule["src_len"], "dst_len": rule["dst_len"]}
    named = {"src": "FRA_SRC", "dst": "FRA_DST", "iifname": "FRA_IIFNAME"}
    return given | {name: value for name, key in named.items() if (value := rule.get_attr(key))}
