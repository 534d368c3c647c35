"""Verbs about this host: is it there, what can it do, how does it fare, what of it can guests have."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from drivers.errors import Invalid, Unsupported
from vdsmd.api import codes
from vdsmd.api.table import TABLE, Reply, verb
from vdsmd.api.wire import BoolLike, Number, Struct

if TYPE_CHECKING:
    from vdsmd.daemon import Daemon

log = logging.getLogger("api")


@verb("ping", quick=True, alive=True, cli="host ping")
def ping(daemon: Daemon) -> Reply:
    """Answer, to show that the daemon is there."""
    return {}


@verb("getVdsCapabilities", alive=True, cli="host caps", hook="get_caps")
def get_vds_capabilities(daemon: Daemon) -> Reply:
    """Return what this host can do and has.

    `info` holds processors, memory, network devices, releases, identity, and what guests may be made of.
    """
    # What an engine takes for granted of a host that claims it is that the verb is there.
    claims = {name: str(verb in TABLE).lower() for name, verb in (("liveSnapshot", "snapshot"), ("liveMerge", "merge"))}
    ours = {"hooks": daemon.hooks.listing(), "storageLeases": daemon.storage.promised()}
    return {"info": {**daemon.host.capabilities(daemon.last_client()), **claims, **ours}}


@verb("getVdsStats", quick=True, cli="host stats", hook="get_stats")
def get_vds_stats(daemon: Daemon) -> Reply:
    """Return how this host fares.

    `info` holds load, memory, network rates and counts of virtual machines, sampled every 15 seconds.
    `generationID` changes when the daemon has started anew, and stays when it has only re-executed itself.
    """
    return {"info": {**daemon.host.statistics(), "storageDomains": daemon.storage.vitals(codes.number)}}


@verb("getVdsHardwareInfo", cli="host hardware")
def get_vds_hardware_info(daemon: Daemon) -> Reply:
    """Return what the firmware says about this machine.

    Keys of `info` that it does not tell are absent; when it tells none, the answer is code 57.
    """
    return {"info": daemon.host.hardware()}


@verb("setLogLevel", quick=True, cli="host log-level")
def set_log_level(daemon: Daemon, level: int | str, name: str = "") -> Reply:
    """Log only messages of this severity and above.

    `level` is 10 (DEBUG), 20 (INFO), 30 (WARNING), 40 (ERROR) or 50 (CRITICAL), as a number, a string or a name. `name`
    limits it to the logger of one role. Forgotten at the next re-exec or start, when the configuration's `log_level`
    is in force again.
    """
    logging.getLogger(name or None).setLevel(_severity(level))
    log.warning("Log level set level=%s logger=%s", level, name or "all")
    return {}


@verb("hostdevListByCaps", hook="hostdev_list_by_caps", cli="host devices")
def hostdev_list_by_caps(daemon: Daemon, caps: list[str] | None = None) -> Reply:
    """Return the devices of this host, such as guests could be given.

    `deviceList` has by name a struct with `params`: `capability` (pci, usb_device, scsi, scsi_host, scsi_target, net, or system
    for the machine itself), `parent` (the name of another) and, where there is one, vendor_id, product_id, vendor, product,
    iommu_group, totalvfs and physfn.
    `caps` limits the list to these capabilities; empty, it does not.
    """
    return {"deviceList": daemon.host.devices(caps or [])}


@verb("hostdevChangeNumvfs", key="device_name", timeout=130.0, cli="host set-vfs")
def hostdev_change_numvfs(daemon: Daemon, device_name: str, numvfs: Number) -> Reply:
    """Have a network card show `numvfs` virtual functions.

    Those that are there are taken away first, which fails when one is in use. `device_name` is as in hostdevListByCaps.
    """
    daemon.helper.call("hostdev.set_numvfs", timeout=125.0, device=device_name, count=numvfs)
    return {}


@verb("registerSecrets", cli="host register-secrets")
def register_secrets(daemon: Daemon, secrets: list[Struct], clear: BoolLike = False) -> Reply:
    """Have libvirt keep secrets that disks of virtual machines need.

    Each has `uuid`, by which disks name it, `usageType` (ceph, iscsi or volume), `usageID`, `password` (in base64) and
    perhaps a `description`. With `clear`, all that were registered before are forgotten first. They are kept until libvirt's
    daemon ends; where libvirt is part of this daemon it keeps none, and the answer is code 73.
    """
    from vdsmd.host import secrets as deeds  # deferred: `vdsmd.deferred` has it imported by now

    deeds.register(daemon.vms.secrets, secrets, clear=clear)
    return {}


@verb("unregisterSecrets", cli="host unregister-secrets")
def unregister_secrets(daemon: Daemon, uuids: list[str]) -> Reply:
    """Have libvirt forget secrets. Those that there are none of are passed over."""
    from vdsmd.host import secrets as deeds  # deferred: as above

    deeds.unregister(daemon.vms.secrets, uuids)
    return {}


@verb("prepareForShutdown", quick=True, cli="host stop-daemon")
def prepare_for_shutdown(daemon: Daemon) -> Reply:
    """Stop this daemon, and leave virtual machines running.

    Answers that are owed are given first.
    """
    log.warning("Asked to stop")
    daemon.leave()
    return {}


class HaFailed(Invalid):
    wire = "haErr"


class NoHostedEngine(Unsupported):
    wire = "unavail"


@verb("setHaMaintenanceMode", quick=True, cli="host ha-maintenance")
def set_ha_maintenance_mode(daemon: Daemon, mode: str, enabled: bool) -> Reply:
    """Switch the maintenance of a hosted engine on or off.

    `mode` is global or local. This host runs no hosted engine's agent: the answer is code 40.
    """
    if mode.lower() not in ("global", "local"):
        raise HaFailed(what=f"maintenance mode {mode!r}", reason="expected global or local")
    raise NoHostedEngine(what="maintenance of a hosted engine", reason="its agent does not run on this host")


def _severity(level: int | str) -> int:
    text = str(level).strip()
    number = (
        int(text)
        if text.isascii() and text.isdigit() and len(text) < 4
        else logging.getLevelNamesMapping().get(text.upper(), 0)
    )
    if not logging.NOTSET < number <= logging.CRITICAL:
        raise Invalid(what=f"log level {level!r}", reason="expected a number from 1 to 50, or a name such as DEBUG")
    return number
