"""A hypervisor in memory, with the manners of the real one, whose every answer and event the test can hold back.

It stands where `drivers.vm.connection.Libvirt` and `drivers.vm.hypervisor.link.Link` stand.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Any

from drivers.errors import DriverError, Failed, HypervisorDown, NoSuchVm
from drivers.vm.contract import HOST_SHUTDOWN, LOST_QEMU, USER_SHUTDOWN, Ending, Identity, Virt
from drivers.vm.hypervisor.kinds import Hypervisor
from drivers.vm.hypervisor.link import Seen

Event = tuple[str, str, Any]

ROW = Hypervisor(prefix="fake:///", children_are_ours=True, consoles=False, channels=False)


class Part:
    """Stands for parts of the link: every call on it is noted, and answered as the test says."""

    def __init__(self, fake: FakeLibvirt) -> None:
        self._fake = fake

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def call(vm_id: str, *args: Any, **how: Any) -> Any:
            self._fake._ask(name, vm_id)
            answer = self._fake.answers.get(name)
            return answer(*args, **how) if callable(answer) else answer

        return call


class FakeLibvirt:
    """One hypervisor, and the link to it. All calls of the driver may come from any thread."""

    def __init__(self, row: Hypervisor = ROW) -> None:
        self.row = row
        self.uri = row.prefix
        self.domain_type = row.emulation
        self.domains: dict[str, Seen] = {}
        self.definitions: dict[str, dict[str, Any]] = {}
        self.amended: dict[str, list[str]] = {}
        """What became of the elements of devices, by machine."""
        self.ours: set[str] = set()
        self.down = ""
        """Why it cannot be opened."""
        self.opened = 0
        self.closed = 0
        self.refuses: dict[str, DriverError] = {}
        """What calls on a machine raise, by its id."""
        self.gates: dict[str, threading.Event] = {}
        """Calls on a machine, or 'statistics', that wait until their gate is set. Set all before the end."""
        self.asked: list[tuple[str, str]] = []
        """The calls (name, machine) that came, in their order."""
        self.events_held: list[Event] | None = None
        """A list when events are held back."""
        self.silent: set[str] = set()
        """Machines of which the bulk call tells nothing that only a monitor knows."""
        self.ending: list[str] = []
        """Machines that are being ended."""
        self.xmls: dict[str, str] = {}
        """What the domains of machines say of themselves."""
        self.answers: dict[str, Any] = {}
        """What calls of this name on devices, blocks and tuning return: a value, or a function of their arguments."""
        self.devices = self.blocks = self.tuning = self.jobs = Part(self)
        self._tell: Callable[[str, str, Any], None] = lambda *event: None
        self._lock = threading.Lock()

    # As Libvirt

    def open(
        self, uri: str, lib_dir: str, virt_type: str, tell: Callable[[str, str, Any], None], broken: Any
    ) -> FakeLibvirt:
        self.opened += 1
        if self.down:
            raise HypervisorDown(reason=self.down)
        self._tell = tell
        return self

    def start_events(self) -> None:
        """There is no thread."""

    def stop_events(self, deadline: float) -> None:
        """There is no thread."""

    # As Link

    def close(self) -> None:
        self.closed += 1

    def observe(self, vm_id: str) -> Seen | None:
        self._ask("observe", vm_id)
        return self.domains.get(vm_id)

    def observe_all(self) -> dict[str, Seen]:
        return dict(self.domains)

    def is_ours(self, vm_id: str) -> bool:
        return vm_id in self.ours

    def known(self, vm_id: str, conf: dict[str, Any]) -> tuple[dict[str, Any], int]:
        return {"known": True}, 0

    def xml(self, vm_id: str) -> str:
        self._ask("xml", vm_id)
        return self.xmls[vm_id]

    def learnt(self, vm_id: str, conf: dict[str, Any]) -> dict[str, Any]:
        self._ask("learnt", vm_id)
        return {}

    def device_xml(self, vm_id: str, device: dict[str, Any], *, drive_cache: str) -> str:
        return str(device["type"])

    def statistics(self, vm_ids: Iterable[str], *, brief: bool = False) -> dict[str, dict[str, Any]]:
        self._ask("signs of life" if brief else "statistics", "statistics")
        told = {vm_id: {"cpu.time": 10**9} for vm_id in self.domains}
        return {vm_id: values | ({} if vm_id in self.silent else {"balloon.rss": 1}) for vm_id, values in told.items()}

    def ask_monitor(self, vm_id: str) -> None:
        self._ask("ask_monitor", vm_id)

    def virt(self) -> Virt:
        return Virt(machines=["pc"])

    def definition(
        self,
        conf: dict[str, Any],
        *,
        channels_dir: str,
        console: str,
        identity: Identity,
        drive_cache: str,
        address_on: Callable[[str], str] | None = None,
        amend: Callable[[dict[str, Any], str], str] | None = None,
    ) -> str:
        self.definitions[conf["vmId"]] = {**conf, "identity": identity, "drive_cache": drive_cache}
        if amend is not None:
            self.amended[conf["vmId"]] = [amend(device, str(device["type"])) for device in conf["devices"]]
        return str(conf["vmId"])

    def create(self, xml: str, *, paused: bool = False) -> Seen:
        self._ask("create", xml)
        with self._lock:
            if xml in self.domains:
                raise Failed(action="starting", reason="it is there already")
            self.domains[xml] = Seen(paused)
        self.tell(xml, "started", None)
        return self.domains[xml]

    def destroy(self, vm_id: str, *, politely: bool = True) -> None:
        self._ask("destroy" if politely else "kill", vm_id)
        self.end(vm_id, HOST_SHUTDOWN)

    def suspend(self, vm_id: str) -> None:
        self._ask("suspend", vm_id)
        self.change(vm_id, Seen(True))

    def resume(self, vm_id: str) -> None:
        self._ask("resume", vm_id)
        self.change(vm_id, Seen(False))

    def press(self, vm_id: str, *, reboot: bool) -> None:
        self._ask("reboot" if reboot else "press", vm_id)
        if self.domains[vm_id].paused:
            raise Failed(action="pressing the power button", reason="domain is not running")

    def reset(self, vm_id: str) -> None:
        self._ask("reset", vm_id)
        self.tell(vm_id, "rebooted", None)

    def set_ticket(self, vm_id: str, password: str, ttl: int, on_conflict: str, kind: str = "") -> None:
        self._ask(f"ticket {password} {ttl} {on_conflict}", vm_id)

    # What happens to guests by themselves

    def change(self, vm_id: str, seen: Seen) -> None:
        if vm_id not in self.domains:
            raise NoSuchVm()
        self.domains[vm_id] = seen
        self.tell(vm_id, "changed", None)

    def end(self, vm_id: str, ending: Ending = USER_SHUTDOWN) -> None:
        with self._lock:
            if self.domains.pop(vm_id, None) is None:
                raise NoSuchVm()
        self.tell(vm_id, "stopped", ending)

    def crash(self, vm_id: str) -> None:
        self.end(vm_id, LOST_QEMU)

    def tell(self, *event: Any) -> None:
        """Send an event, or keep it while events are held back."""
        if self.events_held is None:
            self._tell(*event)
        else:
            self.events_held.append(event)

    def deliver(self) -> None:
        """Send what was held back, and hold no more."""
        held, self.events_held = self.events_held or [], None
        for event in held:
            self._tell(*event)

    def calls(self, name: str) -> list[str]:
        """Return the machines on which a call of this name came."""
        return [vm_id for call, vm_id in self.asked if call == name]

    def _ask(self, name: str, vm_id: str) -> None:
        self.asked.append((name, vm_id))
        gate = self.gates.get(vm_id)
        if gate is not None:
            gate.wait()
        if name != "observe" and vm_id in self.refuses:
            raise self.refuses[vm_id]
        if self.down:
            raise HypervisorDown(reason=self.down)
