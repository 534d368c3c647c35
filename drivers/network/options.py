"""Options of bonds: from the text that engines send to the kernel's own names, and which there are.

It promises that two texts that mean the same give the same options, and that what a bond's mode does not know, or what names
a link that is none of its nics, is refused.
"""

from __future__ import annotations

from ipaddress import AddressValueError, IPv4Address

from drivers.network.errors import BadBond
from drivers.network.netlink import BOND_MODES, WORDS

NUMBERS = {
    "miimon": 2**31, "updelay": 2**31, "downdelay": 2**31, "arp_interval": 2**31, "use_carrier": 2, "resend_igmp": 256,
    "num_grat_arp": 256, "all_slaves_active": 2, "min_links": 2**31, "lp_interval": 2**31, "packets_per_slave": 65536,
    "tlb_dynamic_lb": 2,
}  # fmt: skip
"""Options that are numbers, and the first that is too great."""
SAME = {"num_unsol_na": "num_grat_arp"}
"""Options with two names."""
LINKS = ("primary", "active_slave")
"""Options that name a nic of the bond."""
TARGETS, MOST_TARGETS = "arp_ip_target", 16
ONE_AT_A_TIME = ("active-backup", "balance-tlb", "balance-alb")
"""Modes with an active slave."""
WITHOUT_ARP = ("802.3ad", "balance-tlb", "balance-alb")
"""Modes that cannot watch their links by ARP."""
CHOSEN = "active_slave"
"""An option that is a deed: the kernel goes on to change it when links fail."""
CLEARED = {"primary": "", TARGETS: ""}
"""What options that name something are when they are not asked for."""
USUAL = "mode=802.3ad miimon=150"
"""Of a bond for which nothing is asked."""


def parse(bond: str, text: str, nics: tuple[str, ...]) -> dict[str, str]:
    """Return the options. What is `custom` is for hooks, and no option. Raises BadBond."""
    options = {"mode": BOND_MODES[0]}
    for word in (text or USUAL).split():
        name, equals, value = word.partition("=")
        if not equals:
            raise BadBond(what=f"options of {bond}", reason=f"expected name=value, got {word!r}")
        name = SAME.get(name, name)
        if name != "custom":
            options[name] = _value(bond, name, value, nics)
    if not {"miimon", "arp_interval"} & options.keys() and options["mode"] == "802.3ad":
        options["miimon"] = "100"  # as the kernel has it then
    _check_together(bond, options)
    return options


def _value(bond: str, name: str, value: str, nics: tuple[str, ...]) -> str:
    if name in LINKS:
        if value not in nics:
            raise BadBond(what=f"options of {bond}", reason=f"{name}={value}: expected one of {', '.join(nics)}")
        return value
    if name == TARGETS:
        return _targets(bond, value)
    words = BOND_MODES if name == "mode" else WORDS.get(name, ())
    most = len(words) or NUMBERS.get(name, 0)
    if not most:
        raise BadBond(what=f"options of {bond}", reason=f"{name!r} is not known here")
    if value in words:
        return value
    if not (value.isascii() and value.isdigit() and len(value) < 10) or int(value) >= most:
        expected = f"one of {', '.join(words)}" if words else f"a number up to {most - 1}"
        raise BadBond(what=f"options of {bond}", reason=f"{name}={value}: expected {expected}")
    return words[int(value)] if words else str(int(value))


def _targets(bond: str, value: str) -> str:
    try:
        targets = list(dict.fromkeys(str(IPv4Address(target.removeprefix("+"))) for target in value.split(",")))
    except AddressValueError as error:
        raise BadBond(what=f"options of {bond}", reason=f"{TARGETS}: {error}") from None
    if len(targets) > MOST_TARGETS:
        raise BadBond(what=f"options of {bond}", reason=f"{TARGETS}: expected {MOST_TARGETS} addresses at most")
    return ",".join(targets)


def _check_together(bond: str, options: dict[str, str]) -> None:
    mode = options["mode"]
    for name in LINKS:
        if name in options and mode not in ONE_AT_A_TIME:
            raise BadBond(what=f"options of {bond}", reason=f"{name} is not for the mode {mode}")
    by_arp = options.get("arp_interval", "0") != "0"
    if by_arp and options.get("miimon", "0") != "0":
        raise BadBond(what=f"options of {bond}", reason="either miimon or arp_interval, not both")
    if mode in WITHOUT_ARP and (by_arp or TARGETS in options):
        raise BadBond(what=f"options of {bond}", reason=f"watching links by ARP is not for the mode {mode}")
