"""NetworkDriver: the owner of this host's networks.

It promises that a change of networks is all or nothing, over errors, loss of the engine, crashes and re-execs, and that what
the configuration does not name is never touched. `drivers.network.work`, imported after the first answer, does the work.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from drivers.base import Host
from drivers.errors import Busy, DriverError, NotResponding
from drivers.network.errors import BadParams, ChangeUnfinished
from drivers.network.model import Configuration, NetworkRecord
from state.directory import StateDirectory
from state.records import Record

if TYPE_CHECKING:
    from drivers.network.watch import Watch
    from drivers.network.work import Work

log = logging.getLogger("network")

READY_WITHIN = 60.0
"""Seconds that a change waits for the one before it, and for the first look after a start."""
AGAIN = 2.0
"""Seconds until it is tried again to take back a change, while the helper cannot be reached."""

Given = dict[str, Any]


class NetworkDriver:
    """An owner (`drivers.base.Owner`); all else is for worker threads, but for `dirty`."""

    name = "network"
    record: type[Record] = NetworkRecord

    def __init__(self, host: Host, *, open_work: Callable[[], Work] | None = None) -> None:
        self.hook: Callable[[str, Given], Given] = lambda point, data: data
        """Runs the hooks of a point (before_network_setup, after_network_setup, after_network_setup_fail) on `{"request":
        {"networks", "bondings", "options"}}`, and returns what they have made of it."""
        self._host = host
        self._open_work = open_work or self._open
        self._state = NetworkRecord()
        self._work: Work | None = None
        self._ready = threading.Event()
        self._changing = threading.Lock()
        self._cold = False
        self._settled = False
        self._doing = ""
        self._watch: Watch | None = None
        self._looking = False

    # The owner

    def snapshot(self) -> NetworkRecord:
        return self._state

    def restore(self, record: Record) -> None:
        assert isinstance(record, NetworkRecord)
        self._state = record

    def recover(self) -> None:
        self._cold = True

    def start(self) -> None:
        if not self._settled:
            self._host.submit(self._begin, self._begun, timeout=0)
        elif self._watch is not None:
            self._watch.start()

    def unsafe(self) -> str | None:
        return self._doing or None

    def settle(self) -> None:
        """What has begun ends by itself, soon; no repair begins."""
        if self._watch is not None:
            self._watch.stop()

    def resume(self) -> None:
        if self._watch is not None:
            self._watch.start()

    def quiesce(self, deadline: float) -> None:
        """Everything else runs in worker threads, which are the daemon's to stop."""
        self.settle()

    # Questions

    @property
    def dirty(self) -> bool:
        """Whether a reboot would bring back other networks than there are now. From memory, any thread."""
        return self._state.running != self._state.safe

    @property
    def drift(self) -> list[str]:
        """What of ours the kernel did not have any more when it was last looked at, as steps that would repair it."""
        return list(self._state.drift)

    def facts(self, info: Given) -> Given:
        """Return the keys of getVdsCapabilities about networks; `info` has what is known of this host's devices."""
        return self._working().facts(self._state.running, info) | {"netConfigDirty": str(self.dirty)}

    def route_to(self, address: str) -> str:
        """Return the gateway on the way to an address, '' for none. Raises BadAddress."""
        return self._working().route_to(address)

    def planned(self, networks: Given, bonds: Given, options: Given) -> list[str]:
        """Return, in words, the steps that `setup` would take now."""
        work = self._working()
        return work.describe(work.plan(self._state.running, networks, bonds, options)[1])

    # Changes

    def setup(self, networks: Given, bonds: Given, options: Given, *, check: bool = True) -> None:
        """Bring these networks and bonds into the wanted state, all or none. `check`: have the engine show that it still
        reaches us, where `options` does not say. Raises the errors of the contract."""
        with self._alone("networks are being changed"):
            self._change(networks, bonds, options, check=check)

    def one(self, old: str, new: str, vlan: int | str | None, bond: str, nics: list[str], options: Given) -> None:
        """Add a network (`old` is ''), remove it (`new` is ''; what else is told must be true of it), or change it, and perhaps
        its name. A bond that nobody uses any more goes with it."""
        with self._alone(f"network {new or old} is being changed"):
            asked = self._working().one(self._state.running, old, new, vlan, bond, nics, options)
            self._change(*asked, check=False)

    def set_safe(self) -> None:
        """Have the present networks come back after a reboot."""
        with self._alone("networks are being kept"):
            self._working().keep(self._state.running)
            self._state.safe = self._state.running

    def _change(self, networks: Given, bonds: Given, options: Given, *, check: bool) -> None:
        asked = {"request": {"networks": networks, "bondings": bonds, "options": options}}
        request = _request(self.hook("before_network_setup", asked))
        try:
            steps = self._carry_out(request, check=check)
        except (DriverError, OSError):
            self.hook("after_network_setup_fail", {"request": request})
            raise
        self._host.event("network.changed", networks=", ".join(sorted(request["networks"])), steps=steps)
        self.hook("after_network_setup", {"request": request})

    def _carry_out(self, request: Given, *, check: bool) -> int:
        """Return how many steps it took."""
        work, running = self._working(), self._state.running
        asked = request["networks"], request["bondings"], request["options"]
        after, steps, demand = work.plan(running, *asked, check=check)
        try:
            work.carry_out(running, after, steps, demand)
        except ChangeUnfinished:
            self._host.in_loop(self._finish_later)
            raise
        except (DriverError, OSError) as error:
            self._host.event("network.taken_back", reason=error)
            raise
        self._state.running, self._state.drift = after, []
        work.patience.forget()
        return len(steps)

    # Help

    @contextmanager
    def _alone(self, doing: str) -> Iterator[None]:
        work = self._working()  # before the lock, which the first look has
        if not self._changing.acquire(timeout=READY_WITHIN):
            raise Busy(what="network configuration", reason=self._doing or "it is being changed")
        try:
            self._doing = doing
            work.changer.take_back()
            yield
        finally:
            self._doing = ""
            self._changing.release()

    def _working(self) -> Work:
        if not self._ready.wait(READY_WITHIN) or self._work is None:
            raise NotResponding(what="the network driver", reason="it has not looked at this host since the start")
        return self._work

    def _open(self) -> Work:
        from drivers.network.work import Work  # imported by now (vdsmd.deferred); not for the first answer

        return Work(
            self._host.root,
            StateDirectory(os.path.join(self._host.lib_dir, "network")),
            self._host.checkpoints.below("network"),
            sign_of_life=os.path.join(self._host.run_dir, "client.log"),
        )

    def _begin(self) -> None:
        """In a worker: finish what a crash has interrupted, restore what a reboot has taken, and see whether all is there."""
        with self._changing:
            self._doing = "networks are being restored"
            try:
                work = self._work = self._work or self._open_work()
                if self._cold and not self._ready.is_set():
                    self._state = work.known()
                self._ready.set()
                work.changer.take_back()
                if self._cold:
                    self._state = work.known()  # anew: what was taken back may have been committed
                    work.recover(self._state.running)
                    self._cold = False
                self._state.drift = work.drift(self._state.running)
                self._settled = True
            finally:
                self._doing = ""

    def _begun(self, _result: None, error: Exception | None) -> None:
        if error is not None:
            log.error("Networks could not be looked after, it is tried again seconds=%g error=%s", AGAIN, error)
            self._host.later(AGAIN, self.start)
            return
        if self._state.drift:
            self._host.event("network.drift", missing="; ".join(self._state.drift))
        assert self._work is not None
        self._watch = self._watch or self._work.watch(self._host, self._look_again)
        self._watch.start()

    # Drift

    def _look_again(self) -> None:
        """In the loop: see whether somebody has changed what is ours."""
        if self._state.running != Configuration() and self._settled and not self._looking:
            self._looking = True
            self._host.submit(self._look, self._looked, timeout=0)

    def _looked(self, _result: None, error: Exception | None) -> None:
        self._looking = False
        if error is not None:
            log.warning("Networks could not be looked at error=%s", error)
        if isinstance(error, ChangeUnfinished):
            self._finish_later()

    def _look(self) -> None:
        """In a worker: tell what is missing, and repair it. A change that is under way looks for itself."""
        if not self._changing.acquire(blocking=False):
            return
        try:
            work = self._working()
            work.changer.take_back()
            drift = work.drift(self._state.running)
            if drift and drift != self._state.drift:
                self._host.event("network.drift", missing="; ".join(drift))
            self._state.drift = drift
            left = work.patience.left_alone(drift)
            if work.patience.is_news(left):
                self._host.event("network.left_alone", steps="; ".join(left))
            if steps := [step for step in drift if step not in left]:
                self._repair(work, steps, left)
        finally:
            self._doing = ""
            self._changing.release()

    def _repair(self, work: Work, steps: list[str], left: list[str]) -> None:
        self._doing = "networks are being repaired"
        work.patience.take(steps)
        if work.repair(self._state.running, left):
            self._host.event("network.repaired", steps="; ".join(steps))
        self._state.drift = work.drift(self._state.running)

    def _finish_later(self) -> None:
        """In the loop: try again to take back a change."""
        self._settled = False
        self._host.later(AGAIN, self.start)


def _request(left: Any) -> Given:
    """Return the request, as hooks have left it. Raises BadParams."""
    request = left.get("request") if isinstance(left, dict) else None
    for name in ("networks", "bondings", "options"):
        if not isinstance(request, dict) or not isinstance(request.get(name), dict):
            raise BadParams(what=f"request.{name}", reason="expected a struct; was that the hook before_network_setup?")
    assert isinstance(request, dict)
    return request
