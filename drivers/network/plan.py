"""Plan: the steps from what the kernel has to what a configuration wants.

It promises that nothing but the devices of the two configurations is touched; that a plan leads to a state for which the plan
is empty; and that what is the same in both configurations is only repaired, so that guests of one network do not notice a
change of another. Pure: it asks nobody.
"""

from __future__ import annotations

from ipaddress import ip_address, ip_interface

from drivers.network.devices import Device, devices
from drivers.network.draft import Draft, same
from drivers.network.kernel import DEFAULT, DEFAULT6, MAIN, Kernel, Link, Route
from drivers.network.model import Configuration, Network, Qos, Step

METRIC6 = 512
"""Of an IPv6 default route of ours: less than that of one from a router advertisement (1024)."""

Devices = dict[str, Device]


def plan(kernel: Kernel, before: Configuration, after: Configuration) -> list[Step]:
    """Return what must be done, in order. Devices whose nic is not there are left out: there is nothing to do about them."""
    draft = Draft(kernel)
    old, new = devices(before), _possible(draft, devices(after))
    for name in _both(old, new):
        if _has_client(old.get(name)) and not _has_client(new.get(name)):
            draft.stop_client(name)
    for name in reversed(_both(old, new)):
        _strip(draft, name, old.get(name), new.get(name))
    _end_sharing(draft, old, new)
    _take_apart(draft, old, new)
    _give_back(draft, before, old, new)
    _put_together(draft, old, new)
    _set_mtus(draft, new)
    for device in new.values():
        draft.set_up(device.name)
    for device in new.values():
        _address(draft, device)
    for name, device in new.items():
        draft.share(name, device.shares, _shares(old.get(name)))
    return draft.steps


def _possible(draft: Draft, wanted: Devices) -> Devices:
    """Leave out nics that are not there, devices that others have made meanwhile, and what is on them or attached to them."""
    there = {name for name, device in wanted.items() if _can_be(device, draft.find(name))} | {""}
    for device in wanted.values():
        others = [link.mtu for link in draft.kernel.above(device.name) if not link.ours]
        bond = wanted.get(device.master) if device.kind == "nic" else None
        device.mtu = bond.mtu if bond and bond.kind == "bond" else max(device.mtu, *others, 0)  # or theirs would be cut
    return {
        name: device
        for name, device in wanted.items()
        if name in there and device.below in there and device.master in there
    }


def _can_be(device: Device, link: Link | None) -> bool:
    if device.kind == "nic":
        return link is not None
    return link is None or (link.ours and link.kind == device.kind)


def _has_client(device: Device | None) -> bool:
    return device is not None and device.network is not None and device.network.dhcp


# Addresses and routes that go


def _strip(draft: Draft, name: str, old: Device | None, new: Device | None) -> None:
    """Take from a link what it will not carry any more: all that it had when it becomes a port or the carrier of a network, and
    else only what our network had given it."""
    link = draft.find(name)
    if link is None:
        return
    was = old.network if old is not None else None
    will = new.network if new is not None else None
    if new is not None and new.master and (old is None or old.master != new.master):
        going = list(link.addresses)
    elif will is not None and will != was:
        going = [address for address in link.addresses if not _stays(will, link, address)]
    elif will is None and was is not None:
        going = [address for address in link.addresses if _was_given(was, link, address)]
    else:
        return
    for route in [route for route in draft.kernel.routes_of(name) if not _leads(route, name, link, going, was, will)]:
        draft.delete_route(route)
    for address in reversed(going):
        if address in link.addresses:
            draft.delete_address(name, address)


def _stays(network: Network, link: Link, address: str) -> bool:
    """Whether a link that begins to carry the network keeps an address."""
    if address in (network.address, network.address6):
        return True
    by_itself = network.autoconf6 if ":" in address else network.dhcp
    return by_itself and link.addresses[address].passing


def _was_given(network: Network, link: Link, address: str) -> bool:
    return address in (network.address, network.address6) or (
        link.addresses[address].passing and (network.autoconf6 if ":" in address else network.dhcp)
    )


def _leads(route: Route, name: str, link: Link, going: list[str], was: Network | None, will: Network | None) -> bool:
    """Whether a route is still wanted, and leads anywhere, when these addresses have gone."""
    if any(same(route, wanted) for wanted in routes(name, will)):
        return True
    if route.is_default and will is not None and not _brings_routes(will, route):
        return False
    if any(same(route, ours) for ours in routes(name, was)):
        return False
    left = [ip_interface(address) for address in link.addresses if address not in going]
    left += [ip_interface(address) for address in (will.address, will.address6) if address] if will else []
    if not route.gateway:
        return bool(left) and route.source not in {address.partition("/")[0] for address in going}
    gateway = ip_address(route.gateway)
    return any(gateway in each.network or (gateway.is_link_local and each.version == 6) for each in left)


def _brings_routes(network: Network, route: Route) -> bool:
    """Whether routes come by themselves where the network's addresses do."""
    return network.dhcp if route.destination == DEFAULT else network.autoconf6


# Devices


def _end_sharing(draft: Draft, old: Devices, new: Devices) -> None:
    """Before the links go, and while it can be undone."""
    for name in old:
        if draft.find(name) is not None and not _shares(new.get(name)):
            draft.share(name, {}, _shares(old[name]))


def _shares(device: Device | None) -> dict[str, Qos]:
    return device.shares if device is not None else {}


def _take_apart(draft: Draft, old: Devices, new: Devices) -> None:
    known = old.keys() | new.keys()
    # Backwards, so that what undoes it goes forwards: a bond takes its MAC from the first that is attached.
    for name in reversed(_both(old, new)):
        link, wanted = draft.find(name), new.get(name)
        if link and link.master in known and link.master != (wanted.master if wanted else ""):
            draft.detach(name)
    for name, device in sorted(old.items(), key=lambda item: -item[1].rank):
        link = draft.find(name)
        if device.kind != "nic" and name not in new and link is not None and link.ours:
            draft.delete(name)


def _both(old: Devices, new: Devices) -> list[str]:
    return [*old, *(name for name in new if name not in old)]


def _give_back(draft: Draft, before: Configuration, old: Devices, new: Devices) -> None:
    """Leave nics that we do not use any more as we have found them."""
    for name, found in before.found.items():
        link = draft.find(name)
        if name in new or name not in old or link is None:
            continue
        draft.set_mtu(name, found.mtu)
        draft.set_autoconf(name, found.autoconf6)
        if found.up:
            draft.set_up(name)
        else:
            draft.set_down(name)


def _put_together(draft: Draft, old: Devices, new: Devices) -> None:
    known = old.keys() | new.keys()
    for name, device in new.items():
        link = draft.find(name)
        if device.kind != "nic" and link is None:
            draft.create(device)
        elif link is not None and link.ours and device.kind == "bridge":
            draft.set_stp(name, device.stp)
        elif link is not None and link.ours and device.kind == "bond":
            draft.set_options(name, device.options)
    for name, device in new.items():
        link = draft.kernel.links[name]
        if device.master and link.master != device.master and link.master in {"", *known}:
            draft.attach(name, device.master)


def _set_mtus(draft: Draft, new: Devices) -> None:
    """Lower from the top and raise from the wire, so that none is ever greater than that of what it is on."""
    for device in reversed(new.values()):
        if draft.kernel.links[device.name].mtu > device.mtu:
            draft.set_mtu(device.name, device.mtu)
    for device in new.values():
        draft.set_mtu(device.name, device.mtu)


# Addresses and routes that come


def _address(draft: Draft, device: Device) -> None:
    name, network = device.name, device.network
    if device.master:
        draft.set_autoconf(name, False)
    if network is None:
        return
    draft.set_autoconf(name, network.autoconf6)
    for address in filter(None, (network.address, network.address6)):
        draft.add_address(name, address)
    for route in routes(name, network):
        draft.add_route(route)
    if network.dhcp:
        draft.start_client(name, default_route=network.default_route)


def routes(link: str, network: Network | None) -> list[Route]:
    """Return the routes that a network asks for."""
    if network is None or not network.default_route:
        return []
    ways = [(DEFAULT, network.gateway, 0), (DEFAULT6, network.gateway6, METRIC6)]
    return [Route(destination=to, gateway=via, link=link, table=MAIN, metric=metric) for to, via, metric in ways if via]
