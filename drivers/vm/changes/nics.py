"""Network cards that are plugged in and out or changed, and passwords of displays."""

from __future__ import annotations

from typing import Any

from drivers.errors import Invalid, MissingParameter, NotBuilt
from drivers.vm.changes import lookup
from drivers.vm.changes.bench import Bench, Conf
from drivers.vm.changes.drives import unplug
from drivers.vm.contract import truth
from drivers.vm.deeds import shown
from drivers.vm.devices import InterfaceSpec, convert
from drivers.vm.errors import HotplugNicFailed, HotunplugNicFailed, UpdateDeviceFailed
from drivers.vm.params import new_device

Struct = dict[str, Any]


class Nics:
    """See the module. All calls raise NoSuchVm, MissingParameter, MigrationInProgress, NotResponding, and an error of their
    own."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench

    def hotplug(self, params: Struct) -> Conf:
        """Plug in the network card `nic`. Returns the machine. Raises HotplugNicFailed."""
        vm_id = lookup.text(params, "vmId")
        said = lookup.struct(params, "nic")
        with self._bench.work(vm_id, HotplugNicFailed, "plugging in a nic") as (machine, link):
            model = self._bench.settings.nic_model.split(",")[0]
            nic = new_device(machine.conf, said, "interface", nic_model=model)
            element = link.device_xml(machine.vm_id, nic, drive_cache="")
            with self._bench.change(machine, link, lambda conf: {**conf, "devices": [*conf["devices"], nic]}):
                link.devices.attach(machine.vm_id, element)
            return shown(machine)

    def hotunplug(self, params: Struct) -> Conf:
        """Plug out the network card `nic`. Returns the machine. Raises HotunplugNicFailed, also when the guest does not let
        go of it in time; should it do so later, that is noticed."""
        vm_id = lookup.text(params, "vmId")
        said = lookup.struct(params, "nic")
        with self._bench.work(vm_id, HotunplugNicFailed, "unplugging a nic") as (machine, link):
            nic = lookup.nic(machine.conf, said)
            unplug(self._bench, machine, link, nic, HotunplugNicFailed)
            return shown(machine)

    def update(self, vm_id: str, params: Struct) -> Struct:
        """Change a device. Returns {'vmList': {'devices': [the nic]}} for a nic, nothing for a display.
        Raises UpdateDeviceFailed, and NotBuilt for devices of other kinds."""
        kind = lookup.text(params, "deviceType")
        if kind == "interface":
            return {"vmList": {"devices": [self._update_nic(vm_id, params)]}}
        if kind == "graphics":
            self._update_display(vm_id, params)
            return {}
        raise NotBuilt(verb=f"Changing a device of the kind {kind!s:.40}")

    def _update_nic(self, vm_id: str, params: Struct) -> Struct:
        alias = lookup.text(params, "alias")
        with self._bench.work(vm_id, UpdateDeviceFailed, "changing a nic") as (machine, link):
            if params.get("portMirroring"):
                raise Invalid(what="portMirroring", reason="mirroring networks to a nic is not built yet")
            old = lookup.nic(machine.conf, {"alias": alias})
            changes = _changes(old, params)
            plugged = bool(changes["network"]) or old.get("device") in ("ethernet", "user")
            limits = convert(changes["specParams"], InterfaceSpec, "specParams") if "specParams" in changes else None
            with self._bench.change(machine, link, lambda conf: lookup.replaced(conf, old, **changes)):
                link.devices.update_nic(
                    machine.vm_id,
                    old,
                    active=plugged and truth(changes["linkActive"]),
                    network=changes["network"] or None,
                    limits=limits,
                )
            return lookup.nic(machine.conf, {"alias": alias})

    def _update_display(self, vm_id: str, params: Struct) -> None:
        kind, password = lookup.text(params, "graphicsType"), params.get("password")
        if not isinstance(password, str):
            raise MissingParameter(name="password")
        if params.get("ttl", "") == "":
            raise MissingParameter(name="ttl")
        action = params.get("existingConnAction", "disconnect")
        with self._bench.work(vm_id, UpdateDeviceFailed, "setting a ticket") as (machine, link):
            ttl = convert(params["ttl"], int, "ttl")
            link.set_ticket(machine.vm_id, password, ttl, action, kind=kind)


def _changes(old: Struct, params: Struct) -> Struct:
    """What of a nic becomes otherwise: what is not said stays."""
    for name, kinds in (("linkActive", (bool, str)), ("network", (str,)), ("specParams", (dict,)), ("custom", (dict,))):
        if name in params and not isinstance(params[name], kinds):
            raise Invalid(what=name, reason="it is of another type than expected")
    said: Struct = {key: params[key] for key in ("specParams", "custom") if key in params}
    return {
        "linkActive": params.get("linkActive", old.get("linkActive", True)),
        "network": params.get("network", old.get("network", "")),
        **said,
    }
