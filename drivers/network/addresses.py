"""Addresses of networks: from the words of engines to what the kernel is given.

It promises that what it returns could be a host's, and that a gateway can be reached from it. Raises BadAddress and BadParams.
"""

from __future__ import annotations

from ipaddress import AddressValueError, IPv4Address, IPv4Interface, IPv6Address, IPv6Interface, NetmaskValueError
from typing import Any

from drivers.network.errors import BadAddress, BadParams
from drivers.network.words import Attributes, text, truth

Asked = dict[str, Any]
"""Attributes of `model.Network`."""


def ip4(given: Attributes) -> Asked:
    address, mask, gateway = (text(given, key) for key in ("ipaddr", "netmask", "gateway"))
    protocol = (text(given, "bootproto") or "none").lower()
    mask = mask or text(given, "prefix")
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


def ip6(given: Attributes) -> Asked:
    address, gateway = text(given, "ipv6addr"), text(given, "ipv6gateway")
    if gateway and not address:
        raise BadAddress(what=f"ipv6gateway {gateway}", reason="an address is missing")
    interface = _interface6(address) if address else None
    if interface and gateway:
        gateway = _check_gateway(interface, gateway)
    return {
        "address6": str(interface or ""),
        "gateway6": gateway,
        "autoconf6": truth(given, "ipv6autoconf", False),
        "dhcp6": truth(given, "dhcpv6", False),
    }


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


def _check_gateway(interface: IPv4Interface | IPv6Interface, gateway: str) -> str:
    """Return the gateway as the kernel writes it."""
    try:
        ip = IPv6Address(gateway) if interface.version == 6 else IPv4Address(gateway)
    except AddressValueError as error:
        raise BadAddress(what=f"gateway {gateway}", reason=str(error)) from None
    if ip == interface.ip:
        raise BadAddress(what=f"gateway {gateway}", reason="it is the address of this host")
    if ip not in interface.network and not (interface.version == 6 and ip.is_link_local):
        raise BadAddress(what=f"gateway {gateway}", reason=f"it is outside of {interface.network}")
    return str(ip)
