"""Work: what the network driver does in worker threads. Everything that it needs is imported here, after the first answer.

It promises that nothing is changed before a request has been understood and checked whole.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Collection
from ipaddress import ip_address
from typing import Any

import msgspec

from drivers.base import Host, Root
from drivers.errors import DriverError, Failed
from drivers.network import legacy, netlink
from drivers.network.change import UNKNOWN, Changer
from drivers.network.errors import BadAddress, ChangeUnfinished, ConnectionLost
from drivers.network.facts import facts
from drivers.network.kernel import Kernel
from drivers.network.merge import merged
from drivers.network.model import Act, Configuration, NetworkRecord, Step
from drivers.network.parts import parts, together
from drivers.network.patience import Patience
from drivers.network.plan import plan
from drivers.network.request import Request, request
from drivers.network.store import RUNNING, SAFE, Store
from drivers.network.watch import Watch
from state.directory import StateDirectory
from state.process import boot_id
from supervdsm.client import ActionError

log = logging.getLogger("network")

LOOK_EVERY = 0.05
"""Seconds between two looks for a sign of life of the engine."""

Given = dict[str, Any]


class Work:
    """See `drivers.network.driver`, which sees to it that changes come one at a time."""

    def __init__(
        self,
        root: Root,
        lasting: StateDirectory,
        passing: StateDirectory,
        *,
        sign_of_life: str,
        look: Callable[[], Kernel] = netlink.look,
    ) -> None:
        self._store = Store(lasting, passing)
        self._sign_of_life = sign_of_life
        self._root = root
        self._look = look
        self.changer = Changer(root, self._store, self._see)
        self.patience = Patience()

    # Questions

    def facts(self, running: Configuration, info: Given) -> Given:
        return facts(self._look(), running, info)

    def route_to(self, address: str) -> str:
        """Return the gateway, '' where none is needed or no way leads there. Raises BadAddress."""
        try:
            text = str(ip_address(address))
        except ValueError as error:
            raise BadAddress(what="ip", reason=str(error)) from None
        try:
            return netlink.route_to(text)
        except OSError:
            return ""

    def plan(
        self, running: Configuration, networks: Given, bonds: Given, options: Given, *, check: bool = True
    ) -> tuple[Configuration, list[Step], Request]:
        """Return the configuration that is asked for, the steps to it, and the request as understood."""
        asked = request(networks, bonds, options, check=check)
        wanted = {name: network for name, network in asked.networks.items() if network is not None}
        kernel = self._see(running, Configuration(networks=wanted))
        after = merged(running, kernel, asked)
        return after, plan(kernel, running, after), asked

    def one(self, running: Configuration, old: str, new: str, *asked: Any) -> tuple[Given, Given, Given]:
        """Return what setupNetworks would be told; see `legacy.change`."""
        return legacy.change(running, old, new, legacy.Asked(*asked))

    def watch(self, host: Host, look: Callable[[], None]) -> Watch:
        return Watch(host, look)

    def describe(self, steps: list[Step]) -> list[str]:
        return [str(step.do) for step in steps]

    def drift(self, running: Configuration) -> list[str]:
        """Return, in words, what would have to be done for the kernel to have all of the configuration."""
        return self.describe(plan(self._see(running), running, running))

    # Changes

    def carry_out(self, before: Configuration, after: Configuration, steps: list[Step], asked: Request) -> None:
        """Make the change and commit it. Raises what went wrong, all being as before."""
        log.info("Networks change networks=%s steps=%d", ",".join(sorted(asked.networks)), len(steps))

        def commit() -> None:
            self._await_engine(asked)
            self._store.save(RUNNING, after)

        self.changer.change(before, after, steps, commit)

    def keep(self, running: Configuration) -> None:
        self._store.save(SAFE, running)

    def repair(self, running: Configuration, left: Collection[str] = ()) -> bool:
        """Have the kernel have all of the configuration again, but for what the steps `left` would do. False when that has
        failed, and all is as before. Raises ChangeUnfinished."""
        return self._try("repairing networks", running, running, left)

    def _see(self, *configurations: Configuration) -> Kernel:
        """Return what there is. Only root sees DHCP clients and limits: it is asked where they matter. Raises Failed."""
        kernel = self._look()
        networks = [network for each in configurations for network in each.networks.values()]
        try:
            if any(network.dhcp or network.dhcp6 for network in networks):
                kernel.clients = self._root.call("dhcp.list")
            if any(network.inbound or network.outbound for network in networks):
                self._see_rates(kernel)
        except ActionError as error:
            raise Failed(action="looking at what only root sees of networks", reason=str(error)) from error
        return kernel

    def _see_rates(self, kernel: Kernel) -> None:
        """A host that cannot limit anything any more must get its networks all the same."""
        try:
            known = self._root.call("rate.list")
        except UNKNOWN:
            raise
        except ActionError as error:
            log.warning("Rates of networks cannot be seen, and count as missing error=%s", error)
            return
        for link, number in known.items():
            if link in kernel.links:
                kernel.links[link].rates = number

    def _await_engine(self, asked: Request) -> None:
        if not asked.check:
            return
        before, deadline = self._last_sign(), time.monotonic() + asked.timeout
        pause = threading.Event()
        while self._last_sign() == before:
            if time.monotonic() > deadline:
                raise ConnectionLost(what="The engine", seconds=asked.timeout)
            pause.wait(LOOK_EVERY)

    def _last_sign(self) -> int:
        try:
            return os.stat(self._sign_of_life).st_mtime_ns
        except FileNotFoundError:
            return 0

    # After a crash or a reboot

    def known(self) -> NetworkRecord:
        """Return what the files say: which configuration is in force or, after a reboot, is to be."""
        running, safe = self._store.load(RUNNING), self._store.load(SAFE)
        kept = safe.configuration if safe else Configuration()
        same_boot = running is not None and running.boot == boot_id()
        return NetworkRecord(running=running.configuration if running and same_boot else kept, safe=kept)

    def recover(self, wanted: Configuration) -> None:
        """After a crash repair, and after a reboot restore, the configuration. All of it counts as running then: what could not
        be had shows as drift, and comes with the next change. Raises ChangeUnfinished and OSError."""
        running = self._store.load(RUNNING)
        if running is not None and running.boot == boot_id():
            self.repair(wanted)
        elif wanted != Configuration():
            self._restore(wanted)

    def _restore(self, wanted: Configuration) -> None:
        """As a whole, or else what can be had of it, network by network, without their limits rather than not at all."""
        nothing = Configuration(found=wanted.found)
        if not self._try("restoring networks", nothing, wanted):
            so_far = nothing
            for what, forms in parts(wanted):
                for form in forms:
                    more = together(so_far, form)
                    if more == so_far or self._try(f"restoring {what}", so_far, more):
                        so_far = more
                        break
        try:
            self._store.save(RUNNING, wanted)
        except OSError as error:
            # A full disk costs no host its networks. Whoever comes after a crash restores them once more.
            log.error("Networks are restored, but that could not be written down error=%s", error)

    def _try(self, what: str, before: Configuration, after: Configuration, left: Collection[str] = ()) -> bool:
        planned = [step for step in plan(self._see(before, after), before, after) if str(step.do) not in left]
        steps = [without_waiting(step) for step in planned]
        if not steps:
            return True
        log.info("%s steps=%d", what.capitalize(), len(steps))
        try:
            self.changer.change(before, after, steps, lambda: None, left=left)
        except ChangeUnfinished:
            raise  # what undoes it must not be forgotten over the next
        except DriverError as error:
            log.error("%s failed error=%s", what.capitalize(), error)
            return False
        return True


def without_waiting(step: Step) -> Step:
    """Return a step that does not fail because no DHCP server answers yet: after a power cut they all start at once."""
    if step.do.action not in ("dhcp.start", "dhcp6.start"):
        return step
    do = Act(action=step.do.action, arguments={**step.do.arguments, "wait": False})
    return msgspec.structs.replace(step, do=do)
