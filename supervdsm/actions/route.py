"""Actions on routes."""

from __future__ import annotations

import socket
from ipaddress import ip_network
from typing import Any

from supervdsm.errors import AlreadyExists, Invalid, NotFound
from supervdsm.links import interface, session
from supervdsm.registry import Context, action

MAIN = 254
STATIC = 4
NEW_ROUTE = 24
ANY_SCOPE = 255
"""RT_SCOPE_NOWHERE."""
PREPEND = 0x1 | 0x4 | 0x400
"""Flags of netlink: a request, to be acknowledged, that makes something. Without 'only if there is none' (NLM_F_EXCL) a route
to the same destination is put before those of others, which stay."""


@action("route.add")
def add(
    _context: Context,
    destination: str,
    link: str,
    gateway: str = "",
    table: int = MAIN,
    metric: int = 0,
    source: str = "",
    scope: int = 0,
    protocol: int = STATIC,
) -> None:
    """Reach a network through a link, over a gateway or directly. Nothing happens when there is this very route."""
    given = _described(destination, gateway, table, metric, source)
    try:
        with session(f"route to {destination} over {gateway or link}") as kernel:
            given |= {"oif": kernel.must(link).number, "scope": scope, "proto": protocol, "type": 1}
            kernel.route.route((NEW_ROUTE, PREPEND), **given)
    except AlreadyExists:
        pass


@action("route.delete")
def delete(
    _context: Context, destination: str, link: str, gateway: str = "", table: int = MAIN, metric: int = 0
) -> None:
    """Undo `route.add`. Nothing happens when there is no such route."""
    try:
        with session(f"route to {destination} over {gateway or link}") as kernel:
            found = kernel.must(link)
            given = _described(destination, gateway, table, metric, "")
            kernel.route.route("del", oif=found.number, scope=ANY_SCOPE, **given)
    except NotFound:
        pass


def _described(destination: str, gateway: str, table: int, metric: int, source: str) -> dict[str, Any]:
    try:
        network = ip_network(destination)
    except ValueError as error:
        raise Invalid(str(error)) from None
    family = socket.AF_INET6 if network.version == 6 else socket.AF_INET
    length = network.prefixlen
    given: dict[str, Any] = {"family": family, "dst": str(network.network_address), "dst_len": length, "table": table}
    for name, value in (("gateway", gateway), ("prefsrc", source)):
        if value:
            given[name] = str(interface(f"{value}/{network.max_prefixlen}").ip)
    return given | ({"priority": metric} if metric else {})
