"""Rates: how much of a network's traffic may pass its nic, bond or VLAN, as the helper is told.

It promises that the number of limits follows from them, so that the kernel itself says which are in force. Pure.
"""

from __future__ import annotations

import zlib

import msgspec

from drivers.network.model import Network, Rate

Told = dict[str, dict[str, int]]


def told(network: Network | None) -> Told:
    """Return the limits of a network, by their directions: 'in' for what it gets from outside, 'out' for what it sends."""
    if network is None:
        return {}
    given = {"in": network.inbound, "out": network.outbound}
    return {way: as_struct(rate) for way, rate in given.items() if rate is not None}


def as_struct(rate: Rate) -> dict[str, int]:
    """Return it in the words of the wire; what does not say anything is left out."""
    return {name: value for name, value in msgspec.structs.asdict(rate).items() if value}


def number(limits: Told) -> int:
    """Return the number of these limits, 0 for none."""
    return zlib.crc32(msgspec.json.encode(limits, order="deterministic")) | 1 if limits else 0
