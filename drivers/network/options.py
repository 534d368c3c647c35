"""Options of bonds: from the text that engines send to the kernel's own names, and which there are.

It promises that two texts that mean the same give the same options.
"""

from __future__ import annotations

from drivers.network.errors import BadBond
from drivers.network.netlink import BOND_MODES, WORDS

NUMBERS = ("miimon", "updelay", "downdelay", "arp_interval")
USUAL = "mode=802.3ad miimon=150"
"""Of a bond for which nothing is asked."""


def parse(bond: str, text: str) -> dict[str, str]:
    """Return the options. What is `custom` is for hooks, and no option. Raises BadBond."""
    options = {"mode": BOND_MODES[0]}
    for word in (text or USUAL).split():
        name, equals, value = word.partition("=")
        if not equals:
            raise BadBond(what=f"options of {bond}", reason=f"expected name=value, got {word!r}")
        if name != "custom":
            options[name] = _value(bond, name, value)
    if not {"miimon", "arp_interval"} & options.keys() and options["mode"] == "802.3ad":
        options["miimon"] = "100"  # as the kernel has it then
    return options


def _value(bond: str, name: str, value: str) -> str:
    words = BOND_MODES if name == "mode" else WORDS.get(name, ())
    if not words and name not in NUMBERS:
        raise BadBond(what=f"options of {bond}", reason=f"{name!r} is not known here")
    if value in words:
        return value
    if not (value.isascii() and value.isdigit() and len(value) < 10) or (words and int(value) >= len(words)):
        expected = f"one of {', '.join(words)}" if words else "a number"
        raise BadBond(what=f"options of {bond}", reason=f"{name}={value}: expected {expected}")
    return words[int(value)] if words else str(int(value))
