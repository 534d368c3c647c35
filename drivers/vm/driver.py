"""VmDriver: the owner of all virtual machines, and what can be asked of them.

It promises that questions about machines are answered from memory, at once, in every phase of the daemon's life, and that
what changes a machine either happens or raises one of the meanings of `drivers.errors`.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any

from drivers.base import Host
from drivers.errors import DriverError, Failed, NoSuchVm
from drivers.hooks import Hooks
from drivers.vm.agents.agents import Agents
from drivers.vm.belongings import Belongings
from drivers.vm.connection import Connection
from drivers.vm.console import Consoles
from drivers.vm.contract import UNBORN, Identity, Status, Virt, settings
from drivers.vm.deeds import Deeds, shown
from drivers.vm.hooked import Hooked
from drivers.vm.launcher import Launcher
from drivers.vm.machine import Machine, Machines, VmRecord
from drivers.vm.monitors import Monitors
from drivers.vm.powerbutton import PowerButton
from drivers.vm.revival import Revival
from drivers.vm.sampler import Sampler
from drivers.vm.vmstats import down_stats, running_stats
from drivers.vm.watch import Watch
from state.records import Record

if TYPE_CHECKING:
    from drivers.vm.changes.images import Images
    from drivers.vm.changing import Changing
    from drivers.vm.desk import Peer
    from drivers.vm.libvirt_events import Tell
    from drivers.vm.link import Link, Seen
    from drivers.vm.linksecrets import LinkSecrets
    from drivers.vm.moving import Moving

log = logging.getLogger("vm")

Stats = dict[str, Any]
Conf = dict[str, Any]

TELLS_OF_HIBERNATION = 3
"""The version of the agent's protocol that knows of it."""
GREETINGS, GREETING_PAUSE = 60, 2.0
"""How often, and after how many seconds, it is tried to tell."""


class Libvirt:
    """libvirt itself, imported when it is opened first: that takes longer than all the rest of a re-exec.

    `vdsmd.deferred` names the module, so that it is imported soon after the start in any case."""

    def __init__(self) -> None:
        # libvirt reads it when it is imported. Its warnings would go to our standard error, and say nothing of use.
        os.environ.setdefault("LIBVIRT_DEBUG", "4")
        self._module: Any = None

    def open(self, uri: str, lib_dir: str, virt_type: str, tell: Tell, broken: Callable[[str], None]) -> Link:
        """In a worker. See `drivers.vm.link.open_first`."""
        from drivers.vm import link

        self._module = link
        return link.open_first(uri, lib_dir, virt_type, tell, broken)

    def start_events(self) -> None:
        """Have events told again after `stop_events`. The first `open` begins it."""
        if self._module is not None:
            self._module.EVENTS.start()

    def stop_events(self, deadline: float) -> None:
        """Join the thread that tells of events. Raises Busy."""
        if self._module is not None:
            self._module.EVENTS.stop(deadline)


class VmDriver:
    """An owner (`drivers.base.Owner`), the answers to questions, and `deeds`. `vdsmd.api.vm` has who calls them."""

    name = "vm"
    record: type[Record] = VmRecord

    def __init__(self, host: Host, config: Any, libvirt: Libvirt | None = None) -> None:
        self.identify: Callable[[], Identity] = Identity
        """Returns what guests are told of their host, in a worker; the host's facts know."""
        self._host = host
        self._libvirt = libvirt or Libvirt()
        self._settings = settings(config)
        self._machines = Machines(host)
        limit = int(self._settings.console_max_mb * 2**20)
        self._consoles = Consoles(host, limit=limit, keep=self._settings.console_keep)
        self._connection = Connection(host, self._connect, self._connected)
        self._watch = Watch(host, self._machines, self._connection, lambda: self._settings)
        self._sampler = Sampler(
            host, self._machines, self._connection, lambda: self._settings.sample_interval, self._sampled
        )
        self._belongings = Belongings(host, self._machines, self._images)
        self._machines.ended = self._belongings.ended
        self._hooked = Hooked(lambda: self.hooks)
        self._launcher = Launcher(
            host,
            self._machines,
            self._consoles,
            self._connection,
            self._watch,
            lambda: self._settings,
            lambda: self.identify(),
            self._launched,
            self._belongings,
            self._hooked,
        )
        self.agents = Agents(host, self._machines, self._connection, lambda: self._settings)
        self._button = PowerButton(host, self._machines, self._connection, self._watch.look, self.agents)
        self.deeds = Deeds(
            host,
            self._machines,
            self._consoles,
            self._connection,
            self._watch,
            self._launcher,
            self._button,
            self.agents,
            lambda: self._settings,
            self._belongings,
            self._hooked,
        )
        self._monitors = Monitors(host, self._machines)
        self._revival = Revival(host, self._machines, self._connection)
        self.images: Images | None = None
        """Finds data that is named by storage domains; without, only what is named by a path is found."""
        self.hooks = Hooks(f"{host.run_dir}/no-hooks")
        """The operator's scripts; here, none."""
        self.peer: Callable[[str], Peer] = _no_peer
        """Returns the daemon of another host, given as host or host:port."""
        self._changing: Changing | None = None
        self._moving: Moving | None = None
        self._held = False
        self._launcher.images = lambda: self.images
        self._launcher.hooks = lambda: self.hooks
        self._launcher.restored = self._greet
        self.deeds.remembered = self._remembered
        self._watch.departed = lambda machine: self._moving.departures.attend(machine) if self._moving else None
        self._watch.came = lambda machine: self._moving.arrivals.came(machine) if self._moving else None
        self._watch.arrived = lambda machine: self._moving.arrivals.arrived(machine) if self._moving else None
        self._restored = False
        self._uncertain = False
        self._live: dict[str, Seen] = {}
        self._strangers: list[str] = []
        self._given_back = False

    def _images(self) -> Images:
        from drivers.vm.changes.images import Paths  # deferred, like `changes`

        return self.images or Paths()

    @property
    def changes(self) -> Changing:
        """All that changes running machines. For worker threads: deferred, as nobody needs it before the first answer;
        `vdsmd.deferred` has it imported."""
        from drivers.vm.changing import Changing

        with self._machines.lock:
            if self._changing is None:
                self._changing = Changing(
                    self._host,
                    self._machines,
                    self._connection,
                    self._images,
                    lambda: self._settings,
                    self._watch.look,
                    self._belongings,
                    self._hooked,
                )
                self._changing.jobs.hold(self._held)
            return self._changing

    @property
    def secrets(self) -> LinkSecrets:
        """libvirt's secrets. For worker threads. Raises HypervisorDown."""
        return self._connection.require().secrets

    @property
    def moving(self) -> Moving:
        """All that has machines go to other hosts and to files, and come from there. Deferred, like `changes`."""
        from drivers.vm.changes.images import Paths
        from drivers.vm.desk import Desk
        from drivers.vm.moving import Moving

        with self._machines.lock:
            if self._moving is None:
                desk = Desk(
                    host=self._host,
                    machines=self._machines,
                    connection=self._connection,
                    watch=self._watch,
                    consoles=self._consoles,
                    settings=lambda: self._settings,
                    images=lambda: self.images or Paths(),
                    hooks=lambda: self.hooks,
                    peer=lambda peer: self.peer(peer),
                    room=self._launcher.room,
                    belongings=self._belongings,
                )
                self._moving = Moving(desk)
                self._moving.departures.held = self._held
            return self._moving

    def _remembered(self, params: dict[str, Any]) -> dict[str, Any]:
        from drivers.vm.changes.images import Paths
        from drivers.vm.restoring import remembered

        return remembered(self.images or Paths(), params)

    def _greet(self, machine: Machine, tries: int = GREETINGS) -> None:
        """Tell the agent in a guest that time has passed: as soon as it is known that it understands that."""
        if not self._machines.is_current(machine) or not tries:
            return
        if self.agents.api(machine) < TELLS_OF_HIBERNATION:
            self._host.later(GREETING_PAUSE, lambda: self._greet(machine, tries - 1))
            return
        try:
            self.agents.tell(machine.vm_id, "lifecycle-event", type="after_hibernation")
        except DriverError as error:
            log.warning("A guest could not be told that it was restored vm=%s error=%s", machine.vm_id, error)

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

    def start(self) -> None:
        self._consoles.start()
        self._libvirt.start_events()
        self._connection.start()
        self.agents.start()
        for machine in self._machines.all():
            self._button.arm(machine)
        if self._connection.link is not None:
            self._sampler.start()
            if self._changing is not None:
                self._changing.jobs.start()
            if self._moving is not None:
                self._moving.start()

    def unsafe(self) -> str | None:
        if self._watch.starting:
            return f"virtual machines are being started: {', '.join(sorted(self._watch.starting))}"
        if self._changing is not None and (changed := self._changing.unsafe()):
            return changed
        if self._moving is not None and (leaving := self._moving.unsafe()):
            return leaving
        if self._connection.trying or not self._connection.tried:
            return "libvirt is being opened"
        if self._monitors.silent:
            return f"monitors have not answered since the last re-exec: {', '.join(self._monitors.silent)}"
        if self.agents.asked:
            return f"guest agents are being asked: {', '.join(self.agents.asked)}"
        if self._sampler.stuck:
            silent = [machine.vm_id for machine in self._machines.all() if not machine.responds]
            return f"monitors do not answer: {', '.join(silent) or 'it is not known yet which'}"
        return None

    def settle(self) -> None:
        self._launcher.hold(True)
        self._sampler.hold(True)
        self._hold_jobs(True)
        self.agents.hold(True)

    def resume(self) -> None:
        self._launcher.hold(False)
        self._sampler.hold(False)
        self._hold_jobs(False)
        self.agents.hold(False)

    def _hold_jobs(self, held: bool) -> None:
        with self._machines.lock:
            self._held = held
            if self._changing is not None:
                self._changing.jobs.hold(held)
        if self._moving is not None:
            self._moving.hold(held)

    def quiesce(self, deadline: float) -> None:
        self._connection.quiesce()
        self._sampler.stop()
        if self._changing is not None:
            self._changing.jobs.stop()
        if self._moving is not None:
            self._moving.stop()
        self.agents.quiesce()
        self._libvirt.stop_events(deadline)
        self._consoles.quiesce(deadline)

    def reload(self, config: Any) -> None:
        """Take over a changed configuration. Another uri, or other limits of console logs, hold from the next exec on."""
        self._settings = settings(config)

    def resume_paused(self, vm_ids: Collection[str] | None = None) -> None:
        """Storage is back: have these machines go on, or all, that an I/O error has paused. Any thread."""
        self._host.in_loop(lambda: self._revival.resume(vm_ids))

    def using(self, domain: str) -> list[str]:
        """Return the machines that have a disk on a storage domain."""
        return [machine.vm_id for machine in self._machines.all() if _uses(machine.conf, domain)]

    # libvirt comes

    def _connect(self) -> Link:
        """In a worker: open libvirt, and list what is there."""
        settings = self._settings
        _ = self.changes, self.moving
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
        if trouble := self._launcher.trouble(link):
            log.error("No virtual machine can be started: %s", trouble)
        for vm_id in self._strangers:
            self._watch.take_in(link, vm_id, self._live[vm_id])
        self._watch.compare(link, self._live)
        if link.row.children_are_ours:
            self._monitors.ask(link, sorted(vm_id for vm_id in self._live if vm_id in self._machines))
        self._belongings.sweep()
        self.changes.connected(link)
        self.moving.connected(link)
        self._host.submit(link.virt, self._learnt_virt)
        self._sampler.start()
        self.agents.attend()
        self._launcher.launch_waiting()

    def _learnt_virt(self, virt: Virt | None, error: Exception | None) -> None:
        if virt is None:
            log.warning("libvirt does not tell what it can do error=%s", error)
            return
        if virt != self._machines.virt and self._settings.virt_type == "auto" and not virt.kvm:
            log.warning("KVM does not work here: virtual machines run by software emulation, which is slow")
        self._machines.virt = virt

    def _tell(self, vm_id: str, what: str, detail: Any) -> None:
        self._host.in_loop(lambda: self._heard(vm_id, what, detail))

    def _heard(self, vm_id: str, what: str, detail: Any) -> None:
        if what == "agent":
            self.agents.came(vm_id)
        else:
            self._watch.heard(vm_id, what, detail)
            if what == "unplugged":
                self._belongings.unplugged(vm_id)

    def _sampled(self, present: set[str]) -> None:
        self._watch.sampled(present)
        self.agents.attend()
        self._revival.attend()

    def _launched(self) -> None:
        self._sampler.soon()
        self.agents.attend()

    def _broken(self, reason: str) -> None:
        self._host.in_loop(lambda: self._connection.lost(reason))

    # Questions: answered from memory, in the loop's thread

    @property
    def recovering(self) -> str:
        """Why it is not known yet how the machines are ('' when it is, or when there are none on record)."""
        return "libvirt has not told yet how they are" if self._uncertain and not self._connection.tried else ""

    def link_status(self) -> str:
        return self._connection.status()

    def statuses(self) -> list[str]:
        return [str(machine.status) for machine in self._machines.all()]

    def committed(self) -> int:
        """Return the memory in MiB that is promised to machines which are not Down."""
        return sum(int(m.conf.get("memSize", 0)) for m in self._machines.all() if not m.is_down)

    def virt(self) -> Virt:
        return self._machines.virt

    def list_short(self, vm_ids: list[str]) -> list[dict[str, str]]:
        return [{"vmId": machine.vm_id, "status": str(machine.status)} for machine in self._some(vm_ids)]

    def list_full(self, vm_ids: list[str]) -> list[Conf]:
        return [shown(machine) for machine in self._some(vm_ids)]

    def expect(self, params: dict[str, Any]) -> tuple[Conf, str]:
        """Take in a machine that comes from another host. Returns its full form, and its definition for this host. In a worker;
        see `Arrivals.expect` for what it raises."""
        machine, xml = self.moving.expect(params)
        return shown(machine), xml

    def migration(self, vm_id: str) -> dict[str, Any]:
        """Return how the last way of the machine goes, or ended: code (the wire's name for why it failed, or ''), message and
        progress. Raises NoSuchVm."""
        from drivers.vm.progress import status_of  # deferred, as above

        return status_of(self._machines.get(vm_id))

    def stats(self, vm_id: str) -> Stats:
        """Return the statistics of the machine, or how it ended. Raises NoSuchVm."""
        return self._stats(self._machines.get(vm_id))

    def all_stats(self) -> list[Stats]:
        return [self._stats(machine) for machine in self._machines.all()]

    def _some(self, vm_ids: list[str]) -> list[Machine]:
        """Return the machines with these ids, or all when none are given. Unknown ids are passed over."""
        if not vm_ids:
            return self._machines.all()
        return [machine for machine in map(self._machines.find, vm_ids) if machine is not None]

    def _stats(self, machine: Machine) -> Stats:
        ending = machine.ending
        if ending is not None:
            return down_stats(
                machine.conf,
                exit_code=ending.code,
                exit_message=ending.message,
                exit_reason=ending.reason,
                status_since=machine.status_since,
            )
        sample, previous = self._sampler.of(machine.vm_id)
        return running_stats(
            machine.conf,
            str(machine.status),
            sample,
            previous,
            now=time.monotonic(),
            elapsed=time.time() - (machine.started or time.time()),
            status_since=machine.status_since,
            pid=machine.pid,
            responsive=machine.responds and (self._connection.link is not None or not self._connection.tried),
            pause_code=machine.pause_code if machine.status is Status.PAUSED else "",
            watchdog=machine.watchdog,
            jobs=machine.jobs.values(),
            policy=machine.policy,
            guest=self.agents.statistics(machine),
            migration_progress=_progress(machine),
        )


def _is_ours(link: Link, vm_id: str) -> bool:
    try:
        return link.is_ours(vm_id)
    except NoSuchVm:
        return False  # it has ended since it was listed


def _progress(machine: Machine) -> int | None:
    leaves = machine.journey is not None and machine.status is Status.MIGRATION_SOURCE
    return machine.journey.progress if leaves and machine.journey else None


def _no_peer(peer: str) -> Peer:
    raise Failed(action=f"calling {peer}", reason="this daemon speaks with no others")


def _uses(conf: Mapping[str, Any], domain: str) -> bool:
    disks = (device for device in conf.get("devices", ()) if device.get("type") == "disk")
    return any(disk.get("domainID") == domain or domain in str(disk.get("path") or "") for disk in disks)
