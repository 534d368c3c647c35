"""Daemon: owns the parts and connects them; knows nothing about the wire.

What the verbs are given. All of it belongs to the loop's thread, but for what says otherwise.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import msgspec

from drivers.base import Host, Owner
from drivers.hooks import Hooks
from drivers.network.driver import NetworkDriver
from drivers.storage.driver import StorageDriver
from drivers.storage.images.notes import Notes
from drivers.storage.tasks.opening import open_tasks
from drivers.storage.tasks.owner import Tasks
from drivers.vm.driver import VmDriver
from state import records
from state.directory import StateDirectory
from state.handoff import Document, HandOff
from state.points import Point, reached
from state.release import VERSION
from vdsmd import config as configuration
from vdsmd import deferred, takeover
from vdsmd import log as logs
from vdsmd.config import Config
from vdsmd.endpoints import Endpoints
from vdsmd.helper import Helper
from vdsmd.host.facts import HostFacts
from vdsmd.journal import Journal
from vdsmd.loop import READ, Loop
from vdsmd.policy.owner import PolicyEngine
from vdsmd.reexec import Reexec
from vdsmd.workers import Workers

log = logging.getLogger("daemon")

BETWEEN_ANSWERS = 0.0005
"""Seconds after which a thread that computes must let another one go on, while the loop's answers come first."""
ORDINARY = sys.getswitchinterval()
SETTLE_AGAIN = 1
"""Seconds until settling in is tried again after it failed."""


def _number(name: str) -> int:
    from vdsmd.api.codes import number  # the API is put together later, and knows us

    return number(name)


def record_kinds() -> dict[str, type[records.Record]]:
    """Return the record of each owner, by its name: what a rehearsal must be able to decode."""
    owners = (Journal, VmDriver, StorageDriver, Tasks, NetworkDriver, HostFacts, PolicyEngine, Reexec)
    return {owner.name: owner.record for owner in owners}


def records_of(document: Document) -> dict[str, records.Record]:
    """Return the owners' records in the document, decoded as a new run does it. Raises RecordError."""
    found = {name: document.record(name, kind) for name, kind in record_kinds().items()}
    return {name: record for name, record in found.items() if record is not None}


class Daemon:
    """All parts of a run."""

    def __init__(
        self, config: Config, handoff: HandOff, loop: Loop, endpoints: Endpoints, arguments: list[str]
    ) -> None:
        self.config = config
        self.handoff = handoff
        self.generation = handoff.generation
        self.since = time.time()
        self.degraded: dict[str, str] = {}
        """Owners that could not take over in this run and recovered as after a crash: by name, why."""
        self.version = VERSION
        self.last_client: Callable[[], str] = lambda: ""
        """Returns the address of the engine that called last; the service knows."""
        self._loop = loop
        self._endpoints = endpoints
        self.workers = Workers(loop)
        self.reload_refused = ""
        """Why the last reload of the configuration was refused, '' if it was not."""
        handoff.children.attach(self._watch_child, loop.unwatch)
        self.journal = Journal(
            os.path.join(config.paths.lib_dir, "events"),
            submit=self.workers.submit,
            limits=lambda: (self.config.vars.events_max_mb, self.config.vars.events_keep),
        )
        self.helper = Helper(loop, handoff.fds, handoff.children, run_dir=config.paths.run_dir, config=config.path)
        self.helper.on_parent_gone = self.leave
        self.hooks = Hooks(config.paths.hooks, note=self.journal.note)
        host = self._host()
        self.vms = VmDriver(host, config)
        self.storage = StorageDriver(host, config)
        self.tasks = open_tasks(host, lambda: self.config.irs, self.storage)
        self.tasks.spools = self.storage.spool
        self.storage.work = self.tasks
        self.storage.number = _number
        self.vms.images = self.storage
        self.storage.on_change = self._storage_changed
        self.networks = NetworkDriver(host)
        self.networks.hook = self.hooks.run_json
        self.host = HostFacts(host, config, self.vms)
        self.host.networks = self.networks
        self.vms.identify = self.host.identity
        self.vms.hooks = self.hooks
        self.vms.peer = self._peer
        self.vms.address_on = self._address_on
        self.policy = PolicyEngine(host, config)
        self.host.mom_status = self.policy.status
        self.host_lives: Callable[[str, int], bool | None] = self.storage.host_lives
        """Says whether the host with this id renews its lease on a storage domain, None if that cannot be seen. In a worker."""
        # The journal first: what the others do may be worth noting.
        self._owners: dict[str, Owner] = {
            owner.name: owner
            for owner in (self.journal, self.vms, self.storage, self.tasks, self.networks, self.host, self.policy)
        }
        self.reexec = Reexec(
            loop,
            handoff,
            self.workers,
            endpoints,
            self._owners,
            arguments=arguments,
            settings=lambda: self.config.vars,
            note=self.journal.note,
        )
        self._owners[self.reexec.name] = self.reexec

    def _peer(self, peer: str) -> Any:
        from vdsmd.peers import Peer  # deferred: `vdsmd.deferred` has it imported by now

        return Peer(peer, self.config)

    def _address_on(self, network: str) -> str:
        """Return this host's address on a network, '' for none. For worker threads."""
        told = self.networks.facts({})["networks"].get(network, {})
        return str(told.get("addr", ""))

    def take_over(self) -> None:
        """Give every owner what the previous run left for it; without that, it recovers as after a crash."""
        self.helper.take_over()
        for owner in self._owners.values():
            self._restore(owner)
        if self.handoff.document is None:
            # Before anyone is served. A re-exec is no start, and runs no script in its pause.
            self.hooks.run("before_vdsm_start")
            self.journal.note("daemon.started", version=self.version, pid=os.getpid())

    def settle_in(self) -> None:
        """We serve, and have committed: now what the first answers did not need. Imports take longer than the pause itself, so
        a worker makes them, between the answers that the loop gives."""
        sys.setswitchinterval(BETWEEN_ANSWERS)
        try:
            reached(Point.RUN_COMMITTED)
            self.handoff.settle()
            self.workers.submit(deferred.load, self._loaded)
        except Exception as error:
            # There is no way back from here, and most of what fails here (no memory, no threads) passes.
            self._settle_again(error)

    def _loaded(self, _result: None, error: Exception | None) -> None:
        sys.setswitchinterval(ORDINARY)
        try:
            if error is not None:
                raise error
            self._harden()
            for owner in self._owners.values():
                reached(Point.RUN_OWNER)
                owner.start()
            self.reexec.settled = True
            self._keep_release()
        except Exception as failure:
            # As above.
            self._settle_again(failure)

    def _settle_again(self, error: Exception) -> None:
        log.error("Settling in failed, and is tried again in a moment seconds=%d", SETTLE_AGAIN, exc_info=error)
        self._loop.call_later(SETTLE_AGAIN, self.settle_in)

    @staticmethod
    def _harden() -> None:
        from vdsmd.hardening import harden  # deferred, as below

        harden()

    def _keep_release(self) -> None:
        from vdsmd.kept import keep  # deferred: `vdsmd.deferred` has it imported by now

        def kept(root: str | None, error: Exception | None) -> None:
            self.reexec.kept = root or ""
            if error is not None:
                log.error("The running release cannot be kept", exc_info=error)

        self.workers.submit(lambda: keep(self.config.paths.lib_dir, self.since), kept)

    def stop(self, deadline: float) -> None:
        """End every thread of ours. Virtual machines and other children are left running."""
        self.journal.note("daemon.stopped")
        for owner in self._owners.values():
            owner.quiesce(deadline)
        self.workers.stop(deadline)
        self.policy.end(deadline)
        self.hooks.run("after_vdsm_stop")
        self.journal.close()

    @property
    def recovering(self) -> str:
        """Why most verbs must wait ('' when they need not)."""
        return self.vms.recovering

    def reload(self) -> None:
        """Read the configuration again, keeping clients. A broken one is refused and changes nothing."""
        try:
            fresh = configuration.load(self.config.path)
        except configuration.ConfigError as error:
            log.error("The configuration is kept as it was reason=%s", error)
            self.reload_refused = str(error)
            self.journal.note("config.refused", reason=error)
            return
        self.reload_refused = ""
        logs.reopen()
        logging.getLogger().setLevel(fresh.vars.log_level)
        self.config = fresh
        self.vms.reload(fresh)
        self.storage.reload(fresh)
        self.host.reload(fresh)
        self.policy.reload(fresh)
        log.info("The configuration was read again path=%s", fresh.path)
        self.journal.note("config.reloaded")

    def _storage_changed(self, domain: str, valid: bool) -> None:
        """A storage domain has become well: machines that could not write to it go on."""
        if valid and (waiting := self.vms.using(domain)):
            self.vms.resume_paused(waiting)
        if valid:
            self.workers.submit(lambda: self._sweep(domain), timeout=0)

    def _sweep(self, domain: str) -> None:
        """Remove what a run that was cut off has left on a storage domain. In a worker."""
        from drivers.storage.images import streaming  # imported by now (vdsmd.deferred)

        streaming.sweep(self.tasks, Notes(self.config.paths.lib_dir), domain, self.workers.submit)

    def leave(self) -> None:
        """Stop, when the answers that are owed have been given. A re-exec that is under way would outlive that, and is taken
        back. Loop's thread."""
        self.reexec.abandon()
        self._loop.stop()

    # For operators

    def request_reexec(self, *, now: bool = False) -> int:
        return self.reexec.request(now=now)

    def cancel_reexec(self) -> bool:
        return self.reexec.cancel()

    def summary(self) -> str:
        """Describe this run in one line: what `systemctl status` shows."""
        told = [f"Generation {self.generation}, {sum(1 for _ in self.vms.statuses())} virtual machines"]
        told += filter(None, [self.reexec.summary()])
        told += [f"{name} is degraded: {reason}" for name, reason in self.degraded.items()]
        if self.reload_refused:
            told.append(f"the configuration is kept as it was: {self.reload_refused}")
        return "; ".join(told)

    def status(self) -> dict[str, Any]:
        """Describe this run, in plain values."""
        fds = self.handoff.fds
        return {
            "pid": os.getpid(),
            "generation": self.generation,
            "version": self.version,
            "since": self.since,
            "recovering": self.recovering,
            "degraded": self.degraded,
            "owners": {name: owner.unsafe() or "" for name, owner in self._owners.items()},
            "libvirt": self.vms.link_status(),
            "helper": self.helper.describe(),
            "reexec": msgspec.to_builtins(self.reexec.outcome),
            "events": self.journal.end,
            "vms": dict(Counter(self.vms.statuses())),
            "descriptors": len(os.listdir("/proc/self/fd")) - 1,
            "named_descriptors": fds.names(),
            "children": [msgspec.to_builtins(child) for child in self.handoff.children.snapshot()],
        }

    def snapshot_plain(self) -> dict[str, Any]:
        """Return every owner's record as plain data, as it would be handed on now."""
        return {name: msgspec.to_builtins(owner.snapshot()) for name, owner in self._owners.items()}

    # Help

    def _restore(self, owner: Owner) -> None:
        reached(Point.START_RESTORE)
        try:
            record = self.handoff.record(owner.name, owner.record)
            if record is not None:
                owner.restore(record)
                return
        except Exception as error:
            if takeover.can_go_back():
                raise  # the previous release could read it: it wrote it
            # One owner that cannot take over must not take the others with it: it alone recovers as after a crash.
            log.exception("An owner cannot take over and recovers instead owner=%s", owner.name)
            self.degraded[owner.name] = f"{type(error).__name__}: {error}"
        owner.recover()
        if owner.name in self.degraded:
            self.journal.note("daemon.degraded", owner=owner.name, reason=self.degraded[owner.name])

    def _watch_child(self, pidfd: int, name: str) -> None:
        self._loop.watch(pidfd, READ, lambda _events: self.handoff.children.ended(name))

    def _host(self) -> Host:
        paths = self.config.paths
        return Host(
            fds=self.handoff.fds,
            children=self.handoff.children,
            checkpoints=StateDirectory(os.path.join(paths.run_dir, "state", "checkpoints")),
            run_dir=paths.run_dir,
            lib_dir=paths.lib_dir,
            log_dir=paths.log_dir,
            submit=self.workers.submit,
            later=self._loop.call_later,
            in_loop=self._loop.call_threadsafe,
            event=self.journal.note,
            poller=self._loop,
            root=self.helper,
        )
