"""The service: the verb table, the dispatcher and the rim, put together for a daemon."""

from __future__ import annotations

from vdsmd.api import control, host, vm
from vdsmd.api.dispatch import Dispatcher
from vdsmd.api.http import Limits
from vdsmd.api.rim import Rim
from vdsmd.daemon import Daemon
from vdsmd.loop import Loop

VERBS = (vm, host, control)
"""Importing these fills the verb table."""


def open_service(daemon: Daemon, loop: Loop) -> Rim:
    """Return a rim that answers with the verbs of the table. It does not listen yet."""
    settings = daemon.config.vars
    dispatcher = Dispatcher(daemon, daemon.workers.submit, daemon.config.paths.run_dir)
    daemon.last_client = lambda: dispatcher.last_client
    limits = Limits(silence=settings.vds_responsiveness_timeout, keep_alive=settings.xmlrpc_http11)
    return Rim(loop, dispatcher.serve, limits=limits)
