"""Devices: what the kernel would have, if it had nothing but a configuration.

It promises that each device stands here once, with all that the networks on it ask of it. Pure: it is computed from the
configuration alone.
"""

from __future__ import annotations

import msgspec

from drivers.network import rates
from drivers.network.model import Bond, Configuration, Network, Qos

USUAL_MTU = 1500


class Device(msgspec.Struct, kw_only=True):
    """One network device as it should be."""

    name: str
    kind: str
    """nic (also for a bond that others have made), bond, vlan or bridge."""
    mtu: int = USUAL_MTU
    master: str = ""
    below: str = ""
    tag: int = 0
    stp: bool = False
    options: dict[str, str] = {}
    network: Network | None = None
    """The network whose addresses it carries."""
    shares: dict[str, Qos] = {}
    """What networks get of it for what they send, by their tags; '' for the one without."""
    rates: rates.Told = {}
    """How much of its network's own traffic may pass it."""

    @property
    def rank(self) -> int:
        """How far it is from the wire: no device has a greater MTU than what it is on."""
        return {"bond": 0, "nic": 1, "vlan": 2, "bridge": 3}[self.kind]


def devices(configuration: Configuration) -> dict[str, Device]:
    """Return all devices that a configuration has to do with, by name, from the wire upwards."""
    found: dict[str, Device] = {}
    for name, bond in configuration.bonds.items():
        found[name] = Device(name=name, kind="bond", options=bond.options)
        for nic in bond.nics:
            found[nic] = Device(name=nic, kind="nic", master=name)
    for name, network in configuration.networks.items():
        _add(found, configuration, name, network)
    in_order = dict(sorted(found.items(), key=lambda item: item[1].rank))
    for name, device in in_order.items():
        if device.kind == "nic" and device.master in configuration.bonds:
            device.mtu = found[device.master].mtu
        elif device.kind in ("nic", "bond"):
            device.mtu = base_mtu(configuration, name)
    return in_order


def mtu_of(configuration: Configuration, network: Network) -> int:
    return network.mtu or (found_mtu(configuration, network.base) if network.base else USUAL_MTU)


def found_mtu(configuration: Configuration, base: str) -> int:
    """Return the MTU that a nic was found with, or the least of those of a bond's nics."""
    bond = configuration.bonds.get(base, Bond(nics=(base,)))
    known = [configuration.found[nic].mtu for nic in bond.nics if nic in configuration.found]
    return min(known, default=USUAL_MTU)


def base_mtu(configuration: Configuration, base: str) -> int:
    """Return what the nic or bond needs: the most of its networks, and no less than before when it only carries VLANs."""
    mine = [network for network in configuration.networks.values() if network.base == base]
    asked = [mtu_of(configuration, network) for network in mine]
    if all(network.vlan is not None for network in mine):
        asked.append(found_mtu(configuration, base))
    return max(asked)


def _add(found: dict[str, Device], configuration: Configuration, name: str, network: Network) -> None:
    mtu = mtu_of(configuration, network)
    if network.base:
        base = found.setdefault(network.base, Device(name=network.base, kind="nic"))
        if network.host_qos is not None:
            base.shares["" if network.vlan is None else str(network.vlan)] = network.host_qos
    if network.vlan is not None:
        found[network.port] = Device(name=network.port, kind="vlan", mtu=mtu, below=network.base, tag=network.vlan)
    if network.port:
        found[network.port].rates = rates.told(network)
    if network.bridged:
        found[name] = Device(name=name, kind="bridge", mtu=mtu, stp=network.stp, network=network)
        if network.port:
            found[network.port].master = name
    else:
        found[network.port].network = network
