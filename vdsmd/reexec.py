"""Reexec: replace the running code, or say why not and go on as if not asked.

    idle -> rehearsing -> pending -> quiescing -> exec -> (the new run:) done
                 every state but the last may turn into refused, or cancelled

It promises that until `execve` itself every step can be taken back, and that a refusal loses nothing.
"""

from __future__ import annotations

import logging
import math
import os
import signal
import sys
import time
from collections.abc import Callable
from typing import Literal

import msgspec

from drivers.base import Owner, Still
from drivers.errors import Busy, DriverError
from state import threads
from state.handoff import Document, HandOff, Step
from state.points import Point, reached
from state.records import Record
from state.release import VERSION
from vdsmd import signals, takeover
from vdsmd.config import Vars
from vdsmd.departure import hurry, program, unhurry
from vdsmd.endpoints import Endpoints
from vdsmd.loop import Loop, Timer
from vdsmd.rehearsal import Rehearsal
from vdsmd.workers import Workers

log = logging.getLogger("reexec")

State = Literal["idle", "rehearsing", "pending", "quiescing", "done", "refused", "cancelled"]
ACTIVE = ("rehearsing", "pending", "quiescing")
LOOK_AGAIN = 0.01
TAKEOVER_AT_LEAST = 1.2
"""Seconds for a new run to serve in."""
TAKEOVER_MARGIN = 10
"""How many times as long as its rehearsal a run may take to serve. They do about the same work, on the same busy machine."""
PATIENCE = 5.0
"""Seconds to wait, once it is safe, for a moment in which no call is running, before the pause is begun all the same."""
STOPPING = "the daemon is being stopped"


class Outcome(msgspec.Struct, kw_only=True):
    """What became of the last request. Times in milliseconds; `waits_for` says what a pending one waits for. `closed_at` and
    `served_at` are when the pause began and ended, in seconds of the monotonic clock."""

    number: int = 0
    state: State = "idle"
    reason: str = ""
    waits_for: list[str] = []
    pause_ms: float = 0.0
    closed_at: float = 0.0
    served_at: float = 0.0
    steps: list[Step] = []


class ReexecRecord(Record):
    """The number of the request that is being carried out."""

    number: int = 0


class Reexec(Still):
    """Carries out one request at a time. Is an owner itself: the new run must know which request made it."""

    name = "reexec"
    record = ReexecRecord

    def __init__(
        self,
        loop: Loop,
        handoff: HandOff,
        workers: Workers,
        endpoints: Endpoints,
        owners: dict[str, Owner],
        *,
        arguments: list[str],
        settings: Callable[[], Vars],
        note: Callable[..., None],
    ) -> None:
        self.outcome = Outcome()
        self._loop = loop
        self._handoff = handoff
        self._workers = workers
        self._endpoints = endpoints
        self._owners = owners
        self._arguments = arguments
        self._settings = settings
        self._note = note
        self.on_change: Callable[[], None] = lambda: None
        """Called when a request has been made, waits for something else, or has ended."""
        self.kept = ""
        """Directory of the copy of our release that the next run can go back to; '' while there is none."""
        self.settled = False
        """Whether this run has imported and begun everything: before that, it does not know what it would hand over."""
        self._served_at = -math.inf
        self._again = False
        self._stopping = False
        self._rehearsal: Rehearsal | None = None
        self._timer: Timer | None = None
        self._steps: list[Step] = []
        self._rehearsal_took = 0.0
        self._since = 0.0
        self._closed_at = 0.0
        self._priority = 0

    @property
    def active(self) -> bool:
        """Whether a request is being carried out."""
        return self.outcome.state in ACTIVE

    def summary(self) -> str:
        """Say in a few words what becomes, or did not become, of the last request; '' when there is nothing to say."""
        told = self.outcome
        if told.state == "pending" and told.waits_for:
            return f"re-exec {told.number} waits for: {', '.join(told.waits_for)}"
        if self.active:
            return f"re-exec {told.number} is under way"
        return f"re-exec {told.number} was {told.state}: {told.reason}" if told.reason else ""

    # What is asked of us

    def request(self, *, now: bool = False) -> int:
        """Ask for a re-exec; return its number. `now`: be refused rather than wait for a safe point."""
        if self.outcome.state in ACTIVE:
            # What is on disk may have changed since the rehearsal began: rehearse once more, then go once.
            self._again = True
            self.on_change()
            return self.outcome.number
        self.outcome = Outcome(number=self.outcome.number + 1, state="rehearsing")
        self.on_change()
        log.info("Re-exec asked for number=%d", self.outcome.number)
        self._note("reexec.asked", number=self.outcome.number)
        objection = self._objection(now)
        if objection:
            self._refuse(objection)
        else:
            self._carefully(self._rehearse)
        return self.outcome.number

    def cancel(self) -> bool:
        """Take the request back. Say whether there was one that still could be."""
        if self.outcome.state not in ("rehearsing", "pending"):
            return False
        self._end("cancelled", "an operator cancelled it")
        return True

    def abandon(self) -> None:
        """The daemon is to stop: what is under way is taken back, and nothing is begun any more."""
        self._stopping = True
        if self.active:
            self._end("cancelled", STOPPING)

    def _objection(self, now: bool) -> str:
        """Say what speaks against even trying, '' if nothing does."""
        if self._stopping:
            return STOPPING
        settings = self._settings()
        waited = time.monotonic() - self._served_at
        if waited < settings.reexec_min_interval:
            return f"the last one was {waited:.1f} s ago, less than reexec_min_interval ({settings.reexec_min_interval:g} s)"
        free = self._handoff.free_bytes() / 2**20
        if free < settings.state_min_free_mb:
            return f"no room for the hand-off: {free:.1f} MiB free, state_min_free_mb is {settings.state_min_free_mb:g}"
        reasons = self._unsafe() if now else []
        return f"not at a safe point: {'; '.join(reasons)}" if reasons else ""

    # The steps. Each is called carefully, by the loop or by the one before it

    def _carefully(self, step: Callable[[], None]) -> None:
        try:
            step()
        except (DriverError, OSError) as error:
            self._refuse(str(error))
        except Exception as error:
            # The edge: until execve everything can be taken back, whatever went wrong, and must be.
            log.exception("A step of the re-exec failed number=%d", self.outcome.number)
            self._refuse(f"{type(error).__name__}: {error}")

    def _soon(self, seconds: float, step: Callable[[], None]) -> None:
        self._timer = self._loop.call_later(seconds, lambda: self._carefully(step))

    def _rehearse(self) -> None:
        self.outcome.state = "rehearsing"
        self._again = False
        self._steps = []
        self._since = time.monotonic()
        self._rehearsal = Rehearsal(
            self._loop,
            self._handoff.children,
            timeout=self._settings().rehearsal_timeout,
            verdict=lambda reason: self._carefully(lambda: self._rehearsed(reason)),
        )
        path = self._handoff.store(self._collect(), "rehearsal")
        reached(Point.REEXEC_SNAPSHOT)
        self._rehearsal.start(program(self._arguments), dict(os.environ), path)
        reached(Point.REEXEC_REHEARSE)

    def _rehearsed(self, reason: str | None) -> None:
        self._rehearsal = None
        self._rehearsal_took = time.monotonic() - self._since
        self._step("rehearse")
        reached(Point.REEXEC_REHEARSED)
        if reason is not None:
            self._refuse(reason)
        elif self._again:
            self._rehearse()
        else:
            self.outcome.state = "pending"
            for owner in self._owners.values():
                owner.settle()
            self._endpoints.wind_down()
            self._await_safe_point()

    def _await_safe_point(self) -> None:
        self._timer = None
        if self._again:
            self._rehearse()
            return
        reasons = self._unsafe()
        if reasons:
            self._say_pending(reasons)
            self._soon(LOOK_AGAIN, self._await_safe_point)
        elif self._workers.busy:
            self._say_pending(["calls are running"])
            self._workers.when_idle(lambda: self._carefully(self._settled))
            self._soon(PATIENCE, self._settled)
        else:
            self._settled()

    def _settled(self) -> None:
        """No call is running, or always another one is: look once more, for what calls may have begun."""
        self._stop_waiting()
        if self._unsafe() or self._again:
            self._await_safe_point()
            return
        self._step("settle")
        reached(Point.REEXEC_SETTLED)
        self._quiesce()

    def _stop_waiting(self) -> None:
        self._workers.when_idle(None)
        for waiting in (self._timer, self._rehearsal):
            if waiting is not None:
                waiting.cancel()
        self._timer = self._rehearsal = None

    def _quiesce(self) -> None:
        self.outcome.state = "quiescing"
        self._closed_at = time.monotonic()
        self._priority = hurry()
        self._soon(self._settings().quiesce_timeout, self._too_late)
        self._endpoints.drain(lambda: self._carefully(self._drained))

    def _too_late(self) -> None:
        raise Busy(what="a call in flight", reason="it did not end in time")

    def _drained(self) -> None:
        if self.outcome.state != "quiescing":
            return
        if self._workers.busy:
            # Work of our own, without a client: let it end, the deadline still runs.
            self._loop.call_later(0.001, lambda: self._carefully(self._drained))
            return
        if self._timer is not None:
            self._timer.cancel()
        self._step("drain")
        reached(Point.REEXEC_DRAINED)
        self._depart()

    def _depart(self) -> None:
        """Leave. Whatever is raised here is raised before the point of no return."""
        deadline = time.monotonic() + self._settings().quiesce_timeout
        for owner in self._owners.values():
            owner.quiesce(deadline)
        reached(Point.REEXEC_QUIET)
        self._workers.stop(deadline)
        left = threads.others()
        if left:
            raise Busy(what="thread " + ", ".join(left), reason="it did not end")
        self._step("join threads")
        reached(Point.REEXEC_ALONE)
        signals.block()
        document = self._collect()
        reached(Point.REEXEC_COLLECTED)
        path = self._handoff.store(document)
        reached(Point.REEXEC_STORED)
        sys.stdout.flush()
        sys.stderr.flush()
        # A request that has come meanwhile is met by this very exec.
        signals.pass_on({signal.SIGHUP, signal.SIGCHLD})
        env = takeover.environment(path, document.nonce, self.kept, [held.number for held in document.fds])
        takeover.limit(self._settings().takeover_timeout or self._fair_limit())
        self._handoff.depart(program(self._arguments), env)

    # Help

    def _collect(self) -> Document:
        records = {name: owner.snapshot() for name, owner in self._owners.items()}
        return self._handoff.collect(
            records,
            release=VERSION,
            arguments=self._arguments,
            closed_at=self._closed_at,
            priority=self._priority,
            steps=self._steps,
        )

    def _fair_limit(self) -> float:
        return max(TAKEOVER_AT_LEAST, TAKEOVER_MARGIN * self._rehearsal_took)

    def _unsafe(self) -> list[str]:
        return [reason for owner in self._owners.values() if (reason := owner.unsafe())]

    def _say_pending(self, reasons: list[str]) -> None:
        if reasons != self.outcome.waits_for:
            self.outcome.waits_for = reasons
            self.on_change()
            log.info("Re-exec waits number=%d for=%s", self.outcome.number, "; ".join(reasons))

    def _step(self, name: str) -> None:
        now = time.monotonic()
        self._steps.append(Step(name=name, ms=(now - self._since) * 1000))
        self._since = now

    def _refuse(self, reason: str) -> None:
        log.error("Re-exec refused number=%d reason=%s", self.outcome.number, reason)
        self._end("refused", reason)

    def _end(self, state: State, reason: str) -> None:
        self._stop_waiting()
        was = self.outcome.state
        self.outcome.state, self.outcome.reason, self.outcome.waits_for = state, reason, []
        self._note(f"reexec.{state}", number=self.outcome.number, reason=reason)
        self._again = False
        if was == "quiescing":
            takeover.limit(0)
            signals.unblock()
            unhurry(self._priority)
            self._workers.start()
            for owner in self._owners.values():
                owner.start()
        self._endpoints.resume()
        for owner in self._owners.values():
            owner.resume()
        self.on_change()

    # An owner too

    def snapshot(self) -> ReexecRecord:
        return ReexecRecord(number=self.outcome.number)

    def restore(self, record: Record) -> None:
        assert isinstance(record, ReexecRecord)
        self.outcome.number = record.number

    def served(self, steps: list[Step]) -> None:
        """The new run serves: tell what the re-exec that made it took."""
        document = self._handoff.document
        if document is None:
            return
        unhurry(document.priority)
        self._served_at = time.monotonic()
        self._loop.call_later(0, self._note_end)  # once it is committed
        failure = takeover.failed()
        if failure:
            self._came_back(failure)
            return
        self.outcome.state = "done"
        self.outcome.closed_at, self.outcome.served_at = document.closed_at, self._served_at
        self.outcome.pause_ms = (self._served_at - document.closed_at) * 1000
        self.outcome.steps = [*document.steps, *steps]
        told = " ".join(f"{step.name.replace(' ', '-')}={step.ms:.1f}" for step in self.outcome.steps)
        log.info("Re-exec done generation=%d pause_ms=%.1f %s", document.generation, self.outcome.pause_ms, told)

    def _came_back(self, failure: str) -> None:
        self.outcome.state = "refused"
        self.outcome.reason = f"the new release could not take over, and the previous one serves again: {failure}"
        log.error("Re-exec undone number=%d reason=%s", self.outcome.number, self.outcome.reason)

    def _note_end(self) -> None:
        told = self.outcome
        fields = {"pause_ms": f"{told.pause_ms:.1f}"} if told.state == "done" else {"reason": told.reason}
        self._note(f"reexec.{told.state}", number=told.number, generation=self._handoff.generation, **fields)

    def recover(self) -> None:
        """A cold start: nothing was asked for."""

    def unsafe(self) -> str | None:
        return None if self.settled else "this run is still settling in"
