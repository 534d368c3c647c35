"""Parts: what of a configuration can be had without the rest, for when all of it cannot.

It promises that each network and each bond is in some part, and a network never without its bond. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from drivers.network.model import Configuration, Network

Part = tuple[str, list[Configuration]]
"""What it is, and how it can be had: the best first."""


def parts(whole: Configuration) -> Iterator[Part]:
    """Yield each network with its bond, and then the bonds, which may have no network."""
    for name, network in whole.networks.items():
        bonds = {bond: told for bond, told in whole.bonds.items() if bond == network.bond}
        yield f"network {name}", [Configuration(networks={name: form}, bonds=bonds) for form in _forms(network)]
    for name, bond in whole.bonds.items():
        yield f"bond {name}", [Configuration(bonds={name: bond})]


def together(some: Configuration, more: Configuration) -> Configuration:
    return msgspec.structs.replace(some, networks=some.networks | more.networks, bonds=some.bonds | more.bonds)


def _forms(network: Network) -> list[Network]:
    """Return the network, and what it is without limits if it has any."""
    unlimited = msgspec.structs.replace(network, host_qos=None, inbound=None, outbound=None)
    return [network] if network == unlimited else [network, unlimited]
