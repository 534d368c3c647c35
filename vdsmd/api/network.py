"""Verbs about the networks of this host."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vdsmd.api.table import Reply, verb
from vdsmd.api.wire import Struct

if TYPE_CHECKING:
    from vdsmd.daemon import Daemon

# A change may wait ten minutes for the engine, and DHCP takes its time before that.
CHANGE_TIMEOUT = 900.0


@verb("setupNetworks", timeout=CHANGE_TIMEOUT, cli="network setup")
def setup_networks(daemon: Daemon, networks: Struct, bondings: Struct, options: Struct) -> Reply:
    """Bring this host's networks and bonds into the wanted state: all of them, or none.

    `networks` has by name the attributes nic or bonding, vlan, bridged (default true), mtu, stp, bootproto (none, static or
    dhcp), ipaddr, netmask, gateway, ipv6addr, ipv6gateway, ipv6autoconf, dhcpv6, defaultRoute, hostQos, qosInbound,
    qosOutbound and custom; or {remove: true}. What is not named stays as it is. `bondings` has by name nics (a list) and
    options, such as 'mode=4 miimon=100'.

    `options`: unless connectivityCheck is false, ping, list or getVdsCapabilities must be called over the network within
    connectivityTimeout seconds (default 4) after the change, or it is taken back and the answer is code 10. With force,
    networks are taken down also when guests use them.
    """
    daemon.networks.setup(networks, bondings, options)
    return {}


@verb("addNetwork", timeout=CHANGE_TIMEOUT, cli="network add")
def add_network(
    daemon: Daemon,
    bridge: str,
    vlan: int | str | None = None,
    bond: str | None = None,
    nics: list[str] | None = None,
    options: Struct | None = None,
) -> Reply:
    """Add one network. `options` are attributes as in setupNetworks, and bondingOptions."""
    return _change(daemon, "", bridge, vlan, bond, nics, options)


@verb("editNetwork", timeout=CHANGE_TIMEOUT, cli="network edit")
def edit_network(
    daemon: Daemon,
    oldBridge: str,
    newBridge: str,
    vlan: int | str | None = None,
    bond: str | None = None,
    nics: list[str] | None = None,
    options: Struct | None = None,
) -> Reply:
    """Change one network, and its name. `options` as in addNetwork; the engine is waited for only if they say so."""
    return _change(daemon, oldBridge, newBridge, vlan, bond, nics, options)


@verb("delNetwork", timeout=CHANGE_TIMEOUT, cli="network remove")
def del_network(
    daemon: Daemon,
    bridge: str,
    vlan: int | str | None = None,
    bond: str | None = None,
    nics: list[str] | None = None,
    options: Struct | None = None,
) -> Reply:
    """Remove one network, and its bond when nothing else is on it. With `options.force` also when guests use it."""
    return _change(daemon, bridge, "", vlan, bond, nics, options)


@verb("setSafeNetworkConfig", cli="network keep")
def set_safe_network_config(daemon: Daemon) -> Reply:
    """Have the present networks come back when the host is booted. Until then, `netConfigDirty` is 'True' after a change."""
    daemon.networks.set_safe()
    return {}


@verb("getRoute", cli="network route")
def get_route(daemon: Daemon, ip: str) -> Reply:
    """Return the `gateway` through which an address is reached, '' when it is on a network of this host, or out of reach."""
    return {"gateway": daemon.networks.route_to(ip)}


@verb("vdsmd.planNetworks", cli="network plan")
def plan_networks(daemon: Daemon, networks: Struct, bondings: Struct = {}, options: Struct = {}) -> Reply:  # noqa: B006 (only read)
    """Return, in words, the `steps` that setupNetworks would take now with these arguments. Changes nothing."""
    return {"steps": daemon.networks.planned(networks, bondings, options)}


def _change(
    daemon: Daemon,
    old: str,
    new: str,
    vlan: int | str | None,
    bond: str | None,
    nics: list[str] | None,
    options: dict[str, Any] | None,
) -> Reply:
    daemon.networks.one(old, new, vlan, bond or "", [nic for nic in nics or [] if nic], options or {})
    return {}
