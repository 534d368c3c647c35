"""Verbs about this host: is it there, what can it do, how does it fare."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from drivers.errors import Invalid
from vdsmd.api.table import Reply, verb

if TYPE_CHECKING:
    from vdsmd.daemon import Daemon

log = logging.getLogger("api")


@verb("ping", quick=True, alive=True, cli="host ping")
def ping(daemon: Daemon) -> Reply:
    """Answer, to show that the daemon is there."""
    return {}


@verb("getVdsCapabilities", alive=True, cli="host caps")
def get_vds_capabilities(daemon: Daemon) -> Reply:
    """Return what this host can do and has.

    `info` holds processors, memory, network devices, releases, identity, and what guests may be made of.
    """
    return {"info": daemon.host.capabilities(daemon.last_client())}


@verb("getVdsStats", quick=True, cli="host stats")
def get_vds_stats(daemon: Daemon) -> Reply:
    """Return how this host fares.

    `info` holds load, memory, network rates and counts of virtual machines, sampled every 15 seconds.
    `generationID` changes when the daemon has started anew, and stays when it has only re-executed itself.
    """
    return {"info": daemon.host.statistics()}


@verb("getVdsHardwareInfo", cli="host hardware")
def get_vds_hardware_info(daemon: Daemon) -> Reply:
    """Return what the firmware says about this machine.

    Keys of `info` that it does not tell are absent; when it tells none, the answer is code 57.
    """
    return {"info": daemon.host.hardware()}


@verb("setLogLevel", quick=True, cli="host log-level")
def set_log_level(daemon: Daemon, level: int | str, name: str = "") -> Reply:
    """Log only messages of this severity and above.

    `level` is 10 (DEBUG), 20 (INFO), 30 (WARNING), 40 (ERROR) or 50 (CRITICAL), as a number, a string or a name. `name`
    limits it to the logger of one role. Forgotten at the next re-exec or start, when the configuration's `log_level`
    is in force again.
    """
    logging.getLogger(name or None).setLevel(_severity(level))
    log.warning("Log level set level=%s logger=%s", level, name or "all")
    return {}


def _severity(level: int | str) -> int:
    text = str(level).strip()
    number = (
        int(text)
        if text.isascii() and text.isdigit() and len(text) < 4
        else logging.getLevelNamesMapping().get(text.upper(), 0)
    )
    if not logging.NOTSET < number <= logging.CRITICAL:
        raise Invalid(what=f"log level {level!r}", reason="expected a number from 1 to 50, or a name such as DEBUG")
    return number
