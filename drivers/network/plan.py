"""Plan: the steps from what the kernel has to what a configuration wants.

It promises that nothing but the devices of the two configurations is touched; that a plan leads to a state for which the plan
is empty; and that what is the same in both configurations is only repaired, so that guests of one network do not notice a
change of another. Pure: it asks nobody.
"""

from __future__ import annotations

from drivers.network.devices import Device, devices
from drivers.network.draft import Draft
from drivers.network.going import end_rules, stop_clients, strip
from drivers.network.kernel import Kernel, Link
from drivers.network.model import Configuration, Qos, Step
from drivers.network.options import CHOSEN, CLEARED, LINKS
from drivers.network.rates import Told
from drivers.network.ways import routes, rules

Devices = dict[str, Device]


def plan(kernel: Kernel, before: Configuration, after: Configuration) -> list[Step]:
    """Return what must be done, in order. Devices whose nic is not there are left out: there is nothing to do about them."""
    draft = Draft(kernel)
    old, new = devices(before), _possible(draft, devices(after))
    for name in _both(old, new):
        stop_clients(draft, name, old.get(name), new.get(name))
        end_rules(draft, name, old.get(name), new.get(name))
    again = []
    for name in reversed(_both(old, new)):
        again += strip(draft, name, old.get(name), new.get(name))
    _end_sharing(draft, old, new)
    _take_apart(draft, old, new)
    _give_back(draft, before, old, new)
    _put_together(draft, old, new)
    _set_mtus(draft, new)
    for device in new.values():
        draft.set_up(device.name)
    for device in new.values():
        _address(draft, device)
    for route in again:
        draft.add_again(route)
    for name, device in new.items():
        draft.share(name, device.shares, _shares(old.get(name)))
        draft.limit(name, device.rates, _rates(old.get(name)))
        _choose_slave(draft, device, old.get(name))
    return draft.steps


def _possible(draft: Draft, wanted: Devices) -> Devices:
    """Leave out nics that are not there, devices that others have made meanwhile, and what is on them or attached to them."""
    there = {name for name, device in wanted.items() if _can_be(device, draft.find(name))} | {""}
    for device in wanted.values():
        others = [link.mtu for link in draft.kernel.above(device.name) if not link.ours]
        bond = wanted.get(device.master) if device.kind == "nic" else None
        device.options = {key: value for key, value in device.options.items() if key not in LINKS or value in there}
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


# Devices


def _end_sharing(draft: Draft, old: Devices, new: Devices) -> None:
    """Before the links go, and while it can be undone."""
    for name in old:
        if draft.find(name) is None:
            continue
        if not _shares(new.get(name)):
            draft.share(name, {}, _shares(old[name]))
        if not _rates(new.get(name)):
            draft.limit(name, {}, _rates(old[name]))


def _shares(device: Device | None) -> dict[str, Qos]:
    return device.shares if device is not None else {}


def _rates(device: Device | None) -> Told:
    return device.rates if device is not None else {}


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
            draft.delete(name, device)


def _both(old: Devices, new: Devices) -> list[str]:
    return [*old, *(name for name in new if name not in old)]


def _give_back(draft: Draft, before: Configuration, old: Devices, new: Devices) -> None:
    """Leave nics that we do not use any more as we have found them."""
    for name, found in before.found.items():
        link = draft.find(name)
        if name in new or name not in old or link is None:
            continue
        draft.set_mtu(name, found.mtu)
        draft.set_autoconf(name, routes=found.advertised6 or found.autoconf6, addresses=found.autoconf6)
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
            draft.set_options(name, CLEARED | _lasting(device))
    for name, device in new.items():
        link = draft.kernel.links[name]
        if device.master and link.master != device.master and link.master in {"", *known}:
            draft.attach(name, device.master)


def _lasting(device: Device) -> dict[str, str]:
    return {name: value for name, value in device.options.items() if name != CHOSEN}


def _choose_slave(draft: Draft, device: Device, old: Device | None) -> None:
    """Only when it is asked for anew: the kernel goes on to choose by itself."""
    chosen = device.options.get(CHOSEN, "")
    if chosen and (old is None or old.options.get(CHOSEN) != chosen):
        draft.set_options(device.name, {CHOSEN: chosen})


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
        draft.set_autoconf(name, routes=False, addresses=False)
    if network is None:
        return
    draft.set_autoconf(name, routes=network.autoconf6 or network.dhcp6, addresses=network.autoconf6)
    for address in filter(None, (network.address, network.address6)):
        draft.add_address(name, address)
    for route in routes(name, network):
        draft.add_route(route)
    for rule in rules(name, network):
        draft.add_rule(rule)
    if network.dhcp:
        draft.start_client(name, default_route=network.default_route)
    if network.dhcp6:
        draft.start_client6(name)
