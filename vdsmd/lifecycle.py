"""The life of the daemon in reading order: start or take over, serve, and stop or hand over."""

from __future__ import annotations

import gc
import logging
import os
import signal
import sys
import time
from typing import TYPE_CHECKING

from state import handoff as handoffs
from state.directory import StateDirectory
from state.handoff import Document, HandOff, Step
from state.points import Point, reached
from state.process import own_children, reap_orphans
from state.records import RecordError
from vdsmd import config as configuration
from vdsmd import instance, servicemanager, signals, takeover
from vdsmd import log as logs
from vdsmd.config import Config, ConfigError
from vdsmd.loop import Loop
from vdsmd.servicemanager import ServiceManager

if TYPE_CHECKING:
    from vdsmd.daemon import Daemon

log = logging.getLogger("lifecycle")

STOP_TIMEOUT = 10.0


def main(entered: float) -> int:
    """Return the exit status: 0 stopped on request, 1 could not start, 2 wrong command line or configuration. `entered`:
    when this run began to be ours, on the monotonic clock."""
    gc.disable()  # nothing made during start-up is garbage, and looking for it costs pause
    signals.block()
    document = _receive()
    if document is not None:
        return run(document.arguments, document, entered)
    from vdsmd import arguments  # only a cold start has a command line to look at

    options = arguments.parse(sys.argv[1:])
    if options.rehearse:
        from vdsmd.rehearse import rehearse

        return rehearse(options.rehearse, options.config)
    return run(arguments.canonical(options), None, entered)


def _receive() -> Document | None:
    """Return the document left for us, None on a cold start. What cannot be used is left to the previous release, or, when
    we are that, set aside: we start as after a crash."""
    path, nonce = takeover.handoff()
    if not path:
        return None
    try:
        document = handoffs.receive(path, nonce)
        if document.arguments[:1] != ["--config"] or len(document.arguments) < 2:
            raise RecordError("document.arguments: this is not a command line of ours")
        return document
    except (RecordError, OSError) as error:
        if takeover.can_go_back():
            raise
        # What was inherited has lost its names. The lock is among it, and would keep us out.
        os.closerange(3, 65536)
        StateDirectory(os.path.dirname(path)).set_aside(os.path.basename(path), str(error))
        return None


def run(arguments: list[str], document: Document | None, entered: float) -> int:
    """Serve until told to stop. Never returns from a successful re-exec."""
    try:
        config = configuration.load(arguments[1])
        reached(Point.START_CONFIG)
        logs.configure(config.paths.log_dir, config.vars.log_level, foreground="--daemon" not in arguments)
        reached(Point.START_LOG)
        handoff = HandOff(StateDirectory(os.path.join(config.paths.run_dir, "state")), document)
        return _serve(config, handoff, arguments, entered)
    except (ConfigError, instance.AlreadyRuns, OSError) as error:
        takeover.go_back(error)
        return _complain(error)


def _complain(error: Exception) -> int:
    """Say why we cannot start; return the exit status."""
    if isinstance(error, ConfigError):
        print(f"vdsmd: {error}", file=sys.stderr)
        return 2
    log.error("Cannot start: %s", error)
    print(f"vdsmd: cannot start: {error}", file=sys.stderr)
    return 1


def _serve(config: Config, handoff: HandOff, arguments: list[str], entered: float) -> int:
    manager = ServiceManager(handoff.fds)
    if handoff.document is None:
        handoff.fds.inherit(servicemanager.received())
    instance.lock(handoff.fds, config.paths.run_dir)
    reached(Point.START_LOCK)
    from vdsmd.daemon import Daemon
    from vdsmd.endpoints import Endpoints
    from vdsmd.service import open_service

    imported = time.monotonic()
    reached(Point.START_IMPORT)
    endpoints = Endpoints(handoff.fds, config)
    reached(Point.START_LISTEN)
    if "--daemon" in arguments and handoff.document is None:
        from vdsmd import background

        background.detach()
        instance.renew(handoff.fds)
    loop = Loop()
    daemon = Daemon(config, handoff, loop, endpoints, arguments)
    daemon.take_over()
    reached(Point.START_RESTORED)
    restored = time.monotonic()
    endpoints.serve(open_service(daemon, loop), daemon.generation)
    reached(Point.START_SERVE)
    daemon.reexec.served(_steps(handoff.document, entered, imported, restored))
    _listen_to_signals(daemon, loop, manager)
    loop.call_later(0, lambda: _settle_in(daemon))
    reached(Point.START_COMMIT)
    handoff.commit()
    takeover.commit()
    daemon.reexec.on_change = manager.changed
    manager.serve(loop, reloading=lambda: daemon.reexec.active, describe=daemon.summary)
    loop.run()
    manager.stopping()
    return _stop(daemon, endpoints, loop)


def _settle_in(daemon: Daemon) -> None:
    gc.enable()
    gc.freeze()
    daemon.settle_in()


def _listen_to_signals(daemon: Daemon, loop: Loop, manager: ServiceManager) -> None:
    # libvirt has not been opened yet: these are the previous image's, and whoever waited for them went with it.
    left = frozenset(own_children())

    def reap() -> None:
        for pid, code in reap_orphans(daemon.handoff.children.pids(), left):
            log.debug("Reaped an orphan pid=%d code=%d", pid, code)

    def ask_for_reexec() -> None:
        daemon.request_reexec()

    signals.deliver(
        loop,
        {
            signal.SIGHUP: ask_for_reexec,
            signal.SIGUSR1: lambda: manager.reload(daemon.reload),
            signal.SIGTERM: daemon.leave,
            signal.SIGINT: daemon.leave,
            signal.SIGCHLD: reap,
        },
    )
    signals.unblock()
    reap()


def _stop(daemon: Daemon, endpoints: object, loop: Loop) -> int:
    """Deliver the answers that are owed, and end. Everything we manage goes on without us."""
    from vdsmd.endpoints import Endpoints

    assert isinstance(endpoints, Endpoints)
    log.info("Stopping; virtual machines are left running")
    drained: list[bool] = []
    deadline = time.monotonic() + STOP_TIMEOUT
    endpoints.drain(lambda: drained.append(True))
    while not drained and time.monotonic() < deadline:
        loop.turn(0.05)
    endpoints.withdraw()
    try:
        daemon.stop(deadline)
    except Exception as error:
        # Whatever holds a thread up must not hold up the end: checkpoints are what the next start needs.
        log.error("Stopped while something was still at work reason=%s", error)
    log.info("Stopped")
    logging.shutdown()
    os._exit(0)  # libvirt's threads may still be at work, and the interpreter's tear-down waits for nobody's good


def _steps(document: Document | None, entered: float, imported: float, restored: float) -> list[Step]:
    if document is None:
        return []
    marks = [document.departed_at, entered, imported, restored, time.monotonic()]
    names = ("exec", "import", "restore", "serve")
    return [Step(name=n, ms=(b - a) * 1000) for n, a, b in zip(names, marks, marks[1:], strict=False)]
