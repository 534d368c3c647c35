"""Merge: the configuration that a request leads to, checked against what there is.

It promises that what it returns can be planned for; whatever a request claims that is somebody else's, or is used twice, is
refused with the contract's code, and nothing has been changed by then.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

import msgspec

from drivers.errors import DriverError
from drivers.network.errors import BadAddress, BadBond, BadBridge, BadNic, BadParams, UsedBond, UsedBridge, UsedNic
from drivers.network.kernel import Kernel, Link
from drivers.network.model import Bond, Configuration, Found, Network
from drivers.network.request import Request

T = TypeVar("T")

NO_NICS = ("bridge", "bond", "vlan")
"""Kinds of links on which no network is put as on a nic, and which become no slaves."""


def merged(running: Configuration, kernel: Kernel, request: Request) -> Configuration:
    """Return the configuration after the request. Raises the errors of the contract."""
    bonds = _with_changes("bond", running.bonds, request.bonds, BadBond)
    networks = _with_changes("network", running.networks, request.networks, BadBridge)
    _check_bonds(running, kernel, request, networks, bonds)
    for name, network in request.networks.items():
        if network is not None:
            _check_base(kernel, name, network, bonds)
            _check_bridge(running, kernel, name, network)
    _check_shared(networks)
    _check_addresses(networks)
    _check_guests(running, kernel, networks, force=request.force)
    networks = _with_one_default(kernel, networks, request)
    found = _found(running, kernel, networks.values(), bonds.values())
    return Configuration(networks=networks, bonds=bonds, found=found)


def _with_changes(
    what: str, known: dict[str, T], asked: dict[str, T | None], missing: type[DriverError]
) -> dict[str, T]:
    changed = dict(known)
    for name, item in asked.items():
        if item is not None:
            changed[name] = item
        elif changed.pop(name, None) is None:
            raise missing(what=f"{what} {name}", reason="there is none")
    return changed


def _check_bonds(
    running: Configuration, kernel: Kernel, request: Request, networks: dict[str, Network], bonds: dict[str, Bond]
) -> None:
    for name, bond in request.bonds.items():
        link = kernel.links.get(name)
        if link is not None and name not in running.bonds:
            raise UsedBond(what=name, reason="it exists, and was not made by us")
        if bond is None:
            _check_unused(kernel, name, networks)
            continue
        for nic in bond.nics:
            _check_slave(kernel, name, _nic(kernel, nic), networks, bonds)


def _check_unused(kernel: Kernel, bond: str, networks: dict[str, Network]) -> None:
    users = [name for name, network in networks.items() if network.bond == bond]
    users += [link.name for link in kernel.above(bond) if not link.ours]
    if users:
        raise UsedBond(what=bond, reason=f"used by {', '.join(sorted(users))}")


def _check_slave(kernel: Kernel, bond: str, nic: Link, networks: dict[str, Network], bonds: dict[str, Bond]) -> None:
    users = [name for name, other in bonds.items() if name != bond and nic.name in other.nics]
    users += [f"network {name}" for name, network in networks.items() if network.nic == nic.name]
    users += [link.name for link in kernel.above(nic.name) if not link.ours]
    users += _foreign_master(kernel, nic)
    if users:
        raise UsedNic(what=nic.name, reason=f"used by {', '.join(sorted(users))}")


def _check_base(kernel: Kernel, name: str, network: Network, bonds: dict[str, Bond]) -> None:
    if network.nic:
        nic = _nic(kernel, network.nic)
        users = [bond for bond, other in bonds.items() if nic.name in other.nics]
        if users := users + _foreign_master(kernel, nic):
            raise UsedNic(what=nic.name, reason=f"it belongs to {users[0]}")
    elif network.bond and network.bond not in bonds:
        link = kernel.links.get(network.bond)
        if link is None or link.kind != "bond":
            raise BadBond(what=f"network {name}", reason=f"there is no bond {network.bond}")
        if users := _foreign_master(kernel, link):
            raise UsedBond(what=link.name, reason=f"it belongs to {users[0]}")
    if network.vlan is not None:
        _check_vlan(kernel, network)


def _check_vlan(kernel: Kernel, network: Network) -> None:
    taken = [link.name for link in kernel.above(network.base) if link.tag == network.vlan and not link.ours]
    link = kernel.links.get(network.port)
    if taken or (link is not None and not (link.ours and link.kind == "vlan")):
        used = UsedNic if network.nic else UsedBond
        raise used(what=network.base, reason=f"its VLAN {network.vlan} belongs to {(taken or [network.port])[0]}")


def _check_bridge(running: Configuration, kernel: Kernel, name: str, network: Network) -> None:
    if not network.bridged or name not in kernel.links:
        return
    was = running.networks.get(name)
    if was is None or not was.bridged or not kernel.links[name].ours:
        raise UsedBridge(what=f"network {name}", reason="there is a network device of that name")


def _check_shared(networks: dict[str, Network]) -> None:
    """No nic or bond carries two networks that only their names tell apart."""
    seen: dict[tuple[str, int | None], str] = {}
    for name, network in networks.items():
        if not network.base:
            continue
        other = seen.setdefault((network.base, network.vlan), name)
        if other != name:
            used = UsedNic if network.nic else UsedBond
            tag = "" if network.vlan is None else f" with VLAN {network.vlan}"
            raise used(what=network.base, reason=f"networks {other} and {name} both want it{tag}")


def _check_addresses(networks: dict[str, Network]) -> None:
    seen: dict[str, str] = {}
    for name, network in networks.items():
        for address in filter(None, (network.address, network.address6)):
            other = seen.setdefault(address.partition("/")[0], name)
            if other != name:
                raise BadAddress(what=f"address {address}", reason=f"networks {other} and {name} both want it")


def _check_guests(running: Configuration, kernel: Kernel, networks: dict[str, Network], *, force: bool) -> None:
    for name, was in running.networks.items():
        if not was.bridged or (name in networks and networks[name].bridged) or force:
            continue
        users = [port for port in kernel.ports(name) if port != was.port]
        if users:
            raise UsedBridge(what=f"network {name}", reason=f"used by {', '.join(users)}")


def _with_one_default(kernel: Kernel, networks: dict[str, Network], request: Request) -> dict[str, Network]:
    """Return the networks with one default route at most: the newest that it was asked for. A gateway of which nothing was said
    gets it when nobody else has."""
    has = {name for name, network in networks.items() if network.default_route} - request.assumed
    asked = [name for name in has if request.networks.get(name) is not None]
    if len(asked) > 1:
        raise BadParams(what="defaultRoute", reason=f"networks {' and '.join(sorted(asked))} both want it")
    chosen = asked[0] if asked else next(iter(has), "")
    if not chosen and request.assumed:
        first = min(request.assumed)
        chosen = first if not _others_default(kernel, networks[first]) else ""
    return {
        name: msgspec.structs.replace(network, default_route=name == chosen)
        if network.default_route != (name == chosen)
        else network
        for name, network in networks.items()
    }


def _others_default(kernel: Kernel, network: Network) -> bool:
    return any(
        route.is_default and route.link != network.base and not kernel.links[route.link].ours for route in kernel.routes
    )


def _found(
    running: Configuration, kernel: Kernel, networks: Iterable[Network], bonds: Iterable[Bond]
) -> dict[str, Found]:
    """Return how the nics that are used were before we used them."""
    bonds = list(bonds)
    used = {nic for bond in bonds for nic in bond.nics}
    used |= {network.base for network in networks if network.nic or network.bond}
    links = [link for name in sorted(used) if (link := kernel.links.get(name)) is not None and not link.ours]
    now = {
        link.name: Found(mtu=link.mtu, up=link.up, autoconf6=link.autoconf6, advertised6=link.advertised6)
        for link in links
    }
    return now | {name: found for name, found in running.found.items() if name in used}


def _nic(kernel: Kernel, name: str) -> Link:
    link = kernel.links.get(name)
    if link is None or link.loopback:
        raise BadNic(what=f"nic {name}", reason="there is none")
    if link.kind in NO_NICS:
        raise BadNic(what=f"nic {name}", reason=f"it is a {link.kind}")
    return link


def _foreign_master(kernel: Kernel, link: Link) -> list[str]:
    above = kernel.links.get(link.master)
    if link.master and (above is None or not above.ours):
        return [link.master]
    return []
