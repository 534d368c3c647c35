"""Slow actions: each in a process of its own, so that none holds up another, and one that does not end can be ended.

It promises that each call is answered within its action's time-out and a grace, once it has begun: a process whose time is over
undoes what it has begun, or is ended. One whose caller has gone goes on, for deeds are not half done; but none begins
for a caller that has gone.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from supervdsm import wire
from supervdsm.errors import Busy, Failed, TimedOut
from supervdsm.loop import HANDLED, Loop
from supervdsm.perform import Call, perform, received, refusal
from supervdsm.registry import Action, Context

MOST = 16
"""Processes at work at once. Further calls wait for their turn."""
MOST_STUCK = 64
"""Processes at all: one that hangs in the kernel cannot even be killed."""
MOST_WAITING = 64
GRACE = 5.0
"""Seconds after its time-out at which a process is ended, or ends should we not be there, that has not cleaned up by then."""


class Work:
    """A process at work, and the socket that it answers on."""

    def __init__(self, loop: Loop, call: Call, action: Action, sock: socket.socket) -> None:
        self.call, self.action = call, action
        self._loop = loop
        self._socket = sock

    def take_reply(self) -> None:
        """Answer the call if the process has answered. Does nothing the second time."""
        if self._socket.fileno() < 0:
            return
        try:
            packet = wire.receive(self._socket, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        self._loop.forget(self._socket)
        self._socket.close()
        if packet.data:
            self.call.answer(received(packet))


class Slow:
    """The slow calls: those that wait, and those that are at work."""

    def __init__(self, loop: Loop, context: Context, log_fd: int) -> None:
        self.waiting: deque[tuple[Call, Action, dict[str, Any]]] = deque()
        self.held = False
        """Whether none may begin."""
        self.on_quiet: Callable[[], None] = lambda: None
        """Called when a process has ended, for whoever waits until none is at work."""
        self._loop = loop
        self._context = context
        self._log_fd = log_fd
        self._at_work: dict[int, Work] = {}

    def at_work(self) -> list[str]:
        """Return the names of the actions that are at work and have not been given up."""
        return [work.action.name for work in self._at_work.values() if not work.call.answered]

    def ask(self, call: Call, action: Action, arguments: dict[str, Any]) -> None:
        """Begin, or wait for a turn."""
        if len(self.waiting) >= MOST_WAITING:
            call.answer(refusal(Busy(f"{action.name}: {MOST_WAITING} slow calls are waiting already")))
            return
        self.waiting.append((call, action, arguments))
        self.begin()

    def begin(self) -> None:
        """Begin what waits, as far as there is room."""
        while self.waiting and not self.held and len(self.at_work()) < MOST and len(self._at_work) < MOST_STUCK:
            call, action, arguments = self.waiting.popleft()
            if not call.is_wanted():
                call.answer(refusal(Failed(f"{action.name}: not begun, for its caller has given up")))
                continue
            try:
                self._start(call, action, arguments)
            except OSError as error:
                call.answer(refusal(Failed(f"{action.name}: no process for it: {error}")))

    def ended(self, pid: int, code: int) -> bool:
        """Take note of the end of a process. Say whether it was one of ours."""
        work = self._at_work.pop(pid, None)
        if work is None:
            return False
        work.take_reply()
        if not work.call.answered:
            work.call.answer(refusal(Failed(f"{work.action.name}: its process ended without an answer (code {code})")))
        self.begin()
        self.on_quiet()
        return True

    def _start(self, call: Call, action: Action, arguments: dict[str, Any]) -> None:
        ours, theirs = wire.pair()
        with theirs:
            try:
                pid = os.fork()
            except OSError:
                ours.close()
                raise
            if pid == 0:
                self._work(theirs, action, arguments)
        work = self._at_work[pid] = Work(self._loop, call, action, ours)
        self._loop.watch(ours, work.take_reply)
        self._loop.at(time.monotonic() + action.timeout + GRACE, lambda: self._give_up(pid, work))

    def _give_up(self, pid: int, work: Work) -> None:
        if self._at_work.get(pid) is not work:
            return
        work.take_reply()
        os.kill(pid, signal.SIGKILL)  # it is not reaped yet, so it is still this one
        with contextlib.suppress(ProcessLookupError):  # it may not lead its group yet
            os.killpg(pid, signal.SIGKILL)
        if not work.call.answered:
            work.call.answer(refusal(_too_late(work.action)))
            self.begin()
            self.on_quiet()

    def _work(self, theirs: socket.socket, action: Action, arguments: dict[str, Any]) -> None:
        """Be the process: nothing of the helper's is left in it but the log."""
        try:
            os.setsid()
            signal.set_wakeup_fd(-1)
            for number in HANDLED:
                signal.signal(number, signal.SIG_DFL)
            _limit(action)
            # The callers' connections above all: they must close with the helper, and not with its last slow action.
            keep = sorted({2, theirs.fileno(), self._log_fd})
            for low, high in zip(keep, [*keep[1:], 1 << 20], strict=True):
                os.closerange(low + 1, high)
            reply = perform(action, self._context, arguments)
            signal.setitimer(signal.ITIMER_REAL, 0)
            wire.send(theirs, reply.data, reply.fds)
        finally:
            os._exit(0)


def _limit(action: Action) -> None:
    """Have the action raise TimedOut when its time is over, and this process end when that does not end it."""

    def over(*_: object) -> None:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        raise _too_late(action)

    signal.signal(signal.SIGALRM, over)
    signal.setitimer(signal.ITIMER_REAL, action.timeout, GRACE)


def _too_late(action: Action) -> TimedOut:
    return TimedOut(f"{action.name} was not done within {action.timeout:g} s, and was ended")
