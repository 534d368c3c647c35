"""The engine: once in a while, look at the host and its guests, follow the policies, and have done what they ask for.

It promises that whatever a round meets (a daemon that is being replaced, a policy that makes no sense, a verb that fails) the
next one begins in its time, and that it says once, and not in every round, what is wrong.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Protocol

from vdsmd.ctl.wire import Lost, Refused, Unreachable
from vdsmd.policy.evaluate import Round
from vdsmd.policy.language import PolicyError
from vdsmd.policy.rules import Rules, forms
from vdsmd.policy.world import Entity, World

log = logging.getLogger("policy")


class Caller(Protocol):
    """The public API."""

    def call(self, verb: str, *args: object) -> dict[str, Any]: ...

    def close(self) -> None: ...


class Engine:
    """One round at a time. `rules` say what is followed, `caller` is how everything is seen and done."""

    def __init__(self, rules: Rules, caller: Caller) -> None:
        self._rules = rules
        self._caller = caller
        self._world = World()
        self._machine: tuple[int, int] | None = None
        self._told: set[str] = set()
        self._trouble: set[str] = set()

    def round(self) -> None:
        """Look, decide, act. Raises nothing that a next round could not do without."""
        self._trouble = set()
        try:
            self._look()
            self._decide()
            self._act(self._world.host)
            for guest in self._world.guests.values():
                self._act(guest)
        except (Unreachable, Lost, Refused) as error:
            self._note(f"The daemon does not answer: {error}")
        self._caller.close()  # a re-exec between two rounds would end the connection, and be taken for trouble
        self._told = self._trouble

    def _look(self) -> None:
        if self._machine is None:
            info = self._caller.call("getVdsCapabilities")["info"]
            self._machine = int(info["memSize"]) * 1024, int(info["cpuThreads"])
        memory, processors = self._machine
        host = self._caller.call("getVdsStats")["info"]
        guests = self._caller.call("getAllVmStats")["statsList"]
        self._world.look(host, guests, memory=memory, processors=processors)

    def _decide(self) -> None:
        going = Round(self._world.host, self._world.guests.values(), lambda reason: self._note(f"Guest {reason}"))
        for name, policy in forms(self._rules.texts()).items():
            try:
                if isinstance(policy, PolicyError):
                    raise policy
                going.follow(policy)
            except PolicyError as error:
                self._note(f"Policy {name}: {error}")

    def _act(self, entity: Entity) -> None:
        for (verb, args), names in entity.deeds():
            try:
                self._caller.call(verb, *args)
            except Refused as error:
                self._note(f"{verb}{args}: {error}")
            else:
                log.info("Done verb=%s args=%s", verb, args)
                entity.did(names)

    def _note(self, trouble: str) -> None:
        """Log it, unless the last round met the same."""
        self._trouble.add(trouble)
        if trouble not in self._told:
            log.warning("%s", trouble)


def run(engine: Engine, wait: Callable[[], bool]) -> None:
    """Go round until `wait()`, which returns when it is time for another round, says that there is no other."""
    engine.round()
    while wait():
        engine.round()
