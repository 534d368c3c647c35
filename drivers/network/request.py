"""Request: what an engine asks of networks, from the words of the wire to the types of the model.

It promises that whatever comes is either understood whole, or refused with the contract's code before anyone looks at the
kernel. Engines write names of attributes in either case, and numbers and truths as text.
"""

from __future__ import annotations

import re
from ipaddress import AddressValueError, IPv4Address, IPv4Interface, IPv6Address, IPv6Interface, NetmaskValueError
from typing import Any

import msgspec

from drivers.errors import Invalid
from drivers.network.errors import BadAddress, BadBond, BadBridge, BadNic, BadParams, BadVlan
from drivers.network.model import LONGEST_NAME, Bond, Curve, Network, Qos
from drivers.network.options import parse as bond_options

HIGHEST_TAG = 4094
LEAST_MTU, LEAST_MTU6, GREATEST_MTU = 68, 1280, 65521
FASTEST = 8 * (2**32 - 1)
"""Bits a second that the kernel's scheduler can count."""
LONGEST_CURVE = 60_000_000
"""Microseconds."""
USUAL_TIMEOUT, LONGEST_TIMEOUT = 4.0, 600.0
"""Seconds for the engine to show that it still reaches us."""
BRIDGE_NAME = re.compile(r"[^\s:./%]+")
BOND_NAME = re.compile(r"bond\w+", re.ASCII)

Attributes = dict[str, Any]


class Request(msgspec.Struct, kw_only=True):
    """A change, by the names of networks and bonds; None stands for their removal."""

    networks: dict[str, Network | None] = {}
    bonds: dict[str, Bond | None] = {}
    assumed: set[str] = set()
    """Networks with a gateway, or DHCP that may bring one, of which it was not said whether it is the default route's."""
    must_be_new: set[str] = set()
    check: bool = True
    """Whether the engine must call again after the change, within so many seconds."""
    timeout: float = USUAL_TIMEOUT
    force: bool = False
    """Take down networks also when guests use them."""


def request(networks: Attributes, bonds: Attributes, options: Attributes, *, check: bool) -> Request:
    """Return what setupNetworks is asked for. `check` holds where `options` does not say. Raises the errors of the contract."""
    asked = Request(check=check)
    for name, given in networks.items():
        attributes = _attributes(f"network {name}", given)
        asked.networks[_bridge_name(name)] = network = _network(name, attributes)
        has_way = network is not None and (network.gateway or network.gateway6 or network.dhcp)
        if has_way and attributes.get("defaultroute") in (None, ""):
            asked.assumed.add(name)
    for name, given in bonds.items():
        asked.bonds[_bond_name(name)] = _bond(name, _attributes(f"bond {name}", given))
    told = _attributes("options", options)
    asked.check = _truth(told, "connectivitycheck", check)
    asked.force = _truth(told, "force", False)
    asked.timeout = _timeout(told)
    return asked


def _timeout(options: Attributes) -> float:
    seconds = _number(options, "connectivitytimeout", BadParams)
    if seconds is None:
        return USUAL_TIMEOUT
    if not 0 < seconds <= LONGEST_TIMEOUT:
        raise BadParams(what="connectivityTimeout", reason=f"expected 1 to {LONGEST_TIMEOUT:.0f} seconds")
    return float(seconds)


def _attributes(what: str, given: Any) -> Attributes:
    if not isinstance(given, dict):
        raise BadParams(what=what, reason="expected a struct")
    return {str(name).lower(): value for name, value in given.items()}


# Networks


def _network(name: str, given: Attributes) -> Network | None:
    if _truth(given, "remove", False):
        return None
    nic, bond, vlan = _nic(given), _text(given, "bonding"), _vlan(given)
    bridged, stp = _truth(given, "bridged", True), _truth(given, "stp", False)
    if nic and bond:
        raise BadParams(what=f"network {name}", reason="it is either on a nic or on a bond")
    if vlan is not None and not (nic or bond):
        raise BadVlan(what=f"network {name}", reason="a VLAN needs a nic or a bond")
    if not bridged and not (nic or bond):
        raise BadParams(what=f"network {name}", reason="without a bridge it needs a nic or a bond")
    if stp and not bridged:
        raise BadParams(what=f"network {name}", reason="a spanning tree needs a bridge")
    for key in ("qosinbound", "qosoutbound"):
        if given.get(key):
            raise BadParams(what=f"{key} of network {name}", reason="it is not supported; hostQos limits what is sent")
    addresses = _ip4(given) | _ip6(given)
    return Network(
        nic=nic,
        bond=bond,
        vlan=vlan,
        bridged=bridged,
        stp=stp,
        mtu=_mtu(given, bool(addresses["address6"] or addresses["autoconf6"])),
        default_route=_truth(given, "defaultroute", any(addresses[key] for key in ("gateway", "gateway6", "dhcp"))),
        custom=_custom(name, given.get("custom")),
        host_qos=_host_qos(f"hostQos of network {name}", given.get("hostqos"), has_base=bool(nic or bond)),
        **addresses,
    )


def _bridge_name(name: str) -> str:
    if not (0 < len(name) <= LONGEST_NAME and name.isprintable() and BRIDGE_NAME.fullmatch(name)):
        raise BadBridge(
            what=f"network {name!r}",
            reason=f"expected a name of 1 to {LONGEST_NAME} characters without any of ':./%' or spaces",
        )
    if not name.isascii():
        raise BadBridge(what=f"network {name!r}", reason="expected a name of ASCII characters")
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
    tag = _number(given, "vlan", BadVlan)
    if tag is not None and not 0 <= tag <= HIGHEST_TAG:
        raise BadVlan(what=f"vlan {tag}", reason=f"expected 0 to {HIGHEST_TAG}")
    return tag


def _mtu(given: Attributes, with_ipv6: bool) -> int:
    mtu = _number(given, "mtu", BadParams) or 0
    least = LEAST_MTU6 if with_ipv6 else LEAST_MTU
    if mtu and not least <= mtu <= GREATEST_MTU:
        raise BadParams(what=f"mtu {mtu}", reason=f"expected {least} to {GREATEST_MTU}")
    return mtu


def _ip4(given: Attributes) -> dict[str, Any]:
    address, mask, gateway = (_text(given, key) for key in ("ipaddr", "netmask", "gateway"))
    protocol = (_text(given, "bootproto") or "none").lower()
    mask = mask or _text(given, "prefix")
    if protocol not in ("none", "static", "dhcp"):
        raise BadParams(what=f"bootproto {protocol!r}", reason="expected none, static or dhcp")
    if protocol == "dhcp" and (address or mask or gateway):
        raise BadParams(what="bootproto dhcp", reason="it leaves no room for an address, netmask or gateway")
    if protocol == "static" and not address:
        raise BadAddress(what="bootproto static", reason="an address is missing")
    if not address and (mask or gateway):
        raise BadAddress(what=f"{'netmask' if mask else 'gateway'} {mask or gateway}", reason="an address is missing")
    interface = _interface4(address, mask) if address else None
    if interface and gateway:
        _check_gateway(interface, gateway)
    return {"address": str(interface or ""), "gateway": gateway, "dhcp": protocol == "dhcp"}


def _interface4(address: str, mask: str) -> IPv4Interface:
    if not mask:
        raise BadAddress(what=f"address {address}", reason="its netmask is missing")
    try:
        interface = IPv4Interface(f"{IPv4Address(address)}/{mask}")
    except (AddressValueError, NetmaskValueError) as error:
        raise BadAddress(what=f"address {address} netmask {mask}", reason=str(error)) from None
    if mask not in (str(interface.netmask), str(interface.network.prefixlen)):
        raise BadAddress(what=f"netmask {mask}", reason="expected ones followed by zeros")
    _check_host(interface)
    if interface.network.prefixlen < 31 and interface.ip in (
        interface.network.network_address,
        interface.network.broadcast_address,
    ):
        raise BadAddress(what=f"address {interface}", reason="it is that of the whole network")
    return interface


def _ip6(given: Attributes) -> dict[str, Any]:
    address, gateway = _text(given, "ipv6addr"), _text(given, "ipv6gateway")
    autoconf = _truth(given, "ipv6autoconf", False)
    if _truth(given, "dhcpv6", False):
        raise BadParams(
            what="dhcpv6", reason="it is not supported: ipv6autoconf gives addresses by router advertisements"
        )
    if gateway and not address:
        raise BadAddress(what=f"ipv6gateway {gateway}", reason="an address is missing")
    interface = _interface6(address) if address else None
    if interface and gateway:
        _check_gateway(interface, gateway)
    return {"address6": str(interface or ""), "gateway6": gateway, "autoconf6": autoconf}


def _interface6(address: str) -> IPv6Interface:
    try:
        interface = IPv6Interface(address if "/" in address else f"{address}/64")
    except (AddressValueError, NetmaskValueError) as error:
        raise BadAddress(what=f"ipv6addr {address}", reason=str(error)) from None
    if interface.scope_id:
        raise BadAddress(what=f"ipv6addr {address}", reason="it must not name a device")
    _check_host(interface)
    return interface


def _check_host(interface: IPv4Interface | IPv6Interface) -> None:
    ip = interface.ip
    if ip.is_multicast or ip.is_unspecified or ip.is_loopback or (interface.version == 6 and ip.is_link_local):
        raise BadAddress(what=f"address {ip}", reason="it cannot be a host's")
    if not interface.network.prefixlen:
        raise BadAddress(what=f"address {interface}", reason="its network is everything")


def _check_gateway(interface: IPv4Interface | IPv6Interface, gateway: str) -> None:
    try:
        ip = IPv6Address(gateway) if interface.version == 6 else IPv4Address(gateway)
    except AddressValueError as error:
        raise BadAddress(what=f"gateway {gateway}", reason=str(error)) from None
    if ip == interface.ip:
        raise BadAddress(what=f"gateway {gateway}", reason="it is the address of this host")
    if ip not in interface.network and not (interface.version == 6 and ip.is_link_local):
        raise BadAddress(what=f"gateway {gateway}", reason=f"it is outside of {interface.network}")


def _custom(name: str, given: Any) -> dict[str, str]:
    return {str(key): str(value) for key, value in _attributes(f"custom of network {name}", given or {}).items()}


def _host_qos(what: str, given: Any, *, has_base: bool) -> Qos | None:
    out = _attributes(what, given or {}).get("out")
    if not out:
        return None
    curves = {name: _curve(f"{what}: {name}", curve) for name, curve in _attributes(what, out).items()}
    if not has_base:
        raise BadParams(what=what, reason="the network has no nic or bond to share")
    if unknown := curves.keys() - {"ls", "rt", "ul"}:
        raise BadParams(what=what, reason=f"expected ls, rt and ul, got {min(unknown)}")
    if (share := curves.get("ls")) is None:
        raise BadParams(what=what, reason="ls is missing")
    qos = Qos(ls=share, rt=curves.get("rt"), ul=curves.get("ul"))
    if qos.rt and qos.ul and qos.rt.m2 > qos.ul.m2:
        raise BadParams(what=what, reason="it cannot get more in any case (rt) than at most (ul)")
    return qos


def _curve(what: str, given: Any) -> Curve | None:
    if not given:
        return None
    told = _attributes(what, given)
    m1, d, m2 = (_number(told, key, BadParams) for key in ("m1", "d", "m2"))
    if m2 is None or not 0 < m2 <= FASTEST:
        raise BadParams(what=f"{what}: m2", reason=f"expected 1 to {FASTEST} bits a second")
    if not 0 <= (m1 or 0) <= FASTEST or not 0 <= (d or 0) <= LONGEST_CURVE or bool(m1) != bool(d):
        raise BadParams(what=what, reason="expected m1 in bits a second together with d in microseconds, or neither")
    return Curve(m1=m1 or 0, d=d or 0, m2=m2)


# Bonds


def _bond_name(name: str) -> str:
    if len(name) > LONGEST_NAME or not BOND_NAME.fullmatch(name):
        raise BadBond(
            what=f"bond {name!r}", reason=f"expected 'bond' and letters or digits, up to {LONGEST_NAME} in all"
        )
    return name


def _bond(name: str, given: Attributes) -> Bond | None:
    if _truth(given, "remove", False):
        return None
    nics = given.get("nics") or []
    if not isinstance(nics, list) or not all(isinstance(nic, str) for nic in nics):
        raise BadParams(what=f"nics of {name}", reason="expected an array of names")
    if not nics:
        raise BadParams(what=f"bond {name}", reason="it needs nics")
    if len(set(nics)) != len(nics):
        raise BadParams(what=f"bond {name}", reason="it names a nic twice")
    return Bond(nics=tuple(nics), options=bond_options(name, _text(given, "options")))


# Values


def _text(given: Attributes, key: str) -> str:
    value = given.get(key) or ""
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise BadParams(what=key, reason="expected a string")
    return str(value).strip()


def _truth(given: Attributes, key: str, otherwise: bool) -> bool:
    """Return what is meant by a boolean, a number, or one of the words that network scripts have always known."""
    value = given.get(key)
    if value is None or value == "":
        return otherwise
    if isinstance(value, str):
        if value.lower() not in ("true", "yes", "on", "1", "false", "no", "off", "0"):
            raise BadParams(what=key, reason="expected true or false")
        return value.lower() in ("true", "yes", "on", "1")
    if not isinstance(value, (bool, int)):
        raise BadParams(what=key, reason="expected true or false")
    return bool(value)


def _number(given: Attributes, key: str, meaning: type[Invalid]) -> int | None:
    value = given.get(key)
    if value is None or value == "":
        return None
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        raise meaning(what=key, reason="expected a number")
    text = str(value).strip()
    digits = text.removeprefix("-")
    if not (digits.isascii() and digits.isdigit() and len(digits) < 16):
        raise meaning(what=f"{key} {text!r}", reason="expected a number")
    return int(text)
