"""Migration, seen from where a machine leaves: the other daemon is asked to expect it, and libvirt moves it, peer to peer.

It promises that the other side is only ever asked to let go of what has not arrived there, and that a machine which has
gone is said to have arrived only if libvirt or the other daemon says so.
"""

from __future__ import annotations

import logging
import time
from typing import Any

import libvirt
import msgspec

from drivers.errors import DriverError, Invalid, MissingParameter
from drivers.vm.contract import MIGRATED, MISSING, Ending, Status, truth
from drivers.vm.desk import Desk
from drivers.vm.errors import MigrationFailed, PeerRefused, PeerUnreachable, TransientDisk
from drivers.vm.hypervisor.link import Link
from drivers.vm.machine import Contact, Journey, Machine, Way
from drivers.vm.travel.carrier import Order
from drivers.vm.travel.departures import Departures

log = logging.getLogger("vm")

Struct = dict[str, Any]

NO_VM = 1
PATIENCE = 30.0
"""Seconds that the other daemon may take over a question."""
FLAGS = {
    "abortOnError": libvirt.VIR_MIGRATE_ABORT_ON_ERROR,
    "tunneled": libvirt.VIR_MIGRATE_TUNNELLED,
    "compressed": libvirt.VIR_MIGRATE_COMPRESSED,
    "autoConverge": libvirt.VIR_MIGRATE_AUTO_CONVERGE,
}
DEFAULTS = {"abortOnError": True}
_LARGEST = 10**6


class Migration:
    """A kind of departure (`drivers.vm.travel.departures.Kind`), and how it begins. All of it in workers."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def begin(self, departures: Departures, params: Struct) -> None:
        """Have a machine leave as `params` say. Raises NoSuchVm, OnItsWay, MissingParameter, Invalid, TransientDisk,
        MigrationFailed, HypervisorDown."""
        machine = self._desk.running(str(params.get("vmId", "")))
        journey = journey_of(params)
        if any(disk.get("shared") == "transient" for disk in machine.conf["devices"]):
            raise TransientDisk(vm=machine.vm_id, reason="a disk is transient: it cannot leave this host")
        link = self._desk.connection.require()
        if not link.row.migrates:
            why = f"under {link.uri.split('?')[0]} libvirt works inside of this daemon, and cannot speak with another host's"
            raise MigrationFailed(vm=machine.vm_id, reason=why)
        departures.begin(machine, journey)

    def prepare(self, machine: Machine, link: Link) -> Order:
        journey = self._journey(machine)
        xml = link.jobs.migratable(machine.vm_id)
        given = self._desk.hooked.over("before_vm_migrate_source", machine.conf, xml)
        self._desk.hooked.over_devices("before_device_migrate_source", machine.conf, given)
        asked = {
            **machine.conf,
            "_srcDomXML": given,
            "migrationDest": "libvirt",
            "elapsedTimeOffset": time.time() - (machine.started or time.time()),
        }
        patience = self._desk.settings().migration_listener_timeout + PATIENCE
        self._contact(machine, Contact.ASKED)
        try:
            reply = self._desk.peer(journey.peer).call("migrationCreate", asked, timeout=patience)
        except DriverError as error:
            if isinstance(error, PeerUnreachable):
                self._contact(machine, Contact.NONE)  # nothing was sent
            raise MigrationFailed(vm=machine.vm_id, reason=error) from error
        self._contact(machine, Contact.AGREED)
        theirs = reply.get("params")
        changed = str(theirs.get("_dstDomXML", "")) if isinstance(theirs, dict) else ""
        return self._order(link, machine, journey, xml, changed or (given if given != xml else ""))

    def ending(self, machine: Machine) -> Ending | None:
        journey = machine.journey
        if journey is None or not journey.peer:
            return MISSING
        try:
            status = self._there(machine, journey)
        except DriverError as error:
            log.warning(
                "It is not known whether a machine has arrived vm=%s peer=%s error=%s",
                machine.vm_id,
                journey.peer,
                error,
            )
            return None
        if status == Status.MIGRATION_DESTINATION:
            return None
        return MISSING if status in ("", Status.DOWN) else MIGRATED

    def failed(self, machine: Machine, journey: Journey) -> None:
        if not journey.peer or journey.contact is Contact.NONE:
            return
        status = self._there(machine, journey)
        # One that has ended there may be another's, if they never agreed to expect ours.
        if status == Status.MIGRATION_DESTINATION or (status == Status.DOWN and journey.contact is Contact.AGREED):
            self._desk.peer(journey.peer).call("destroy", machine.vm_id, timeout=4 * PATIENCE)
        elif status:
            log.error(
                "A machine that did not leave is there, too vm=%s peer=%s status=%s",
                machine.vm_id,
                journey.peer,
                status,
            )

    def left(self, machine: Machine, journey: Journey, xml: str) -> None:
        self._desk.hooked.over_devices("after_device_migrate_source", machine.conf, xml)
        self._desk.hooked.over("after_vm_migrate_source", machine.conf, xml)

    def _there(self, machine: Machine, journey: Journey) -> str:
        """Return the status that the machine has there, '' when there is none. Raises PeerUnreachable, PeerSilent."""
        try:
            reply = self._desk.peer(journey.peer).call("list", False, [machine.vm_id], timeout=PATIENCE)
        except PeerRefused as error:
            if error.fields.get("code") == NO_VM:
                return ""
            raise
        found = [vm for vm in reply.get("vmList", []) if str(vm.get("vmId", "")).lower() == machine.vm_id]
        return str(found[0].get("status", "")) if found else ""

    def _order(self, link: Link, machine: Machine, journey: Journey, xml: str, theirs: str) -> Order:
        host = host_of(journey.peer)
        scheme = "qemu+tls" if self._desk.settings().secure else "qemu+tcp"
        params: dict[str, str | int] = {}
        flags = libvirt.VIR_MIGRATE_PEER2PEER | libvirt.VIR_MIGRATE_LIVE
        for name, flag in FLAGS.items():
            if journey.options.get(name, DEFAULTS.get(name)):
                flags |= flag
        if not flags & libvirt.VIR_MIGRATE_TUNNELLED:
            params[libvirt.VIR_MIGRATE_PARAM_URI] = f"tcp://{journey.options.get('dstqemu') or host}"
        bandwidth = journey.bandwidth or int(self._desk.settings().migration_max_bandwidth)
        if bandwidth:
            params[libvirt.VIR_MIGRATE_PARAM_BANDWIDTH] = bandwidth
        if theirs:
            params[libvirt.VIR_MIGRATE_PARAM_DEST_XML] = theirs
        if address := journey.options.get("consoleAddress"):
            kind = "vnc" if machine.conf.get("display") == "vnc" else "spice"
            params[libvirt.VIR_MIGRATE_PARAM_GRAPHICS_URI] = f"{kind}://{address}"
        return Order(
            uri=link.uri,
            vm_id=machine.vm_id,
            deed="migrate",
            target=f"{scheme}://{host}/system",
            params=params,
            flags=flags,
            xml=xml,
        )

    def _contact(self, machine: Machine, contact: Contact) -> None:
        with self._desk.machines.lock:
            if machine.journey is not None:
                self._desk.machines.update(machine, journey=msgspec.structs.replace(machine.journey, contact=contact))

    def _journey(self, machine: Machine) -> Journey:
        if machine.journey is None:
            raise MigrationFailed(vm=machine.vm_id, reason="it is on no way")
        return machine.journey


def host_of(peer: str) -> str:
    """Return the host of a peer, as it stands in a uri."""
    if peer.startswith("["):
        return peer.partition("]")[0] + "]"
    return peer.partition(":")[0]


def bracketed(address: str) -> str:
    """Return an address as it stands in a uri: of IPv6, callers may leave the brackets out."""
    return f"[{address}]" if address.count(":") > 1 and "[" not in address else address


def journey_of(params: Struct) -> Journey:
    """Return what a caller says of a migration. Raises MissingParameter, Invalid."""
    peer = params.get("dst", "")
    if not isinstance(peer, str) or not peer:
        raise MissingParameter(name="dst")
    peer = bracketed(peer)
    if any(sign in peer for sign in "/@?# \t\n") or not host_of(peer).strip("[]"):
        raise Invalid(what="dst", reason="expected a host, or host:port")
    if (method := params.get("method", "online")) != "online":
        raise Invalid(what="method", reason=f"only 'online' is known: {method!s:.40}")
    options: dict[str, bool | str] = {name: truth(params[name]) for name in FLAGS if params.get(name, "") != ""}
    for name in ("dstqemu", "consoleAddress"):
        text = params.get(name, "")
        if not isinstance(text, str) or any(sign in text for sign in "/@?# \t\n"):
            raise Invalid(what=name, reason="expected an address")
        options |= {name: bracketed(text)} if text else {}
    return Journey(
        way=Way.OUT,
        peer=peer,
        downtime=_figure(params, "downtime"),
        bandwidth=_figure(params, "maxBandwidth"),
        options=options,
    )


def _figure(params: Struct, name: str) -> int:
    value = params.get(name, "")
    if value == "":
        return 0
    text = str(value)
    if isinstance(value, bool) or not text.isascii() or not text.isdigit() or int(text) > _LARGEST:
        raise Invalid(what=name, reason="expected a number that is not negative")
    return int(text)
