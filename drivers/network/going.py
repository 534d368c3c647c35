"""Going: what a link will not carry any more when a plan has been carried out: clients, rules, routes and addresses.

It promises that what others have given a link that we only pass by stays; and to tell which routes the kernel drops for want
of an address, though they are still wanted. Pure.
"""

from __future__ import annotations

from ipaddress import ip_address, ip_interface

from drivers.network.devices import Device
from drivers.network.draft import Draft, same
from drivers.network.kernel import BY_DHCP, DEFAULT, Link, Route
from drivers.network.model import Network
from drivers.network.ways import routes, rules


def network_of(device: Device | None) -> Network | None:
    return device.network if device is not None else None


def stop_clients(draft: Draft, name: str, old: Device | None, new: Device | None) -> None:
    was, will = network_of(old), network_of(new)
    if was is not None and was.dhcp and not (will is not None and will.dhcp):
        draft.stop_client(name)
    if was is not None and was.dhcp6 and not (will is not None and will.dhcp6):
        draft.stop_client6(name)


def end_rules(draft: Draft, name: str, old: Device | None, new: Device | None) -> None:
    wanted = rules(name, network_of(new))
    for rule in rules(name, network_of(old)):
        if rule not in wanted:
            draft.delete_rule(rule)


def strip(draft: Draft, name: str, old: Device | None, new: Device | None) -> list[Route]:
    """Take from a link what it will not carry any more: all that it had when it becomes a port or the carrier of a network, and
    else only what our network had given it. Return the routes that it loses for want of an address, until it has the next."""
    link = draft.find(name)
    if link is None:
        return []
    was, will = network_of(old), network_of(new)
    if new is not None and new.master and (old is None or old.master != new.master):
        going = list(link.addresses)
    elif will is not None and will != was:
        going = [address for address in link.addresses if not _stays(will, link, address)]
    elif will is None and was is not None:
        going = [address for address in link.addresses if _was_given(was, link, address)]
    else:
        return []
    stays = [route for route in draft.kernel.routes_of(name) if _leads(route, name, link, going, was, will)]
    bare = _has_ip4(going) and not _has_ip4(_left(link, going))
    again = [route for route in stays if bare and ":" not in route.destination]
    for route in draft.kernel.routes_of(name):
        if route not in stays or route in again:
            draft.delete_route(route)
    for address in reversed(going):
        if address in link.addresses:
            draft.delete_address(name, address)
    return again


def _has_ip4(addresses: list[str]) -> bool:
    return any(":" not in address for address in addresses)


def _left(link: Link, going: list[str]) -> list[str]:
    """Return the addresses that stay: of one IPv4 network, the kernel may drop the later ones with one that goes."""
    order = list(link.addresses)
    gone = {(ip_interface(address).network, order.index(address)) for address in going if ":" not in address}
    return [
        address
        for address in order
        if address not in going
        and not any(ip_interface(address).network == network and order.index(address) > at for network, at in gone)
    ]


def _stays(network: Network, link: Link, address: str) -> bool:
    """Whether a link that begins to carry the network keeps an address."""
    if address in (network.address, network.address6):
        return True
    return link.addresses[address].passing and _comes_by_itself(network, address)


def _was_given(network: Network, link: Link, address: str) -> bool:
    return address in (network.address, network.address6) or (
        link.addresses[address].passing and _comes_by_itself(network, address)
    )


def _comes_by_itself(network: Network, address: str) -> bool:
    return (network.autoconf6 or network.dhcp6) if ":" in address else network.dhcp


def _leads(route: Route, name: str, link: Link, going: list[str], was: Network | None, will: Network | None) -> bool:
    """Whether a route is still wanted, and leads anywhere, when these addresses have gone."""
    if route.protocol == BY_DHCP and was is not None and was.dhcp and not (will is not None and will.dhcp):
        return False  # the client has taken it along
    if any(same(route, wanted) for wanted in routes(name, will)):
        return True
    if route.is_default and will is not None and not _brings_routes(will, route):
        return False
    if any(same(route, ours) for ours in routes(name, was)):
        return False
    left = [ip_interface(address) for address in link.addresses if address not in going]
    left += [ip_interface(address) for address in (will.address, will.address6) if address] if will else []
    if route.source in {address.partition("/")[0] for address in going}:
        return False
    if not route.gateway:
        return bool(left)
    gateway = ip_address(route.gateway)
    return any(gateway in each.network or (gateway.is_link_local and each.version == 6) for each in left)


def _brings_routes(network: Network, route: Route) -> bool:
    """Whether routes come by themselves where the network's addresses do."""
    return network.dhcp if route.destination == DEFAULT else network.autoconf6 or network.dhcp6
