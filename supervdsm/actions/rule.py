"""Actions on rules, which say by which table of routes a packet goes. Only rules to tables of ours are made and removed.

They promise that whatever is done twice is as if done once.
"""

from __future__ import annotations

import socket
from ipaddress import ip_network
from typing import Any

from supervdsm.errors import AlreadyExists, Invalid, NotAllowed, NotFound
from supervdsm.links import OUR_TABLES, checked, session
from supervdsm.registry import Context, action

PRIORITY = 32000
"""Before the main table (32766), after what operators usually set."""


@action("rule.add")
def add(_context: Context, table: int, source: str = "", destination: str = "", link: str = "") -> None:
    """Route packets from a source, or those to a destination that come in by a link, by the table."""
    given = _described(table, source, destination, link)
    try:
        with session(f"rule for table {table}") as kernel:
            kernel.route.rule("add", **given)
    except AlreadyExists:
        pass


@action("rule.delete")
def delete(_context: Context, table: int, source: str = "", destination: str = "", link: str = "") -> None:
    """Undo `rule.add`. Nothing happens when there is no such rule."""
    given = _described(table, source, destination, link)
    try:
        with session(f"rule for table {table}") as kernel:
            kernel.route.rule("del", **given)
    except NotFound:
        pass


def _described(table: int, source: str, destination: str, link: str) -> dict[str, Any]:
    if table not in OUR_TABLES:
        raise NotAllowed(f"table {table} is none of ours")
    given: dict[str, Any] = {"table": table, "priority": PRIORITY}
    for name, text in (("src", source), ("dst", destination)):
        if text:
            try:
                network = ip_network(text)
            except ValueError as error:
                raise Invalid(str(error)) from None
            given |= {"family": socket.AF_INET6 if network.version == 6 else socket.AF_INET}
            given |= {name: str(network.network_address), f"{name}_len": network.prefixlen}
    if "family" not in given:
        raise Invalid("a rule needs a source or a destination")
    return given | ({"iifname": checked(link)} if link else {})
