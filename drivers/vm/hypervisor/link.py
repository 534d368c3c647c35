"""Link: an open connection to libvirt, in the daemon's own words. Imported after the first answer, with all it needs.

It promises that every failure of libvirt leaves here as one of our errors, with libvirt's own text, and that events are told
as hints ("something happened to this machine") to a function that may be called from any thread. All calls may block, and
belong into worker threads.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterable
from typing import Any

import libvirt
import msgspec
from lxml import etree

from drivers.errors import DriverError, HypervisorDown, NoSuchVm
from drivers.vm.conf.params import Conf
from drivers.vm.contract import NO_ERROR, Identity, Virt
from drivers.vm.hypervisor import filters
from drivers.vm.hypervisor.agent import LinkAgent
from drivers.vm.hypervisor.blocks import LinkBlocks
from drivers.vm.hypervisor.counters import Counters
from drivers.vm.hypervisor.devices import LinkDevices
from drivers.vm.hypervisor.domains import Domains, meaning
from drivers.vm.hypervisor.events import EVENTS, Tell, register
from drivers.vm.hypervisor.jobs import LinkJobs
from drivers.vm.hypervisor.kinds import Hypervisor, candidates, domain_type, hypervisor_of
from drivers.vm.hypervisor.processes import qemu_of
from drivers.vm.hypervisor.secrets import LinkSecrets
from drivers.vm.hypervisor.tuning import LinkTuning
from drivers.vm.xml import domain as domxml
from drivers.vm.xml import pieces, running
from state.release import VERSION

__all__ = ["EVENTS", "Link", "Seen", "open_first"]

log = logging.getLogger("libvirt")

PAUSED = {libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PMSUSPENDED, libvirt.VIR_DOMAIN_CRASHED}


class Seen(msgspec.Struct, frozen=True):
    """A domain that exists, as it is now. `pause_code`: why it is paused, if for an error. `coming`: it is paused because it is
    between two hosts."""

    paused: bool
    pause_code: str = NO_ERROR
    coming: bool = False


def open_first(uri: str, lib_dir: str, virt_type: str, tell: Tell, broken: Callable[[str], None]) -> Link:
    """Return a link to `uri`; for 'auto', to the first that can be had. Raises the last one's error."""
    *others, last = candidates(uri, lib_dir)
    for other in others:
        try:
            return Link(other, virt_type, tell, broken)
        except DriverError as error:
            log.info("Not available: %s", error)
    return Link(last, virt_type, tell, broken)


class Link:
    """See the module. Raises from all calls: HypervisorDown, NoSuchVm (there is no such domain), NotResponding, Failed."""

    def __init__(self, uri: str, virt_type: str, tell: Tell, broken: Callable[[str], None]) -> None:
        self.uri = uri
        self.row: Hypervisor = hypervisor_of(uri)
        self.row.prepare(uri)
        self.domain_type = domain_type(self.row, virt_type)
        EVENTS.start()
        try:
            self._connection = libvirt.open(uri)
            register(self._connection, tell)
            if self.row.remote:
                self._connection.registerCloseCallback(lambda _c, reason, _o: broken(f"closed ({reason})"), None)
                self._connection.setKeepAlive(5, 3)
                filters.define(self._connection)
        except libvirt.libvirtError as error:
            # Whatever the reason: this one cannot be had now.
            raise HypervisorDown(reason=f"{uri}: {error}") from error
        self._domains = Domains(self._connection)
        self._counters = Counters(self._connection, self._domains, patient=self.row.patient_stats)
        self.devices = LinkDevices(self._domains)
        self.blocks = LinkBlocks(self._domains)
        self.tuning = LinkTuning(self._domains)
        self.secrets = LinkSecrets(self._connection)
        self.jobs = LinkJobs(self._connection, self._domains)
        self.agent = LinkAgent(self._domains)

    def close(self) -> None:
        """Let go of a connection that broke."""
        try:
            self._connection.close()
        except libvirt.libvirtError as error:
            log.debug("Closing failed: %s", error)

    # Looking

    def observe(self, vm_id: str) -> Seen | None:
        """Return the domain as it is now, or None: libvirt has answered, and there is none."""
        try:
            with meaning("looking up a domain"):
                return self._seen(self._connection.lookupByUUIDString(vm_id))
        except NoSuchVm:
            return None

    def observe_all(self) -> dict[str, Seen]:
        with meaning("listing domains"):
            domains = self._connection.listAllDomains()
        found = ((domain.UUIDString(), self.observe(domain.UUIDString())) for domain in domains)
        return {vm_id: seen for vm_id, seen in found if seen is not None}

    def is_ours(self, vm_id: str) -> bool:
        """Say whether we, or an earlier daemon of our kind, made the domain."""
        return running.is_ours(self.xml(vm_id))

    def xml(self, vm_id: str, *, secure: bool = False) -> str:
        return self._domains.xml(vm_id, secure=secure)

    def known(self, vm_id: str, conf: Conf) -> tuple[Conf, int]:
        """Return what libvirt made of the configuration of a running machine (of devices, and ports), and the pid of its
        QEMU, 0 when there is none to be seen. What cannot be known now is left out."""
        try:
            learnt = self.learnt(vm_id, conf)
        except DriverError as error:
            log.warning("Not everything is known of a machine vm=%s error=%s", vm_id, error)
            return {}, 0
        return learnt, qemu_of(vm_id) if self.row.monitors else 0

    def learnt(self, vm_id: str, conf: Conf) -> Conf:
        """Return what of the configuration libvirt says otherwise, or more exactly."""
        read = running.read_back(self.xml(vm_id), conf)
        read["devices"] = self.blocks.measured(vm_id, read["devices"], wait=not self.row.patient_stats)
        return {key: value for key, value in read.items() if value != conf.get(key)}

    def device_xml(self, vm_id: str, device: Conf, *, drive_cache: str) -> str:
        """Return the element of a device that a running domain is to get. Raises Invalid or Unsupported."""
        return pieces.device_xml(
            device,
            vm_id=vm_id,
            virt_type=self.domain_type,
            drive_cache=drive_cache,
            net_filters=self.row.net_filters,
            net_limits=self._net_limits,
            taps=self.row.taps,
            secrets=self.row.secrets,
        )

    def statistics(self, vm_ids: Iterable[str], *, brief: bool = False) -> dict[str, dict[str, Any]]:
        """Return the counters of all domains. What a busy monitor would have to say is left out. See `Counters.read`."""
        return self._counters.read(vm_ids, brief=brief)

    @property
    def ending(self) -> list[str]:
        """The ids of domains that are being ended: `statistics` does not tell of them."""
        return self._counters.ending

    def ask_monitor(self, vm_id: str) -> None:
        """Return when the domain's monitor has answered a question. Which one does not matter."""
        with self._domains.get(vm_id, "asking the monitor") as domain:
            domain.ioThreadInfo(libvirt.VIR_DOMAIN_AFFECT_LIVE)

    def virt(self) -> Virt:
        """Return what guests can be run here."""
        with meaning("reading the capabilities"):
            capabilities = etree.fromstring(self._connection.getCapabilities().encode())
            machines = {element.text or "" for element in capabilities.iterfind("guest/arch[@name='x86_64']/machine")}
            models = self._connection.getCPUModelNames("x86_64") if self.row.monitors else []
            versions = {"libvirt": libvirt.getVersion(), "qemu-kvm": self._connection.getVersion()}
        return Virt(
            kvm=self.domain_type == "kvm",
            machines=sorted(machines),
            models=list(models),
            versions={name: f"{n // 1000000}.{n // 1000 % 1000}.{n % 1000}" for name, n in versions.items()},
        )

    def definition(
        self,
        conf: Conf,
        *,
        channels_dir: str,
        console: str,
        identity: Identity,
        drive_cache: str,
        address_on: Callable[[str], str] | None = None,
        amend: domxml.Amend | None = None,
    ) -> str:
        """Return the domain's XML; for `address_on` and `amend` see `domxml`. Raises Invalid, Unsupported or NotFound, and what
        they raise."""
        return domxml.domain_xml(
            conf,
            virt_type=self.domain_type,
            channels_dir=channels_dir,
            console=console if self.row.consoles else None,
            release=VERSION,
            drive_cache=drive_cache,
            net_filters=self.row.net_filters,
            net_limits=self._net_limits,
            taps=self.row.taps,
            secrets=self.row.secrets,
            address_on=None if self.row.networks else address_on,
            amend=amend,
            **msgspec.structs.asdict(identity),
        )

    # Doing

    def create(self, xml: str, *, paused: bool = False) -> Seen:
        """Start a domain. Raises Failed with libvirt's text when it does not start, or Busy when somebody took a port
        between libvirt's choice and QEMU's use of it."""
        flags = libvirt.VIR_DOMAIN_START_PAUSED if paused and self.row.starts_paused else 0
        with meaning("starting"):
            domain = self._connection.createXML(xml, flags)
            if paused and not self.row.starts_paused:
                domain.suspend()
            return self._seen(domain) or Seen(paused=paused)

    def destroy(self, vm_id: str, *, politely: bool = True) -> None:
        """End the domain: politely first, which takes up to 45 seconds with one that does not answer, then by force, which
        takes 10. Raises NoSuchVm also when somebody else has ended it meanwhile."""
        with self._domains.get(vm_id, "destroying") as domain, self._counters.without(vm_id):
            try:
                if politely and self._ended(domain, libvirt.VIR_DOMAIN_DESTROY_GRACEFUL):
                    return
                domain.destroyFlags(0)
            except libvirt.libvirtError as error:
                if error.get_error_code() == libvirt.VIR_ERR_OPERATION_INVALID and self.observe(vm_id) is None:
                    raise NoSuchVm(vm=vm_id) from error
                raise

    def _ended(self, domain: Any, flags: int) -> bool:
        """Say whether the domain could be ended like this."""
        try:
            domain.destroyFlags(flags)
        except libvirt.libvirtError as error:
            if error.get_error_code() in (libvirt.VIR_ERR_NO_DOMAIN, libvirt.VIR_ERR_OPERATION_INVALID):
                raise
            log.warning("Ending by force vm=%s: %s", domain.UUIDString(), error)
            return False
        return True

    def suspend(self, vm_id: str) -> None:
        with self._domains.get(vm_id, "pausing") as domain:
            if domain.state()[0] != libvirt.VIR_DOMAIN_PAUSED:
                domain.suspend()

    def resume(self, vm_id: str) -> None:
        with self._domains.get(vm_id, "continuing") as domain:
            if domain.state()[0] != libvirt.VIR_DOMAIN_RUNNING:
                domain.resume()

    def press(self, vm_id: str, *, reboot: bool) -> None:
        """Press the power button; with `reboot`, the guest is started anew when it has shut down."""
        with self._domains.get(vm_id, "pressing the power button") as domain:
            if reboot:
                domain.reboot(libvirt.VIR_DOMAIN_REBOOT_ACPI_POWER_BTN if self.row.monitors else 0)
            else:
                domain.shutdownFlags(libvirt.VIR_DOMAIN_SHUTDOWN_ACPI_POWER_BTN if self.row.monitors else 0)

    def reset(self, vm_id: str) -> None:
        with self._domains.get(vm_id, "resetting") as domain:
            domain.reset(0)

    def set_ticket(self, vm_id: str, password: str, ttl: int, on_conflict: str, kind: str = "") -> None:
        """Set the password of the first display (of the kind, if said). `ttl` seconds from now it expires; 0 or less leaves
        that as it is."""
        xml = self.xml(vm_id, secure=True)
        display = running.graphics_with_ticket(xml, password, ttl, on_conflict, now=time.time(), kind=kind)
        with self._domains.get(vm_id, "setting a ticket") as domain:
            domain.updateDeviceFlags(display, 0)

    # Help

    @property
    def _net_limits(self) -> bool:
        """Whether libvirt may limit the traffic of nics: where it works inside of us, it may do what we may."""
        return not self.row.taps or os.geteuid() == 0

    def _seen(self, domain: Any) -> Seen | None:
        state, reason = domain.state()
        if state == libvirt.VIR_DOMAIN_SHUTOFF:
            return None
        if state in PAUSED and reason == libvirt.VIR_DOMAIN_PAUSED_IOERROR:
            return Seen(True, _disk_error(domain))
        coming = state == libvirt.VIR_DOMAIN_PAUSED and reason == libvirt.VIR_DOMAIN_PAUSED_MIGRATION
        return Seen(state in PAUSED, coming=coming)


def _disk_error(domain: Any) -> str:
    try:
        errors = domain.diskErrors().values()
    except libvirt.libvirtError:
        return "EOTHER"
    return "ENOSPC" if libvirt.VIR_DOMAIN_DISK_ERROR_NO_SPACE in errors else "EIO" if errors else "EOTHER"
