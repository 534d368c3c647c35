"""VmDriver: the owner of all virtual machines.

It promises that questions about machines are answered from memory, at once, in every phase of the daemon's life (`answers`),
and that what changes a machine either happens or raises one of the meanings of `drivers.errors` (`works`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any

from drivers.base import Host
from drivers.errors import DriverError, Failed, NoSuchVm
from drivers.hooks import Hooks
from drivers.vm.agents.agents import Agents
from drivers.vm.answers import Answers, Conf, shown
from drivers.vm.connection import Connection, Libvirt
from drivers.vm.console import Consoles
from drivers.vm.contract import UNBORN, Identity, Status, Virt, settings
from drivers.vm.machine import VmRecord
from drivers.vm.machines import Machines
from drivers.vm.sampler import Sampler
from drivers.vm.watch import Watch
from state.records import Record

if TYPE_CHECKING:
    from drivers.vm.changes.changing import Changing
    from drivers.vm.changes.images import Images
    from drivers.vm.deeds import Deeds
    from drivers.vm.desk import Desk, Peer
    from drivers.vm.hypervisor.link import Link, Seen
    from drivers.vm.hypervisor.secrets import LinkSecrets
    from drivers.vm.travel.moving import Moving
    from drivers.vm.works import Works

log = logging.getLogger("vm")


class VmDriver(Answers):
    """An owner (`drivers.base.Owner`), the answers to questions, and all that is done to machines."""

    name = "vm"
    record: type[Record] = VmRecord

    def __init__(self, host: Host, config: Any, libvirt: Libvirt | None = None) -> None:
        self.identify: Callable[[], Identity] = Identity
        """Returns what guests are told of their host, in a worker; the host's facts know."""
        self.address_on: Callable[[str], str] = lambda network: ""
        """Returns this host's address on a network, '' for none, in a worker; the network driver knows."""
        self.images: Images | None = None
        """Finds data that is named by storage domains; without, only what is named by a path is found."""
        self.hooks = Hooks(f"{host.run_dir}/no-hooks")
        """The operator's scripts; here, none."""
        self.peer: Callable[[str], Peer] = _no_peer
        """Returns the daemon of another host, given as host or host:port."""
        self._host = host
        self._libvirt = libvirt or Libvirt()
        self._settings = settings(config)
        machines = Machines(host)
        connection = Connection(host, self._connect, self._connected)
        sampler = Sampler(host, machines, connection, lambda: self._settings.sample_interval, self._sampled)
        super().__init__(machines, connection, sampler, Agents(host, machines, connection, lambda: self._settings))
        limit = int(self._settings.console_max_mb * 2**20)
        self._consoles = Consoles(host, limit=limit, keep=self._settings.console_keep)
        self._watch = Watch(host, machines, connection, lambda: self._settings)
        self._works: Works | None = None
        self._held = False
        self._restored = False
        self._uncertain = False
        self._live: dict[str, Seen] = {}
        self._strangers: list[str] = []
        self._given_back = False

    # What is done to machines

    @property
    def works(self) -> Works:
        """All that is done to machines. Deferred, as nobody needs it before the first answer: until the daemon has settled in,
        for worker threads only."""
        from drivers.vm.works import Works  # `vdsmd.deferred` has it imported

        with self._machines.lock:
            if self._works is None:
                self._works = Works(self._desk(), held=self._held)
            return self._works

    @property
    def deeds(self) -> Deeds:
        return self.works.deeds

    @property
    def changes(self) -> Changing:
        return self.works.changes

    @property
    def moving(self) -> Moving:
        return self.works.moving

    @property
    def secrets(self) -> LinkSecrets:
        """libvirt's secrets. For worker threads. Raises HypervisorDown."""
        return self._connection.require().secrets

    def expect(self, params: dict[str, Any]) -> tuple[Conf, str]:
        """Take in a machine that comes from another host. Returns its full form, and its definition for this host. In a worker;
        see `Arrivals.expect` for what it raises."""
        machine, xml = self.moving.expect(params)
        return shown(machine), xml

    def resume_paused(self, vm_ids: Collection[str] | None = None) -> None:
        """Storage is back: have these machines go on, or all, that an I/O error has paused. Any thread."""
        self._host.in_loop(lambda: self._works.revival.resume(vm_ids) if self._works else None)

    def hasten(self, vm_id: str, patience: float) -> None:
        """Somebody waits `patience` seconds for the turn to destroy this machine, which may not answer. Loop's thread."""
        if self._works is not None:
            self._works.hastening.ask(vm_id, patience)

    def _desk(self) -> Desk:
        from drivers.vm.belongings import Belongings
        from drivers.vm.changes.images import Paths
        from drivers.vm.desk import Desk
        from drivers.vm.hooked import Hooked

        def images() -> Images:
            return self.images or Paths()

        return Desk(
            host=self._host,
            machines=self._machines,
            connection=self._connection,
            watch=self._watch,
            consoles=self._consoles,
            agents=self.agents,
            belongings=Belongings(self._host, self._machines, images),
            hooked=Hooked(lambda: self.hooks),
            settings=lambda: self._settings,
            images=images,
            identify=lambda: self.identify(),
            address_on=lambda network: self.address_on(network),
            peer=lambda peer: self.peer(peer),
            sample_soon=self._sampler.soon,
        )

    # The owner

    def snapshot(self) -> VmRecord:
        return self._machines.snapshot(self._sampler.text(), self.agents.text())

    def restore(self, record: Record) -> None:
        assert isinstance(record, VmRecord)
        self._machines.restore(record)
        self._sampler.load(record.samples)
        self.agents.load(record.agents)
        self._restored = True
        for machine in self._machines.all():
            self._watch.take_child(machine)
            self.agents.claim(machine.vm_id)
            self._consoles.claim(machine.vm_id, lives=not machine.is_down)

    def recover(self) -> None:
        self._machines.recover()
        self._uncertain = bool(self._machines.all())
        for machine in self._machines.all():
            self._consoles.claim(machine.vm_id, lives=not machine.is_down)
            if not machine.is_down:
                self._watch.adopt(machine, machine.pid)

    @property
    def recovering(self) -> str:
        """Why it is not known yet how the machines are ('' when it is, or when there are none on record)."""
        return "libvirt has not told yet how they are" if self._uncertain and not self._connection.tried else ""

    def start(self) -> None:
        self._consoles.start()
        self._libvirt.start_events()
        self._connection.start()
        self.agents.start()
        self.works.start()
        if self._connection.link is not None:
            self._sampler.start()

    def unsafe(self) -> str | None:
        if self._watch.starting:
            return f"virtual machines are being started: {', '.join(sorted(self._watch.starting))}"
        if self._connection.trying or not self._connection.tried:
            return "libvirt is being opened"
        if self._works is not None and (underway := self._works.unsafe()):
            return underway
        if self.agents.asked:
            return f"guest agents are being asked: {', '.join(self.agents.asked)}"
        if self._sampler.stuck:
            silent = [machine.vm_id for machine in self._machines.all() if not machine.responds]
            return f"monitors do not answer: {', '.join(silent) or 'it is not known yet which'}"
        return None

    def settle(self) -> None:
        self._hold(True)

    def resume(self) -> None:
        self._hold(False)

    def _hold(self, held: bool) -> None:
        with self._machines.lock:
            self._held = held
        self._sampler.hold(held)
        self.agents.hold(held)
        if self._works is not None:
            self._works.hold(held)

    def quiesce(self, deadline: float) -> None:
        self._connection.quiesce()
        self._sampler.stop()
        if self._works is not None:
            self._works.stop()
        self.agents.quiesce()
        self._libvirt.stop_events(deadline)
        self._consoles.quiesce(deadline)

    def reload(self, config: Any) -> None:
        """Take over a changed configuration. Another uri, or other limits of console logs, hold from the next exec on."""
        self._settings = settings(config)

    # libvirt comes

    def _connect(self) -> Link:
        """In a worker: open libvirt, and list what is there."""
        settings = self._settings
        link = self._libvirt.open(self._uri(), self._host.lib_dir, settings.virt_type, self._tell, self._broken)
        try:
            if link.row.volatile and self._restored and not self._given_back:
                self._give_back(link)
            self._live = link.observe_all()
            self._strangers = [v for v in self._live if v not in self._machines and _is_ours(link, v)]
        except DriverError:
            link.close()
            raise
        return link

    def _give_back(self, link: Link) -> None:
        """Make the domains again that lived in the memory of the previous run, before anyone asks for them."""
        for machine in self._machines.all():
            if machine.xml and not machine.is_down and machine.status not in UNBORN:
                try:
                    link.create(machine.xml, paused=machine.status is Status.PAUSED)
                except DriverError as error:
                    log.error("A domain could not be made again vm=%s error=%s", machine.vm_id, error)
        self._given_back = True

    def _uri(self) -> str:
        """Machines stay under the hypervisor that they run under, whatever the configuration says by now."""
        given, known = self._settings.uri, self._machines.uri
        if not known or all(machine.is_down for machine in self._machines.all()):
            return given
        if given not in ("auto", known):
            log.warning("[libvirt] uri holds only when all machines are down given=%s used=%s", given, known)
        return known

    def _connected(self, link: Link) -> None:
        self._machines.uri = link.uri
        for vm_id in self._strangers:
            self._watch.take_in(link, vm_id, self._live[vm_id])
        self._watch.compare(link, self._live)
        self.works.connected(link, self._live)
        self._host.submit(link.virt, self._learnt_virt)
        self._sampler.start()
        self.agents.attend()
        self.works.launcher.launch_waiting()

    def _learnt_virt(self, virt: Virt | None, error: Exception | None) -> None:
        if virt is None:
            log.warning("libvirt does not tell what it can do error=%s", error)
            return
        if virt != self._machines.virt and self._settings.virt_type == "auto" and not virt.kvm:
            log.warning("KVM does not work here: virtual machines run by software emulation, which is slow")
        self._machines.virt = virt

    # libvirt tells

    def _tell(self, vm_id: str, what: str, detail: Any) -> None:
        self._host.in_loop(lambda: self._heard(vm_id, what, detail))

    def _heard(self, vm_id: str, what: str, detail: Any) -> None:
        if what == "agent":
            self.agents.came(vm_id)
            return
        self._watch.heard(vm_id, what, detail)
        if what == "unplugged" and self._works is not None:
            self._works.belongings.unplugged(vm_id)

    def _sampled(self, present: set[str]) -> None:
        self._watch.sampled(present)
        self.agents.attend()
        if self._works is not None:
            self._works.revival.attend()
            self._works.hastening.attend()

    def _broken(self, reason: str) -> None:
        self._host.in_loop(lambda: self._connection.lost(reason))


def _is_ours(link: Link, vm_id: str) -> bool:
    try:
        return link.is_ours(vm_id)
    except NoSuchVm:
        return False  # it has ended since it was listed


def _no_peer(peer: str) -> Peer:
    raise Failed(action=f"calling {peer}", reason="this daemon speaks with no others")
