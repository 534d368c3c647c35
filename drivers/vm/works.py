"""Works: all that is done to virtual machines, put together. Imported after the first answer (`vdsmd.deferred` names it).

It promises that whatever is begun here and must end before an exec is told by `unsafe`, and that nothing of that kind begins
while held.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from drivers.vm.changes.changing import Changing
from drivers.vm.deeds import Deeds
from drivers.vm.desk import Desk
from drivers.vm.hastening import Hastening
from drivers.vm.launcher import Launcher
from drivers.vm.machine import Machine
from drivers.vm.monitors import Monitors
from drivers.vm.powerbutton import PowerButton
from drivers.vm.revival import Revival
from drivers.vm.travel.moving import Moving

if TYPE_CHECKING:
    from drivers.vm.hypervisor.link import Link, Seen

log = logging.getLogger("vm")


class Works:
    """The parts have calls of their own; those of this class come from the loop's thread. Made `held` or not."""

    def __init__(self, desk: Desk, *, held: bool) -> None:
        self._desk = desk
        self.hastening = Hastening(desk, lambda: self.launcher.launch_waiting())
        self.launcher = Launcher(desk, self._launched, self._restored, self.hastening.is_at)
        self.button = PowerButton(desk)
        self.belongings = desk.belongings
        self.deeds = Deeds(desk, self.launcher, self.button, self.hastening)
        self.monitors = Monitors(desk.host, desk.machines)
        self.revival = Revival(desk.host, desk.machines, desk.connection)
        self.changes = Changing(desk)
        self.moving = Moving(desk)
        desk.machines.ended = self._ended
        desk.watch.departed = self.moving.departures.attend
        desk.watch.came = self.moving.arrivals.came
        desk.watch.arrived = self.moving.arrivals.arrived
        if held:
            self._hold(True)

    def start(self) -> None:
        """Go on with what has its time. Any number of times."""
        for machine in self._desk.machines.all():
            self.button.arm(machine)
        if self._desk.connection.link is not None:
            self.changes.jobs.start()
            self.moving.start()

    def connected(self, link: Link, live: dict[str, Seen]) -> None:
        """libvirt is there, and has listed its domains: take up what was under way, and begin with what waits."""
        if trouble := self._desk.trouble(link):
            log.error("No virtual machine can be started: %s", trouble)
        if link.row.children_are_ours:
            self.monitors.ask(link, sorted(vm_id for vm_id in live if vm_id in self._desk.machines))
        self._desk.belongings.sweep(live)
        self.changes.connected(link)
        self.moving.connected(link)

    def unsafe(self) -> str | None:
        """Say what must end before an exec."""
        if changed := self.changes.unsafe():
            return changed
        if leaving := self.moving.unsafe():
            return leaving
        if self.monitors.silent:
            return f"monitors have not answered since the last re-exec: {', '.join(self.monitors.silent)}"
        return None

    def hold(self, held: bool) -> None:
        """Begin nothing while held; then what waits."""
        self._hold(held)
        self.launcher.launch_waiting()

    def stop(self) -> None:
        """Begin nothing by oneself until `start`."""
        self.changes.jobs.stop()
        self.moving.stop()

    def _hold(self, held: bool) -> None:
        self.launcher.held = held
        self.changes.jobs.hold(held)
        self.moving.hold(held)

    def _ended(self, machine: Machine) -> None:
        """The machine is Down. Any thread."""
        self.belongings.ended(machine)
        self._desk.host.in_loop(lambda: self._desk.agents.forget(machine))

    def _launched(self) -> None:
        self._desk.sample_soon()
        self._desk.agents.attend()

    def _restored(self, machine: Machine) -> None:
        self._desk.agents.announce(machine, "after_hibernation")
