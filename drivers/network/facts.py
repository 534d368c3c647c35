"""Facts: networks and their devices as getVdsCapabilities tells them.

It promises the keys of the contract for every network of ours, also when the kernel has lost its device; and it only adds to
what is known of devices, so that a host without networks of ours is described all the same.
"""

from __future__ import annotations

from ipaddress import ip_interface
from typing import Any

from drivers.network import rates
from drivers.network.kernel import DEFAULT, DEFAULT6, MAIN, Kernel, Link
from drivers.network.model import Configuration, Network
from drivers.network.shares import as_struct
from drivers.network.ways import table

Facts = dict[str, Any]
NO_GATEWAY6 = "::"


def facts(kernel: Kernel, running: Configuration, info: Facts) -> Facts:
    """Return the keys networks, bridges, nics, bondings and vlans. `info` has the latter four as the kernel's files tell."""
    answer: Facts = {}
    carriers = {_carrier(name, network): network for name, network in running.networks.items()}
    for kind in ("bridges", "nics", "bondings", "vlans"):
        answer[kind] = {
            name: told | _of_device(kernel, running, name, carriers.get(name))
            for name, told in info.get(kind, {}).items()
        }
    answer["networks"] = {name: _network(kernel, running, name, network) for name, network in running.networks.items()}
    return answer


def _carrier(name: str, network: Network) -> str:
    return name if network.bridged else network.port


def _network(kernel: Kernel, running: Configuration, name: str, network: Network) -> Facts:
    carrier = _carrier(name, network)
    link = kernel.links.get(carrier) or Link(name=carrier, mtu=network.mtu)
    told = _addresses(kernel, link) | {
        "iface": carrier,
        "bridged": network.bridged,
        "bootproto4": "dhcp" if network.dhcp else "none",
        "mtu": str(link.mtu),
        "dhcpv4": network.dhcp,
        "dhcpv6": network.dhcp6,
        "ipv6autoconf": network.autoconf6,
        "cfg": _cfg(running, carrier, network),
    }
    if network.host_qos is not None:
        told["hostQos"] = {"out": as_struct(network.host_qos)}
    for key, limit in (("qosInbound", network.inbound), ("qosOutbound", network.outbound)):
        if limit is not None:
            told[key] = rates.as_struct(limit)
    if network.vlan is not None:
        told["vlanid"] = network.vlan
    if not network.bridged:
        return told | {"interface": network.port}
    return told | {"ports": kernel.ports(carrier), "stp": "on" if link.stp else "off", "opts": {}}


def _of_device(kernel: Kernel, running: Configuration, name: str, network: Network | None) -> Facts:
    """Return what is to be known of a device beyond what the kernel's files say."""
    link = kernel.links.get(name)
    if link is None:
        return {}
    told: Facts = _addresses(kernel, link)
    told |= {"dhcpv4": bool(network and network.dhcp), "dhcpv6": bool(network and network.dhcp6)}
    told["cfg"] = _cfg(running, name, network)
    if link.kind == "bond":
        told["opts"] = {key: value for key, value in link.options.items() if key != "active_slave" and value}
        told["active_slave"] = link.options.get("active_slave", "")
    elif link.kind == "vlan":
        told |= {"iface": link.below, "vlanid": link.tag}
    elif link.permanent_mac and kernel.links.get(link.master, link).kind == "bond":
        told["permhwaddr"] = link.permanent_mac
    return told


def _addresses(kernel: Kernel, link: Link) -> Facts:
    four = [ip_interface(address) for address in link.addresses if ":" not in address]
    six = [address for address in (*link.addresses, *link.local6) if ":" in address]
    return {
        "addr": str(four[0].ip) if four else "",
        "netmask": str(four[0].netmask) if four else "",
        "ipv4addrs": [each.with_prefixlen for each in four],
        "ipv6addrs": six,
        "gateway": _gateway(kernel, link.name, DEFAULT) or "",
        "ipv6gateway": _gateway(kernel, link.name, DEFAULT6) or NO_GATEWAY6,
    }


def _gateway(kernel: Kernel, link: str, destination: str) -> str:
    """Return the gateway of the main table, or else of the link's own."""
    ways = [route for route in kernel.routes_of(link) if route.destination == destination]
    ways = [route for route in ways if route.table in (MAIN, table(link))]
    return min(ways, key=lambda route: (route.table != MAIN, route.metric)).gateway if ways else ""


def _cfg(running: Configuration, device: str, network: Network | None) -> dict[str, str]:
    """Return the device's part of the configuration in the words of network scripts, which engines compare with their own."""
    if network is None and device not in running.bonds:
        return {}
    told = {"DEVICE": device, "ONBOOT": "yes", "BOOTPROTO": "dhcp" if network and network.dhcp else "none"}
    if device in running.bonds:
        options = running.bonds[device].options
        told["BONDING_OPTS"] = " ".join(f"{key}={value}" for key, value in options.items())
    if network is None:
        return told
    if network.address:
        interface = ip_interface(network.address)
        told |= {"IPADDR": str(interface.ip), "NETMASK": str(interface.netmask)}
    words = {
        "GATEWAY": network.gateway,
        "IPV6ADDR": network.address6,
        "IPV6_DEFAULTGW": network.gateway6,
        "MTU": str(network.mtu or ""),
        "DEFROUTE": "yes" if network.default_route else "no",
        "IPV6_AUTOCONF": "yes" if network.autoconf6 else "no",
        "DHCPV6C": "yes" if network.dhcp6 else "",
    }
    words |= {"STP": "on" if network.stp else "off", "TYPE": "Bridge"} if network.bridged else {}
    return told | {key: value for key, value in words.items() if value}
