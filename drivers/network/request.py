"""Request: what an engine asks of networks, from the words of the wire to the types of the model.

It promises that whatever comes is either understood whole, or refused with the contract's code before anyone looks at the
kernel.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from drivers.network import options as bond_options
from drivers.network.addresses import ip4, ip6
from drivers.network.bandwidth import rate, shares
from drivers.network.errors import BadBond, BadBridge, BadNic, BadParams, BadVlan
from drivers.network.model import LONGEST_NAME, Bond, Network
from drivers.network.words import Attributes, attributes, number, text, truth

HIGHEST_TAG = 4094
LEAST_MTU, LEAST_MTU6, GREATEST_MTU = 68, 1280, 65521
USUAL_TIMEOUT, LONGEST_TIMEOUT = 4.0, 600.0
"""Seconds for the engine to show that it still reaches us."""
BRIDGE_NAME = re.compile(r"[^\s:./%]+")
NO_NAMES = ("all", "default")
"""The kernel gives no device these names."""
BOND_NAME = re.compile(r"bond\w+", re.ASCII)


class Request(msgspec.Struct, kw_only=True):
    """A change, by the names of networks and bonds; None stands for their removal."""

    networks: dict[str, Network | None] = {}
    bonds: dict[str, Bond | None] = {}
    assumed: set[str] = set()
    """Networks with a gateway, or DHCP that may bring one, of which it was not said whether it is the default route's."""
    check: bool = True
    """Whether the engine must call again after the change, within so many seconds."""
    timeout: float = USUAL_TIMEOUT
    force: bool = False
    """Take down networks also when guests use them."""


def request(networks: Attributes, bonds: Attributes, options: Attributes, *, check: bool) -> Request:
    """Return what setupNetworks is asked for. `check` holds where `options` does not say. Raises the errors of the contract."""
    asked = Request(check=check)
    for name, given in networks.items():
        told = attributes(f"network {name}", given)
        asked.networks[_bridge_name(name)] = network = _network(name, told)
        has_way = network is not None and (network.gateway or network.gateway6 or network.dhcp)
        if has_way and told.get("defaultroute") in (None, ""):
            asked.assumed.add(name)
    for name, given in bonds.items():
        asked.bonds[_bond_name(name)] = _bond(name, attributes(f"bond {name}", given))
    told = attributes("options", options)
    asked.check = truth(told, "connectivitycheck", check)
    asked.force = truth(told, "force", False)
    asked.timeout = _timeout(told)
    return asked


def _timeout(options: Attributes) -> float:
    seconds = number(options, "connectivitytimeout")
    if seconds is None:
        return USUAL_TIMEOUT
    if not 0 < seconds <= LONGEST_TIMEOUT:
        raise BadParams(what="connectivityTimeout", reason=f"expected 1 to {LONGEST_TIMEOUT:.0f} seconds")
    return float(seconds)


# Networks


def _network(name: str, given: Attributes) -> Network | None:
    if truth(given, "remove", False):
        return None
    what = f"network {name}"
    nic, bond, vlan = _nic(given), text(given, "bonding"), _vlan(given)
    bridged, stp = truth(given, "bridged", True), truth(given, "stp", False)
    has_base = bool(nic or bond)
    if nic and bond:
        raise BadParams(what=what, reason="it is either on a nic or on a bond")
    if vlan is not None and not has_base:
        raise BadVlan(what=what, reason="a VLAN needs a nic or a bond")
    if not bridged and not has_base:
        raise BadParams(what=what, reason="without a bridge it needs a nic or a bond")
    if stp and not bridged:
        raise BadParams(what=what, reason="a spanning tree needs a bridge")
    addresses = ip4(given) | ip6(given)
    has_ip6 = any(addresses[key] for key in ("address6", "autoconf6", "dhcp6"))
    return Network(
        nic=nic,
        bond=bond,
        vlan=vlan,
        bridged=bridged,
        stp=stp,
        mtu=_mtu(given, has_ip6),
        default_route=truth(given, "defaultroute", any(addresses[key] for key in ("gateway", "gateway6", "dhcp"))),
        custom=_custom(what, given.get("custom")),
        host_qos=shares(f"hostQos of {what}", given.get("hostqos"), has_base=has_base),
        inbound=rate(f"qosInbound of {what}", given.get("qosinbound"), has_base=has_base),
        outbound=rate(f"qosOutbound of {what}", given.get("qosoutbound"), has_base=has_base),
        **addresses,
    )


def _bridge_name(name: str) -> str:
    if not (0 < len(name) <= LONGEST_NAME and name.isprintable() and BRIDGE_NAME.fullmatch(name)):
        raise BadBridge(
            what=f"network {name!r}",
            reason=f"expected a name of 1 to {LONGEST_NAME} characters without any of ':./%' or spaces",
        )
    if not name.isascii() or name in NO_NAMES:
        raise BadBridge(what=f"network {name!r}", reason=f"expected ASCII characters, and not {' or '.join(NO_NAMES)}")
    return name


def _nic(given: Attributes) -> str:
    nics = given.get("nic") or ""
    if isinstance(nics, list):
        if len(nics) > 1 or not all(isinstance(nic, str) for nic in nics):
            raise BadParams(what="nic", reason="a network has one nic; several make a bond")
        nics = nics[0] if nics else ""
    if not isinstance(nics, str):
        raise BadNic(what="nic", reason="expected a name")
    return nics


def _vlan(given: Attributes) -> int | None:
    tag = number(given, "vlan", BadVlan)
    if tag is not None and not 0 <= tag <= HIGHEST_TAG:
        raise BadVlan(what=f"vlan {tag}", reason=f"expected 0 to {HIGHEST_TAG}")
    return tag


def _mtu(given: Attributes, with_ipv6: bool) -> int:
    mtu = number(given, "mtu") or 0
    least = LEAST_MTU6 if with_ipv6 else LEAST_MTU
    if mtu and not least <= mtu <= GREATEST_MTU:
        raise BadParams(what=f"mtu {mtu}", reason=f"expected {least} to {GREATEST_MTU}")
    return mtu


def _custom(what: str, given: Any) -> dict[str, str]:
    if not isinstance(given or {}, dict):
        raise BadParams(what=f"custom of {what}", reason="expected a struct")
    return {str(key): str(value) for key, value in (given or {}).items()}


# Bonds


def _bond_name(name: str) -> str:
    if len(name) > LONGEST_NAME or not BOND_NAME.fullmatch(name):
        raise BadBond(
            what=f"bond {name!r}", reason=f"expected 'bond' and letters or digits, up to {LONGEST_NAME} in all"
        )
    return name


def _bond(name: str, given: Attributes) -> Bond | None:
    if truth(given, "remove", False):
        return None
    nics = given.get("nics") or []
    if not isinstance(nics, list) or not all(isinstance(nic, str) for nic in nics):
        raise BadParams(what=f"nics of {name}", reason="expected an array of names")
    if not nics:
        raise BadParams(what=f"bond {name}", reason="it needs nics")
    if len(set(nics)) != len(nics):
        raise BadParams(what=f"bond {name}", reason="it names a nic twice")
    return Bond(nics=tuple(nics), options=bond_options.parse(name, text(given, "options"), tuple(nics)))
