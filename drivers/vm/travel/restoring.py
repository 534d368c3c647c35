"""Restoring: a machine goes on from a saved memory. In workers. Imported after the first answer.

It promises that the memory is left as it is, whatever comes of it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from drivers.errors import Failed, Invalid
from drivers.vm.changes.images import Images
from drivers.vm.contract import truth
from drivers.vm.hooked import Hooked
from drivers.vm.hypervisor.link import Link
from drivers.vm.travel.memory import is_whole, places_of, read_params
from drivers.vm.xml.transfer import relocated

Conf = dict[str, Any]

HANDLE = "hiberVolHandle"
STATE = "restoreState"


def remembered(images: Images, params: Conf) -> Conf:
    """Return the parameters of a machine that is to be restored: what was kept with its memory wins over what a caller says.
    Those of others are returned as they are. Raises Invalid, ImageUnavailable, Failed."""
    handle = params.get(HANDLE) or ""
    if not isinstance(handle, str):
        raise Invalid(what=HANDLE, reason="expected a string")
    if not handle:
        return params
    places = places_of(images, handle)
    if not places.params:
        return params
    kept = read_params(places.params)
    if str(kept.get("vmId", "")).lower() != str(params.get("vmId", "")).lower():
        raise Invalid(what=HANDLE, reason="it is the memory of another virtual machine")
    ours = {key: params[key] for key in (HANDLE, STATE, "restoreFromSnapshot") if key in params}
    return {**params, **kept, **ours}


class Restoring:
    """One of them."""

    def __init__(self, images: Images, hooked: Hooked, conf: Conf, address_on: Callable[[str], str]) -> None:
        self._images = images
        self._hooked = hooked
        self._conf = conf
        self._address_on = address_on
        self._path = ""

    def definition(self, link: Link, *, channels_dir: str, console: str) -> str:
        """Return the definition of the domain. Raises Failed when the memory is not whole."""
        conf, images = self._conf, self._images
        self._path = places_of(images, str(conf.get(HANDLE) or conf[STATE])).memory
        if not is_whole(self._path):
            raise Failed(action="restoring", reason=f"{self._path} holds no memory that was written to its end")
        disks = [device for device in conf["devices"] if device.get("type") == "disk" and device.get("name")]
        named = [disk for disk in disks if any(disk.get(key) for key in ("path", "GUID", "UUID", "volumeID"))]
        paths = {str(disk["name"]): images.prepare(disk) for disk in named}
        saved = link.jobs.saved(self._path)
        displays = {} if link.row.networks else self._displays()
        xml = relocated(
            saved, vm_id=conf["vmId"], channels_dir=channels_dir, console=console, disks=paths, displays=displays
        )
        return self._run("before_vm_dehibernate", xml)

    def restore(self, link: Link, xml: str, *, paused: bool) -> None:
        link.jobs.restore(xml, self._path, paused=paused)

    def after(self, link: Link) -> None:
        """Tell the operator's scripts."""
        if self._hooked.any("after_vm_dehibernate"):
            self._run("after_vm_dehibernate", link.xml(self._conf["vmId"]))

    def _displays(self) -> dict[str, str]:
        """Return on which addresses of this host displays listen that are for one network."""
        displays = (device for device in self._conf["devices"] if device.get("type") == "graphics")
        networks = {str(d.get("device")): (d.get("specParams") or {}).get("displayNetwork") for d in displays}
        return {kind: self._address_on(str(network)) for kind, network in networks.items() if network}

    def _run(self, point: str, xml: str) -> str:
        extra = {"FROM_SNAPSHOT": str(truth(self._conf.get("restoreFromSnapshot", False)))}
        return self._hooked.over(point, self._conf, xml, extra)
