"""Actions on how much of a network's traffic may pass the nic, bond or VLAN that it is on.

They promise that frames with the tags of other networks on the same link pass, and that the rules, in a table of ours, know
nothing of anybody else's links. A chain's name says which link and direction it is for, and under which number it was set.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from supervdsm.errors import Failed, Invalid, Unsupported
from supervdsm.links import checked, session
from supervdsm.programs import find, run
from supervdsm.registry import Context, action
from supervdsm.traffic import nft

TABLE = "netdev vdsmd"
HOOKS = {"in": "ingress", "out": "egress"}
CHAIN = re.compile(r"chain (?P<name>(?:in|out)_(?P<link>(?:[0-9a-f]{2})+)_(?P<number>[0-9a-f]+)) ")
LINK = re.compile(r"[\w.@-]+", re.ASCII)
"""Names that can stand between quotes."""
MOST = 2**22
"""KiB a second, and KiB: 4 GiB."""
LEAST_BURST, MOST_BURST = 64, MOST - 1
"""KiB: the kernel hands over the first at once, and has 32 bits for the bytes of the second."""


class Chain(NamedTuple):
    """One of ours. `bound`: it has its link; some kernels keep a chain whose link has gone, and do not give it the next."""

    name: str
    link: str
    number: int
    bound: bool


@action("rate.set", slow=True)
def set_rates(_context: Context, link: str, handle: int, limits: dict[str, dict[str, int]]) -> None:
    """Let no more than `average` KiB a second, with `burst` KiB at once, come 'in' or go 'out' by a link; what is more is
    dropped. What was set before is replaced. `handle`: a number to know it again by."""
    if not limits or limits.keys() - HOOKS.keys() or not 0 < handle < 2**32:
        raise Invalid("expected a number, and limits for in and out")
    if any(limit.keys() - {"average", "peak", "burst"} for limit in limits.values()):
        raise Invalid("expected average, peak and burst")
    if not LINK.fullmatch(link):
        raise Invalid(f"{link!r} cannot be limited by its name")
    with session(f"rates of {link}") as kernel:
        kernel.must(checked(link))
    rules = [f"add table {TABLE}", *_removal(link)]
    for way, limit in limits.items():
        rules += _chain(link, way, handle, **limit)
    nft("\n".join([*rules, ""]))


@action("rate.clear", slow=True)
def clear(_context: Context, link: str) -> None:
    """Let everything pass. Nothing happens where we have set no limit."""
    rules = _removal(checked(link))
    if rules:
        nft("\n".join([*rules, ""]))


@action("rate.list", slow=True)
def list_rates(_context: Context) -> dict[str, int]:
    """Return the number under which limits are in force, by the names of links."""
    return {chain.link: chain.number for chain in _chains() if chain.bound}


def _chain(link: str, way: str, handle: int, average: int = 0, peak: int = 0, burst: int = 0) -> list[str]:
    if not (0 < average <= MOST and 0 <= burst <= MOST and 0 <= peak <= MOST):
        raise Invalid(f"average {average}, peak {peak}, burst {burst}: expected 1 to {MOST}")
    name = f"{TABLE} {way}_{link.encode().hex()}_{handle:x}"
    room = min(max(burst, LEAST_BURST, average // 50), MOST_BURST)
    return [
        f'add chain {name} {{ type filter hook {HOOKS[way]} device "{link}" priority 0; policy accept; }}',
        f"add rule {name} ether type 8021q accept",  # other networks'
        f"add rule {name} limit rate over {average} kbytes/second burst {room} kbytes drop",
    ]


def _removal(link: str) -> list[str]:
    names = [chain.name for chain in _chains() if chain.link == link]
    return [f"{verb} chain {TABLE} {name}" for name in names for verb in ("flush", "delete")]


def _chains() -> list[Chain]:
    try:
        ended = run(find("nft"), "list", "chains", "netdev")
    except Unsupported:
        return []  # and so nobody can have set any
    if ended.code:
        raise Failed(f"nft: {ended.last_line()}")
    return parse(ended.output)


def parse(told: str) -> list[Chain]:
    """Return our chains of those that nft tells of: 'chain NAME {', and in the next line 'device "LINK"' if it has that."""
    found: list[Chain] = []
    ours = False
    for line in told.splitlines():
        if line.startswith("table "):
            ours = line.split()[1:3] == TABLE.split()
        elif ours and (match := CHAIN.search(line)):
            link = bytes.fromhex(match["link"]).decode("utf-8", "replace")
            found.append(Chain(match["name"], link, int(match["number"], 16), bound=False))
        elif ours and found and " device " in line:
            found[-1] = found[-1]._replace(bound=True)
    return found
