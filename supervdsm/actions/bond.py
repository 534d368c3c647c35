"""Actions on bonds of ours. Options come by the kernel's names; values as names or numbers, as the kernel takes them."""

from __future__ import annotations

from typing import Any

from supervdsm.actions.link import attach_to
from supervdsm.errors import AlreadyExists, Invalid, NotAllowed
from supervdsm.links import OURS, Found, Session, session
from supervdsm.registry import Context, action

WORDS = {
    "mode": ("balance-rr", "active-backup", "balance-xor", "broadcast", "802.3ad", "balance-tlb", "balance-alb"),
    "xmit_hash_policy": ("layer2", "layer3+4", "layer2+3", "encap2+3", "encap3+4", "vlan+srcmac"),
    "lacp_rate": ("slow", "fast"),
    "fail_over_mac": ("none", "active", "follow"),
    "ad_select": ("stable", "bandwidth", "count"),
}
NUMBERS = ("miimon", "updelay", "downdelay", "arp_interval")
ATTRIBUTES = {"lacp_rate": "ad_lacp_rate"}
"""Options that netlink has other names for."""


@action("bond.create")
def create(_context: Context, name: str, options: dict[str, str]) -> None:
    """Make a bond without slaves."""
    given = attributes(options)
    with session(f"bond {name}") as kernel:
        found = kernel.find(name)
        if found is None:
            kernel.make(name, "bond", **given)
        elif found.kind != "bond" or found.group != OURS:
            raise AlreadyExists(f"{name} exists, and was not made by us")


@action("bond.edit")
def edit(_context: Context, name: str, options: dict[str, str]) -> None:
    """Change its options. It keeps its address and its slaves, which are taken out meanwhile when the mode changes."""
    wanted = attributes(options)
    with session(f"bond {name}") as kernel:
        found = kernel.must(name, "bond")
        if found.group != OURS:
            raise NotAllowed(f"{name} was not made by us")
        told = kernel.route.link("get", index=found.number)[0]
        known = told.get_attr("IFLA_LINKINFO").get_attr("IFLA_INFO_DATA")
        given = {key: value for key, value in wanted.items() if known.get_attr(f"IFLA_{key.upper()}") != value}
        if given:
            _change(kernel, found, given, told.get_attr("IFLA_ADDRESS"))


def _change(kernel: Session, found: Found, given: dict[str, Any], mac: str) -> None:
    number = found.number
    kernel.route.link("set", index=number, state="down")
    slaves = _slaves(kernel, number) if "bond_mode" in given else []
    for slave in slaves:
        kernel.route.link("set", index=kernel.must(slave).number, master=0)
    if slaves:
        # When its last slave goes, a bond gets an address by chance, and would then take that of whichever comes first.
        kernel.route.link("set", index=number, address=mac)
    try:
        kernel.route.link("set", index=number, kind="bond", **given)
    finally:
        for slave in slaves:
            attach_to(kernel, kernel.must(slave), found)
        kernel.route.link("set", index=number, state="up" if found.up else "down")


def attributes(options: dict[str, str]) -> dict[str, Any]:
    """Return the options as netlink wants them. Raises Invalid."""
    return {f"bond_{ATTRIBUTES.get(name, name)}": _number(name, value) for name, value in options.items()}


def _number(name: str, value: str) -> int:
    words = WORDS.get(name, ())
    if value in words:
        return words.index(value)
    if value.isascii() and value.isdigit() and (int(value) < len(words) or name in NUMBERS):
        return int(value)
    raise Invalid(f"{name}={value} is no option of a bond")


def _slaves(kernel: Session, master: int) -> list[str]:
    return [link.get_attr("IFLA_IFNAME") for link in kernel.route.get_links() if link.get_attr("IFLA_MASTER") == master]
