"""Actions on bonds of ours. Options come by the kernel's names; values as names or numbers, as the kernel takes them."""

from __future__ import annotations

import time
from typing import Any

from supervdsm.actions.link import attach_to
from supervdsm.errors import AlreadyExists, Invalid, NotAllowed
from supervdsm.links import OURS, Found, Session, interface, session
from supervdsm.registry import Context, action

WORDS = {
    "mode": ("balance-rr", "active-backup", "balance-xor", "broadcast", "802.3ad", "balance-tlb", "balance-alb"),
    "xmit_hash_policy": ("layer2", "layer3+4", "layer2+3", "encap2+3", "encap3+4", "vlan+srcmac"),
    "lacp_rate": ("slow", "fast"),
    "fail_over_mac": ("none", "active", "follow"),
    "ad_select": ("stable", "bandwidth", "count"),
    "arp_validate": ("none", "active", "backup", "all", "filter", "filter_active", "filter_backup"),
    "arp_all_targets": ("any", "all"),
    "primary_reselect": ("always", "better", "failure"),
}
NUMBERS = (
    "miimon", "updelay", "downdelay", "arp_interval", "use_carrier", "resend_igmp", "num_grat_arp", "all_slaves_active",
    "min_links", "lp_interval", "packets_per_slave", "tlb_dynamic_lb",
)  # fmt: skip
LINKS = ("primary", "active_slave")
TARGETS = "arp_ip_target"
ATTRIBUTES = {"lacp_rate": "ad_lacp_rate", "num_grat_arp": "num_peer_notif"}
"""Options that netlink has other names for."""
ONLY_DOWN = {"bond_mode", "bond_ad_lacp_rate", "bond_fail_over_mac", "bond_tlb_dynamic_lb"}
"""What changes while a bond is down."""
ONLY_ALONE = {"bond_mode", "bond_fail_over_mac"}
"""What changes while it has no slaves."""
NAMING = {"bond_primary", "bond_arp_ip_target"}
CARRIER_WITHIN, LOOK_EVERY = 10.0, 0.05
"""Seconds: only a slave of which the bond has seen that its cable is in can be the active one."""


@action("bond.create")
def create(_context: Context, name: str, options: dict[str, str]) -> None:
    """Make a bond without slaves."""
    with session(f"bond {name}") as kernel:
        found = kernel.find(name)
        if found is None:
            kernel.make(name, "bond", **attributes(kernel, options))
        elif found.kind != "bond" or found.group != OURS:
            raise AlreadyExists(f"{name} exists, and was not made by us")


@action("bond.edit")
def edit(_context: Context, name: str, options: dict[str, str]) -> None:
    """Change its options. It keeps its address and its slaves, which are taken out meanwhile when the mode changes."""
    with session(f"bond {name}") as kernel:
        wanted = attributes(kernel, options)
        found = kernel.must(name, "bond")
        if found.group != OURS:
            raise NotAllowed(f"{name} was not made by us")
        told = kernel.route.link("get", index=found.number)[0]
        known = told.get_attr("IFLA_LINKINFO").get_attr("IFLA_INFO_DATA")
        given = {key: value for key, value in wanted.items() if _differs(known.get_attr(f"IFLA_{key.upper()}"), value)}
        chosen = given.pop("bond_active_slave", 0)
        if given:
            _change(kernel, found, given, told.get_attr("IFLA_ADDRESS"))
        if chosen:
            _choose(kernel, found, chosen)


def _differs(known: Any, wanted: Any) -> bool:
    """Whether a bond has another value. It does not tell of links and addresses that are not set."""
    return bool(known or wanted) and known != wanted


def _choose(kernel: Session, found: Found, slave: int) -> None:
    deadline = time.monotonic() + CARRIER_WITHIN
    while True:
        try:
            kernel.route.link("set", index=found.number, kind="bond", bond_active_slave=slave)
            return
        except kernel.error:
            if time.monotonic() > deadline:
                raise
            time.sleep(LOOK_EVERY)


def _change(kernel: Session, found: Found, given: dict[str, Any], mac: str) -> None:
    number = found.number
    down = bool(given.keys() & ONLY_DOWN)
    if down:
        kernel.route.link("set", index=number, state="down")
    slaves = _slaves(kernel, number) if given.keys() & ONLY_ALONE else []
    for slave in slaves:
        kernel.route.link("set", index=kernel.must(slave).number, master=0)
    if slaves:
        # When its last slave goes, a bond gets an address by chance, and would then take that of whichever comes first.
        kernel.route.link("set", index=number, address=mac)
    try:
        for names in (NAMING & {key for key, value in given.items() if not value}, given.keys()):
            if names:  # a mode may not know an option that another has left, not even that it is not set
                kernel.route.link("set", index=number, kind="bond", **{key: given.pop(key) for key in tuple(names)})
    finally:
        for slave in slaves:
            attach_to(kernel, kernel.must(slave), found)
        if down:
            kernel.route.link("set", index=number, state="up" if found.up else "down")


def attributes(kernel: Session, options: dict[str, str]) -> dict[str, Any]:
    """Return the options as netlink wants them; that no link or address is named is an option, too. Raises Invalid."""
    given: dict[str, Any] = {}
    for name, value in options.items():
        key = f"bond_{ATTRIBUTES.get(name, name)}"
        if name in LINKS:
            given[key] = kernel.must(value).number if value else 0
        elif name == TARGETS:
            given[key] = [str(interface(f"{target}/32").ip) for target in value.split(",") if target]
        else:
            given[key] = _number(name, value)
    return given


def _number(name: str, value: str) -> int:
    words = WORDS.get(name, ())
    if value in words:
        return words.index(value)
    if value.isascii() and value.isdigit() and (int(value) < len(words) or name in NUMBERS):
        return int(value)
    raise Invalid(f"{name}={value} is no option of a bond")


def _slaves(kernel: Session, master: int) -> list[str]:
    return [link.get_attr("IFLA_IFNAME") for link in kernel.route.get_links() if link.get_attr("IFLA_MASTER") == master]
