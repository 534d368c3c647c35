"""Actions on DHCP clients: they run as root, and outlive both daemons."""

from __future__ import annotations

import socket
from typing import Any

from supervdsm.dhcp import Clients
from supervdsm.links import checked, interface, session
from supervdsm.registry import Context, action

BY_DHCP = 16
"""The protocol of the routes that a client sets."""


@action("dhcp.start", slow=True, timeout=60.0)
def start(context: Context, link: str, default_route: bool, wait: bool = True) -> None:
    """Have the link get an IPv4 address by DHCP, and the default route if so. Nothing happens when there is such a client.

    `wait`: until there is a lease, else fail. Without it, the client tries for as long as it takes.
    """
    with session(f"DHCP on {link}") as kernel:
        kernel.must(link)
    Clients(context).start(link, default_route=default_route, wait=wait)


@action("dhcp.stop", slow=True)
def stop(context: Context, link: str) -> None:
    """End the link's client, and take from the link what that has given it."""
    clients = Clients(context)
    address = clients.stop(checked(link))
    clients.forget(link)
    if not address:
        return
    given = interface(address)
    with session(f"DHCP on {link}") as kernel:
        found = kernel.find(link)
        if found is None:
            return
        for route in kernel.route.get_routes(oif=found.number, proto=BY_DHCP, family=socket.AF_INET):
            kernel.route.route("del", **_same(route, found.number))
        if any(each.get_attr("IFA_ADDRESS") == str(given.ip) for each in kernel.addresses(found)):
            kernel.route.addr("del", index=found.number, address=str(given.ip), prefixlen=given.network.prefixlen)


@action("dhcp.list")
def list_clients(context: Context) -> list[str]:
    """Return the links that have a client, each with ' default' behind it when that sets the default route."""
    return [f"{client.link} default" if client.default_route else client.link for client in Clients(context).all()]


def _same(route: Any, link: int) -> dict[str, Any]:
    return {"dst": "0.0.0.0", "dst_len": 0, "gateway": route.get_attr("RTA_GATEWAY"), "oif": link, "proto": BY_DHCP}
