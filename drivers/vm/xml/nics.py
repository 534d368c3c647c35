"""The elements of nics.

It promises that a nic which is plugged into nothing is there for the guest all the same. Imported after the start.
"""

from __future__ import annotations

import logging

from drivers.errors import MissingParameter
from drivers.vm.conf import devices as views
from drivers.vm.xml.elements import Element, Site, add

log = logging.getLogger("vm")


def interface(parent: Element, nic: views.Interface, site: Site) -> Element:
    element, plugged = _network_end(parent, nic, site)
    if nic.mac_addr:
        add(element, "mac", address=nic.mac_addr)
    add(element, "model", type="virtio" if nic.nic_model == "pv" else nic.nic_model)
    if nic.custom.queues and _can(not site.taps, "has queues for nics", nic, site):
        add(element, "driver", name="vhost", queues=nic.custom.queues)
    ours = site.taps and _bridged(nic)  # whoever made its tap has filtered and limited it
    other_filter = nic.filter and not (ours and nic.filter == views.NO_SPOOFING)
    if other_filter and _can(site.net_filters, "has network filters", nic, site):
        add(element, "filterref", filter=nic.filter)
    add(element, "link", state="up" if plugged and nic.link_active else "down")
    if nic.boot_order is not None:
        add(element, "boot", order=nic.boot_order)
    if _limits(nic.spec_params) and not ours and _can(site.net_limits, "limits the traffic of nics", nic, site):
        _bandwidth(element, nic.spec_params)
    return element


def _can(able: bool, what: str, nic: views.Interface, site: Site) -> bool:
    if not able:
        log.warning("No libvirt here %s vm=%s nic=%s", what, site.vm_id, nic.mac_addr)
    return able


def _network_end(parent: Element, nic: views.Interface, site: Site) -> tuple[Element, bool]:
    """The element with its end on the host's side, and whether it is plugged in. What is not plugged in gets QEMU's
    user-mode network with the link down: a domain has no interface without another end."""
    if nic.device == "ethernet" or (site.taps and _bridged(nic)):
        tap = nic.tap if nic.device == "ethernet" else nic.name
        if not tap:
            raise MissingParameter(name="tap")
        element = add(parent, "interface", type="ethernet")
        add(element, "target", dev=tap, managed="no")
    elif nic.device == "user" or not nic.network:
        element = add(parent, "interface", type="user")
    else:
        element = add(parent, "interface", type="bridge")
        add(element, "source", bridge=nic.network)
    return element, bool(nic.network) or nic.device in ("ethernet", "user")


def _bridged(nic: views.Interface) -> bool:
    return bool(nic.network) and nic.device in ("", "bridge")


def _limits(said: views.InterfaceSpec) -> dict[str, views.Bandwidth]:
    ways = {"inbound": said.inbound, "outbound": said.outbound}
    return {way: limit for way, limit in ways.items() if limit.average}


def _bandwidth(element: Element, said: views.InterfaceSpec) -> None:
    bandwidth = add(element, "bandwidth")
    for way, limit in _limits(said).items():
        add(bandwidth, way, average=limit.average, peak=limit.peak or None, burst=limit.burst or None)
