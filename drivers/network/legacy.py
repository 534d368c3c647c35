"""The verbs for one network, in the terms of the verb for many.

It promises that addNetwork, editNetwork, delNetwork and setupNetworks mean the same by the same words.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from drivers.network.errors import BadBond, BadBridge, BadNic, BadVlan, UsedBridge
from drivers.network.model import Configuration, Network
from drivers.network.words import attributes

Given = dict[str, Any]

OPTIONS = ("force", "connectivitycheck", "connectivitytimeout")
BONDING = "bondingoptions"
OF_NO_USE = ("blockingdhcp", "onboot", "delay")
"""Options of older releases: a change waits for what it must wait for, and networks always come with the host."""


class Asked(NamedTuple):
    """What the older verbs are told of a network. '', [] and None: nothing."""

    vlan: int | str | None = None
    bond: str = ""
    nics: Sequence[str] = ()
    options: Given = {}


def change(running: Configuration, old: str, new: str, asked: Asked) -> tuple[Given, Given, Given]:
    """Return the networks, bonds and options of setupNetworks for a network that comes ('' for `old`), goes ('' for `new`), or
    changes, perhaps with its name. Raises what is wrong with that."""
    if old and old not in running.networks:
        raise BadBridge(what=f"network {old}", reason="there is none")
    if new and new != old and new in running.networks:
        raise UsedBridge(what=f"network {new}", reason="it exists")
    network, bonds, options = single(asked if new else Asked(options=asked.options))
    if old and not new:
        _check(old, running.networks[old], asked)
    networks: Given = {old: {"remove": True}} if old and old != new else {}
    left = _left_alone(running, old) if old and network.get("bonding") != running.networks[old].bond else {}
    return networks | ({new: network} if new else {}), left | bonds, options


def _check(name: str, network: Network, asked: Asked) -> None:
    """Raise when a network is not what the caller takes it for."""
    if asked.vlan not in (None, "") and str(asked.vlan) != str(network.vlan):
        raise BadVlan(what=f"network {name}", reason=f"it is not on VLAN {asked.vlan}")
    if asked.bond and asked.bond != network.bond:
        raise BadBond(what=f"network {name}", reason=f"it is not on {asked.bond}")
    if asked.nics and not network.bond and list(asked.nics) != [network.nic]:
        raise BadNic(what=f"network {name}", reason=f"it is not on {', '.join(asked.nics)}")


def _left_alone(running: Configuration, name: str) -> Given:
    """Return the removal of the bond that nobody but this network uses."""
    bond = running.networks[name].bond
    users = [other for other in running.networks.values() if other.bond == bond]
    return {bond: {"remove": True}} if bond in running.bonds and len(users) == 1 else {}


def single(asked: Asked) -> tuple[Given, Given, Given]:
    """Return the network's attributes, the bonds and the options. Raises BadBond and BadParams."""
    told = attributes("options", asked.options)
    network = {name: value for name, value in told.items() if name not in (*OPTIONS, BONDING, *OF_NO_USE)}
    network["vlan"] = asked.vlan
    bonds = {}
    if asked.bond:
        network["bonding"] = asked.bond
        if asked.nics:
            bonds[asked.bond] = {"nics": list(asked.nics), "options": told.get(BONDING, "")}
    elif len(asked.nics) > 1:
        raise BadBond(what=", ".join(asked.nics), reason="several nics need a bond")
    elif asked.nics:
        network["nic"] = asked.nics[0]
    return network, bonds, {name: told[name] for name in OPTIONS if name in told}
