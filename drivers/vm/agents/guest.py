"""One guest: the connection to the oVirt agent in it, and all that its agents have told.

It promises to be connected while the machine runs, whatever becomes of the agent, and that nothing a guest sends hurts anyone
but itself. Imported after the first answer.
"""

from __future__ import annotations

import errno
import logging
import socket
import time
from typing import Any

import msgspec

from drivers.base import Host
from drivers.errors import NotResponding
from drivers.vm.agents.channel import Channel, Floods, Lines
from drivers.vm.agents.messages import API, Unintelligible, agreed, read, take, written
from drivers.vm.agents.told import ALIVE, Kept, statistics
from drivers.vm.contract import AGENT, AGENT_CHANNELS, channel, name_of
from drivers.vm.machine import Machine
from supervdsm.client import ActionError

log = logging.getLogger("guest")

SOON = 1.0
LATE = 30.0
ATTEMPTS = 5
"""Attempts to connect that follow each other soon."""
SURVEY_INTERVAL = 30.0
"""Seconds between two questions to QEMU's guest agent."""
MOST_BEGUN = 4 << 20
KNOWS_LIFE_CYCLE = 3
"""The version of the protocol since which an agent can be told what has happened to its guest."""


def load(data: str) -> dict[str, Kept]:
    """Return what `save` made text of. Raises what `state.records.UNREADABLE` lists."""
    return msgspec.json.decode(data, type=dict[str, Kept])


def save(kept: dict[str, Kept]) -> str:
    """Return it as text. Of lines that have arrived in part there is a limit for all guests together: the longest are given up,
    and no guest can make an exec last by what it has begun to say."""
    room, saved = MOST_BEGUN, {}
    for vm_id, one in sorted(kept.items(), key=lambda item: len(item[1].begun)):
        room -= len(one.begun)
        fits = room >= 0 or not one.begun
        saved[vm_id] = one if fits else msgspec.structs.replace(one, begun=b"", skipping=True)
    return msgspec.json.encode(saved).decode()


class Guest:
    """See the module. All calls come from the loop's thread, but `responds`, `surveyed_lately` and `statistics`, which any may
    make."""

    def __init__(self, host: Host, machine: Machine, kept: Kept, floods: Floods | None = None) -> None:
        self.machine = machine
        self.kept = kept
        self.survey_due = kept.surveyed + SURVEY_INTERVAL if kept.surveyed else 0.0
        self.survey_failures = 0
        self._host = host
        self._floods = floods
        self._channel: Channel | None = None
        self._failures = 0
        self._retry: Any = None
        self._admitted = False
        self._bad = 0
        self._greet = False

    # The connection

    def adopt(self, fd: int) -> None:
        """Go on with the connection that the previous run had, in the middle of a line if need be."""
        self._open(fd)

    def connect(self) -> None:
        """Be connected, or try again later by oneself."""
        if self._channel is not None or self._retry is not None:
            return
        try:
            fd = self._connected()
        except OSError as error:
            self._failed(error)
            return
        self._failures = 0
        self.kept.begun, self.kept.skipping, self.kept.unsent = b"", False, b""
        self._open(self._host.fds.hold(name_of(self.machine.vm_id, AGENT), fd))
        # It waits in the channel until there is an agent, which then tells all it knows.
        self._send(written("refresh", apiVersion=API))

    def hurry(self) -> None:
        """Do not wait for the next attempt to connect: its channel should be there by now."""
        if self._channel is None:
            self.stop()
            self._failures = 0

    def start(self) -> None:
        """Listen again after `stop`."""
        if self._channel is not None:
            self._channel.start()

    def stop(self) -> None:
        """Do nothing by oneself until `start`, or `connect`."""
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        if self._channel is not None:
            self._channel.stop()

    def close(self) -> None:
        """Let go of the connection."""
        self.stop()
        self._channel = None
        self._host.fds.drop(name_of(self.machine.vm_id, AGENT))

    def snapshot(self) -> Kept:
        if self._channel is not None:
            lines = self._channel.lines
            self.kept.begun, self.kept.skipping = bytes(lines.begun), lines.skipping
            self.kept.unsent = bytes(self._channel.unsent)
        return self.kept

    def _connected(self) -> int:
        path = channel(f"{self._host.run_dir}/channels", self.machine.vm_id, AGENT_CHANNELS[0])
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC) as ours:
            ours.connect(path)
            return ours.detach()

    def _open(self, fd: int) -> None:
        kept = self.kept
        lines = Lines(kept.begun, skipping=kept.skipping)
        self._channel = Channel(self._host, fd, lines, kept.unsent, self._heard, self._ended, self._floods)
        self._channel.start()

    def _failed(self, error: OSError) -> None:
        self._failures += 1
        level = logging.WARNING if self._failures == ATTEMPTS else logging.DEBUG
        log.log(level, "A guest's channel cannot be opened, trying on vm=%s error=%s", self.machine.vm_id, error)
        if error.errno == errno.EACCES and not self._admitted:
            self._admitted = True
            self._host.submit(self._ask_for_admission, self._answered, key=f"{self.machine.vm_id}/agent")
        self._retry = self._host.later(SOON if self._failures < ATTEMPTS else LATE, self._again)

    def _ask_for_admission(self) -> None:
        """In a worker: QEMU runs as another user, and its sockets are not for us until root says so."""
        self._host.root.call("channel.admit", vm_id=self.machine.vm_id, channel=AGENT_CHANNELS[0])

    def _answered(self, _: object, error: Exception | None) -> None:
        if isinstance(error, ActionError):
            log.warning("No access to a guest's channel vm=%s error=%s", self.machine.vm_id, error)
        elif error is not None:
            log.error("Unexpected failure vm=%s", self.machine.vm_id, exc_info=error)

    def _again(self) -> None:
        self._retry = None
        if not self.machine.is_down:
            self.connect()

    def _ended(self) -> None:
        """QEMU has closed its end: it is ending, or about to open another."""
        log.info("A guest's channel was closed vm=%s", self.machine.vm_id)
        self.close()
        self.kept.report.heartbeat = 0.0
        self._failures += 1
        self._retry = self._host.later(SOON if self._failures < ATTEMPTS else LATE, self._again)

    # What is said

    def tell(self, kind: str, **fields: str | int) -> None:
        """Send a message to the agent. Raises NotResponding unless it is known to listen."""
        if not self.responds:
            raise NotResponding(what="the guest agent", reason="there is none, or it has been silent for too long")
        self._send(written(kind, **fields))

    def announce(self, event: str, patience: float) -> None:
        """Tell the agent what has happened to its guest: now, or as soon as it is there and says that it understands, if that
        is within `patience` seconds."""
        self.kept.news, self.kept.news_until = event, time.monotonic() + patience
        self.kept.unwritten = True
        if self.responds:
            self._tell_news()

    def _tell_news(self) -> None:
        event = self.kept.news
        if event and time.monotonic() < self.kept.news_until:
            if self.kept.report.api < KNOWS_LIFE_CYCLE:
                return  # it may say so yet
            try:
                self._send(written("lifecycle-event", type=event))
            except NotResponding as error:
                log.debug("A guest is not told yet vm=%s event=%s error=%s", self.machine.vm_id, event, error)
                return
            log.info("A guest was told what has happened to it vm=%s event=%s", self.machine.vm_id, event)
        self.kept.news = ""

    def _send(self, line: bytes) -> None:
        if self._channel is not None:
            self._channel.send(line)

    def _heard(self, lines: list[bytes]) -> None:
        for line in lines:
            try:
                message = read(line)
            except Unintelligible as error:
                self._complain(error)
                continue
            silent = time.monotonic() - self.kept.report.heard > ALIVE
            take(self.kept.report, message)
            if message.kind == "heartbeat":
                self._agree(agreed(message), anew=silent or self._greet)
                self._tell_news()
            else:
                self.kept.unwritten = True
            # What starts has forgotten what was agreed upon.
            self._greet = message.kind in ("session-startup", "uninstalled") or (
                self._greet and message.kind != "heartbeat"
            )

    def _agree(self, version: int, *, anew: bool) -> None:
        """Tell an agent which version of the protocol holds from now on, if it knows of versions, and does not know yet."""
        before, self.kept.report.api = self.kept.report.api, version
        if version and (anew or version != before):
            try:
                self._send(written("api-version", apiVersion=version))
            except NotResponding as error:
                log.debug("No version is agreed upon vm=%s error=%s", self.machine.vm_id, error)
                self.kept.report.api = 0  # the next heartbeat is another occasion

    def _complain(self, error: Unintelligible) -> None:
        self._bad += 1
        if self._bad & (self._bad - 1) == 0:  # the 1st, 2nd, 4th, 8th ...: a guest must not fill our log
            log.warning(
                "A guest sends what is no message vm=%s count=%d reason=%s", self.machine.vm_id, self._bad, error
            )

    # Questions

    @property
    def responds(self) -> bool:
        """Whether the oVirt agent is there to be told something."""
        return self._channel is not None and 0.0 < self.kept.report.heartbeat > time.monotonic() - ALIVE

    @property
    def surveyed_lately(self) -> bool:
        """Whether QEMU's guest agent can be counted upon: it has answered when it was asked."""
        return self.kept.surveyed > 0.0

    def statistics(self, patience: float) -> dict[str, Any]:
        """Return what the guest told, for its statistics. See `told.statistics`."""
        mem_size = int(self.machine.conf.get("memSize", 0))
        return statistics(self.kept, mem_size=mem_size, now=time.monotonic(), patience=patience)
