"""Network cards that are plugged in and out or changed, and passwords of displays."""

from __future__ import annotations

from typing import Any

from drivers.errors import DriverError, Invalid, MissingParameter, NotBuilt, Unsupported
from drivers.vm.answers import shown
from drivers.vm.changes import lookup
from drivers.vm.changes.bench import Bench, Conf
from drivers.vm.changes.drives import unplug
from drivers.vm.conf.devices import InterfaceSpec
from drivers.vm.conf.params import new_device
from drivers.vm.conf.view import convert
from drivers.vm.contract import truth
from drivers.vm.errors import HotplugNicFailed, HotunplugNicFailed, UpdateDeviceFailed
from drivers.vm.hypervisor.link import Link
from drivers.vm.machine import Machine

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
            nic = self._bench.belongings.plug(machine.vm_id, nic, link.row)
            try:
                self._plug(machine, link, nic)
            except DriverError:
                self._bench.belongings.tidy(machine)
                raise
            plugged = [device for device in machine.conf["devices"] if lookup.same(device, nic)]
            self._bench.belongings.watch_all(machine.vm_id, plugged, link.row)
            return shown(machine)

    def _plug(self, machine: Machine, link: Link, nic: Struct) -> None:
        element = link.device_xml(machine.vm_id, nic, drive_cache="")
        script = self._bench.hooked.around_piece("nic_hotplug", machine.conf, nic.get("custom"))
        change = self._bench.change(machine, link, lambda conf: {**conf, "devices": [*conf["devices"], nic]})
        with script as amend, change:
            link.devices.attach(machine.vm_id, amend(element))

    def hotunplug(self, params: Struct) -> Conf:
        """Plug out the network card `nic`. Returns the machine. Raises HotunplugNicFailed, also when the guest does not let
        go of it in time; should it do so later, that is noticed."""
        vm_id = lookup.text(params, "vmId")
        said = lookup.struct(params, "nic")
        with self._bench.work(vm_id, HotunplugNicFailed, "unplugging a nic") as (machine, link):
            nic = lookup.nic(machine.conf, said)
            unplug(self._bench, machine, link, nic, HotunplugNicFailed)
            self._bench.belongings.tidy(machine)
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
            old = lookup.nic(machine.conf, {"alias": alias})
            changes = _changes(old, params)
            if changes.get("portMirroring") and not (old.get("name") and old.get("device") in ("", "bridge", None)):
                raise Unsupported(what="portMirroring", reason="a nic outside of all networks cannot watch any")
            self._update(machine, link, old, changes)
            return lookup.nic(machine.conf, {"alias": alias})

    def _update(self, machine: Machine, link: Link, old: Struct, changes: Struct) -> None:
        tapped = self._bench.belongings.has_tap(machine.vm_id, old, link.row)
        new = {**old, **changes}
        if not tapped:
            self._change(machine, link, old, changes, changes)
            if "portMirroring" in changes:
                self._bench.belongings.watch(new, old)
            return
        try:
            # Its tap stays, and goes to another bridge, or to none, and we limit it: libvirt knows nothing of that then.
            if any(new.get(key) != old.get(key) for key in ("network", "specParams", "portMirroring")):
                self._bench.belongings.move(new, old)
            without = {key: value for key, value in changes.items() if key != "specParams"}
            self._change(machine, link, old, {**without, "network": None}, changes)
        except DriverError:
            if not machine.intended:
                self._bench.belongings.move(lookup.nic(machine.conf, {"alias": old["alias"]}), new)
            raise

    def _change(self, machine: Machine, link: Link, old: Struct, asked: Struct, changes: Struct) -> None:
        """Have libvirt change what is asked, with the scripts around it."""
        plugged = bool(changes["network"]) or old.get("device") in ("ethernet", "user")
        limits = convert(asked["specParams"], InterfaceSpec, "specParams") if "specParams" in asked else None
        script = self._bench.hooked.around_piece(
            "update_device", machine.conf, changes.get("custom", old.get("custom"))
        )
        with script as amend, self._bench.change(machine, link, lambda conf: lookup.replaced(conf, old, **changes)):
            link.devices.update_nic(
                machine.vm_id,
                old,
                active=plugged and truth(changes["linkActive"]),
                network=asked["network"] or None,
                limits=limits,
                amend=amend,
            )

    def _update_display(self, vm_id: str, params: Struct) -> None:
        kind, password = lookup.text(params, "graphicsType"), params.get("password")
        if not isinstance(password, str):
            raise MissingParameter(name="password")
        if params.get("ttl", "") == "":
            raise MissingParameter(name="ttl")
        action, given = params.get("existingConnAction", "disconnect"), params.get("params")
        with self._bench.work(vm_id, UpdateDeviceFailed, "setting a ticket") as (machine, link):
            ttl = convert(params["ttl"], int, "ttl")
            with self._bench.hooked.around("vm_set_ticket", machine.conf, lambda: link.xml(machine.vm_id), given):
                link.set_ticket(machine.vm_id, password, ttl, action, kind=kind)


_KINDS: dict[str, tuple[type, ...]] = {
    "linkActive": (bool, str),
    "network": (str,),
    "specParams": (dict,),
    "custom": (dict,),
    "portMirroring": (list,),
}


def _changes(old: Struct, params: Struct) -> Struct:
    """What of a nic becomes otherwise: what is not said stays."""
    for name, kinds in _KINDS.items():
        if name in params and not isinstance(params[name], kinds):
            raise Invalid(what=name, reason="it is of another type than expected")
    said: Struct = {key: params[key] for key in ("specParams", "custom") if key in params}
    watched, watches = old.get("portMirroring") or [], params.get("portMirroring", old.get("portMirroring")) or []
    if not all(isinstance(bridge, str) for bridge in watches):
        raise Invalid(what="portMirroring", reason="expected names of networks")
    said |= {"portMirroring": watches} if watches != watched else {}
    return {
        "linkActive": params.get("linkActive", old.get("linkActive", True)),
        "network": params.get("network", old.get("network", "")),
        **said,
    }
