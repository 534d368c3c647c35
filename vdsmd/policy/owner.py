"""The daemon's side of the policy engine: whether it runs, and what it is to follow.

It promises that the engine runs whenever there is something to follow, through every re-exec, and that it ends with the daemon:
the engine's standard input is a pipe of which the daemon holds the other end, and what becomes of the daemon, the kernel tells.
What clients set lies in files of the state directory, so that it holds until the host is started anew, also after a crash.
"""

from __future__ import annotations

import logging
import os
import select
import signal
import sys
import time
from typing import TYPE_CHECKING, Any

from drivers.base import Host, Still
from state.children import Child, Exit
from state.records import Record
from state.release import ROOT, VERSION
from vdsmd.config import Config

if TYPE_CHECKING:
    from vdsmd.policy.rules import Rules

log = logging.getLogger("policy")

NAME = "policy"
"""Of the child, and of our end of its pipe."""
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0
"""Seconds until an engine that ended is started again."""


GRACE = 2.0
"""Seconds that it gets to end when the daemon ends."""


def folder(run_dir: str) -> str:
    """Return where the daemon leaves for the engine what clients have set."""
    return os.path.join(run_dir, "state", "checkpoints", NAME)


class PolicyRecord(Record):
    release: str = ""
    """The release of the engine that runs."""


class PolicyEngine(Still):
    """An owner (`drivers.base.Owner`), and what the verbs about policies do."""

    name = NAME
    record: type[Record] = PolicyRecord

    def __init__(self, host: Host, config: Config) -> None:
        self._host = host
        self._config = config
        self._child: Child | None = None
        self._release = ""
        self._pause = FIRST_PAUSE
        self._started = 0.0
        self._timer: Any = None
        self._ending = False

    # The owner

    def snapshot(self) -> PolicyRecord:
        return PolicyRecord(release=self._release)

    def restore(self, record: Record) -> None:
        assert isinstance(record, PolicyRecord)
        self._release = record.release
        if self._host.fds.take(NAME) is not None:
            self._child = self._host.children.take(NAME, on_exit=self._ended)

    def recover(self) -> None:
        """The engine of a daemon that crashed has ended with it."""

    def start(self) -> None:
        if self._child is None:
            self._host.submit(lambda: self._rules().any(), self._looked)
        elif self._release != VERSION:
            self._let_go()  # and start that of our own release when it has ended

    def quiesce(self, deadline: float) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def reload(self, config: Config) -> None:
        """Take over a changed configuration."""
        changed = config.mom != self._config.mom
        self._config = config
        if changed and self._child is not None:
            self._let_go()
        elif changed:
            self.start()

    def end(self, deadline: float) -> None:
        """The daemon ends for good, and the engine with it: by `deadline` (monotonic clock) by itself, then by force."""
        self._ending = True
        if self._child is None:
            return
        self._let_go()
        pidfd = os.pidfd_open(self._child.pid)  # not reaped yet, since the loop does not turn any more
        try:
            for number in (signal.SIGTERM, signal.SIGKILL):
                self._host.children.signal(NAME, number)
                poll = select.poll()
                poll.register(pidfd, select.POLLIN)
                if poll.poll(min(max(0.5, deadline - time.monotonic()), GRACE) * 1000):
                    return
        finally:
            os.close(pidfd)

    # For verbs

    def status(self) -> str:
        """Return the momStatus of getVdsStats."""
        if not self._config.mom.enabled:
            return "disabled"
        return "inactive" if self._child is None else "active"

    def set_policy(self, text: str) -> None:
        """See `Rules.set_policy`. For worker threads."""
        self._rules().set_policy(text)
        self._changed("policy")

    def set_parameters(self, given: dict[str, Any]) -> None:
        """See `Rules.set_parameters`. For worker threads."""
        self._rules().set_parameters(given)
        self._changed("parameters")

    def _rules(self) -> Rules:
        from vdsmd.policy.rules import Rules  # deferred: `vdsmd.deferred` has it imported by now

        mom = self._config.mom
        return Rules(self._host.checkpoints.below(NAME), mom.policy_dir, mom.tuning_policy)

    # The engine

    def _changed(self, what: str) -> None:
        self._host.event("policy.changed", what=what)
        self._host.in_loop(self._nudge)

    def _nudge(self) -> None:
        if self._child is None:
            self._spawn()
            return
        try:
            os.write(self._host.fds[NAME], b"!")
        except (KeyError, BlockingIOError, BrokenPipeError):
            log.debug("The engine is not there to be told, or has not heeded what it was told")

    def _looked(self, wanted: bool | None, error: Exception | None) -> None:
        if error is not None:
            log.error("The policies cannot be read error=%s", error)
        if wanted:
            self._spawn()

    def _spawn(self) -> None:
        if self._child is not None or self._ending or not self._config.mom.enabled:
            return
        theirs, ours = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        os.set_blocking(theirs, True)
        # From our own release, whatever has become of the working directory.
        env = {**os.environ, "PYTHONPATH": ROOT, "PYTHONSAFEPATH": "1"}
        argv = [sys.executable, "-m", "vdsmd.policy", "--config", self._config.path]
        try:
            child = self._host.children.spawn(NAME, argv, on_exit=self._ended, env=env, files={0: theirs, 2: 2})
        except OSError as error:
            os.close(ours)
            log.error("The policy engine cannot be started error=%s", error)
            self._again()
            return
        finally:
            os.close(theirs)
        self._host.fds.hold(NAME, ours)
        self._child, self._release, self._started = child, VERSION, time.monotonic()
        log.info("Started the policy engine pid=%d", child.pid)

    def _let_go(self) -> None:
        """Close the pipe: the engine ends when it has seen it."""
        self._host.fds.drop(NAME)

    def _ended(self, end: Exit) -> None:
        log.log(
            logging.WARNING if end.code else logging.INFO, "The policy engine ended pid=%d code=%s", end.pid, end.code
        )
        if NAME in self._host.fds:
            self._host.fds.drop(NAME)
        self._child = None
        if time.monotonic() - self._started > LONGEST_PAUSE:
            self._pause = FIRST_PAUSE
        self._again()

    def _again(self) -> None:
        if not self._ending:
            self._timer = self._host.later(self._pause, self.start)
            self._pause = min(2 * self._pause, LONGEST_PAUSE)
