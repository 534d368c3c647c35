"""The verbs for one network, in the terms of the verb for many.

It promises that addNetwork, editNetwork and setupNetworks mean the same by the same words.
"""

from __future__ import annotations

from typing import Any

from drivers.network.errors import BadBond, BadParams

Given = dict[str, Any]

OPTIONS = ("force", "connectivitycheck", "connectivitytimeout")
BONDING = "bondingoptions"
OF_NO_USE = ("blockingdhcp", "onboot", "delay")
"""Options of older releases: a change waits for what it must wait for, and networks always come with the host."""


def single(vlan: int | str | None, bond: str, nics: list[str], options: Given) -> tuple[Given, Given, Given]:
    """Return the network's attributes, the bonds and the options for `NetworkDriver`. Raises BadBond and BadParams."""
    told = {str(name).lower(): value for name, value in options.items()}
    if len(told) != len(options):
        raise BadParams(what="options", reason="two of them differ in case only")
    network = {name: value for name, value in told.items() if name not in (*OPTIONS, BONDING, *OF_NO_USE)}
    network["vlan"] = vlan
    bonds = {}
    if bond:
        network["bonding"] = bond
        if nics:
            bonds[bond] = {"nics": nics, "options": told.get(BONDING, "")}
    elif len(nics) > 1:
        raise BadBond(what=", ".join(nics), reason="several nics need a bond")
    elif nics:
        network["nic"] = nics[0]
    return network, bonds, {name: told[name] for name in OPTIONS if name in told}
