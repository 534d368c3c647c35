"""HostFacts: what this host is and how it fares, for the verbs that ask.

It promises that statistics are answered from memory, at once, in every phase of the daemon's life: after a re-exec they go
on where they stood, and rates are over the time between two samples, wherever the exec fell.

An engine takes a new `generationID` for a daemon that has restarted and may have forgotten what it was doing. A re-exec
forgets nothing, so the id is kept over it, and is new only on a cold start.

The modules that read the host (sampling, capabilities, links, ...) are imported by `start`, after the first answer.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from drivers.base import Host
from drivers.errors import NotResponding
from drivers.vm.contract import Identity, Virt
from state.records import Part, Record
from vdsmd.config import Config, Vars

if TYPE_CHECKING:
    from vdsmd.host.survey import Survey

log = logging.getLogger("host")

READY_WITHIN = 30.0
"""Seconds that a verb waits for the first `start` after an exec. It takes well under a tenth of one."""

SHORTEST = 0.05
"""Seconds between two samples at least, whatever the configuration says."""

NO_HOSTED_ENGINE = {
    "configured": False,
    "active": False,
    "score": 0,
    "globalMaintenance": False,
    "localMaintenance": False,
}


class Shown(msgspec.Struct, kw_only=True, frozen=True):
    """Which network devices the operator shows and hides: patterns, as in the settings of the same names."""

    hidden_nics: tuple[str, ...] = ("w*", "usb*")
    hidden_bonds: tuple[str, ...] = ()
    hidden_vlans: tuple[str, ...] = ()
    fake_nics: tuple[str, ...] = ("dummy_*", "veth_*")


class Settings(msgspec.Struct, kw_only=True, frozen=True):
    """The part of the configuration that host facts depend on. Memory in MiB."""

    interval: float = 15.0
    host_reserve: int = 256
    extra_reserve: int = 65
    guest_overhead: int = 65
    threads_as_cores: bool = False
    fake_kvm: bool = False
    shown: Shown = Shown()


def settings(given: Vars) -> Settings:
    """Return the part of the configuration's [vars] that concerns the host."""
    return Settings(
        interval=given.host_sample_stats_interval,
        host_reserve=given.host_mem_reserve,
        extra_reserve=given.extra_mem_reserve,
        guest_overhead=given.guest_ram_overhead,
        threads_as_cores=given.report_host_threads_as_cores,
        fake_kvm=given.fake_kvm_support,
        shown=Shown(
            hidden_nics=_patterns(given.hidden_nics),
            hidden_bonds=_patterns(given.hidden_bonds),
            hidden_vlans=_patterns(given.hidden_vlans),
            fake_nics=_patterns(given.fake_nics),
        ),
    )


def _patterns(words: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in words.split(",") if word.strip())


class Guests(Protocol):
    """What host facts ask of the VM driver, for every answer anew. It must not block."""

    def statuses(self) -> list[str]:
        """Return the status of each virtual machine."""

    def committed(self) -> int:
        """Return the memory in MiB that is promised to virtual machines which are not Down."""

    def virt(self) -> Virt: ...


class Networks(Protocol):
    """What host facts ask of the network driver."""

    @property
    def dirty(self) -> bool: ...

    def facts(self, info: dict[str, Any]) -> dict[str, Any]:
        """Return the keys of getVdsCapabilities about networks. For worker threads."""


class NoNetworks:
    """Stands where the network driver would."""

    dirty = False

    def facts(self, info: dict[str, Any]) -> dict[str, Any]:
        return {}


class Link(Part, frozen=True):
    """The counters of one network device. Speed in Mb/s, 0 when unknown."""

    kind: str = "nics"
    rx: int = 0
    tx: int = 0
    rx_dropped: int = 0
    tx_dropped: int = 0
    rx_errors: int = 0
    tx_errors: int = 0
    speed: int = 0
    up: bool = False


class Sample(Part, frozen=True):
    """The counters of the host at one time of the monotonic clock. The empty one stands for the moment of boot."""

    at: float = 0.0
    cpus: dict[str, list[int]] = {}
    """Ticks of [user, system, idle, all], by the names of /proc/stat."""
    own: list[int] = []
    """Ticks of [user, system] of this daemon."""
    ksmd: int = 0
    links: dict[str, Link] = {}


class HostRecord(Record):
    generation_id: str
    since: float
    """When the cold start was, by the monotonic clock."""
    sample: Sample = Sample()
    statistics: dict[str, Any] = {}


class HostFacts:
    """The owner of all host facts."""

    name = "host"
    record: type[Record] = HostRecord

    def __init__(self, host: Host, config: Config, guests: Guests, *, root: str = "/") -> None:
        self.networks: Networks = NoNetworks()
        self.mom_status: Callable[[], str] = lambda: "disabled"
        """Returns active, inactive or disabled; the policy engine's owner knows."""
        self._host = host
        self._guests = guests
        self._settings = settings(config.vars)
        self._root = root
        self._state = HostRecord(generation_id="", since=0.0)
        self._survey: Survey | None = None
        self._loaded = threading.Event()
        self._timer: Any = None

    @property
    def generation_id(self) -> str:
        return self._state.generation_id

    def snapshot(self) -> HostRecord:
        return self._state

    def restore(self, record: Record) -> None:
        assert isinstance(record, HostRecord)
        self._state = record

    def recover(self) -> None:
        with open("/proc/sys/kernel/random/uuid", encoding="ascii") as file:
            generation_id = file.read().strip()
        self._state = HostRecord(generation_id=generation_id, since=time.monotonic())
        self._keep(*self._look())

    def start(self) -> None:
        self._load()
        self._sample_in(self._settings.interval - (time.monotonic() - self._state.sample.at))

    def reload(self, config: Config) -> None:
        """Take over a changed configuration; a new interval holds from the next sample on."""
        self._settings = settings(config.vars)

    def unsafe(self) -> str | None:
        return None

    def settle(self) -> None:
        """A sample taken or not taken changes nothing that could be lost."""

    def resume(self) -> None:
        """Sampling has never stopped."""

    def quiesce(self, deadline: float) -> None:
        """Samples run in worker threads, which are the daemon's to stop; only the next one must not begin."""
        if self._timer is not None:
            self._timer.cancel()

    def statistics(self) -> dict[str, Any]:
        """Return the info of getVdsStats, apart from storage domains, from memory. Any thread."""
        now = time.monotonic()
        return {
            **self._state.statistics,
            **_guest_counts(self._guests),
            "dateTime": time.strftime("%Y-%m-%dT%H:%M:%S GMT", time.gmtime()),
            "elapsedTime": str(int(now - self._state.since)),
            "statsAge": str(int(now - self._state.sample.at)),
            "generationID": self._state.generation_id,
            "momStatus": self.mom_status(),
            "netConfigDirty": str(self.networks.dirty),
            "v2vJobs": {},
            "haStats": dict(NO_HOSTED_ENGINE),
        }

    def capabilities(self, client: str) -> dict[str, Any]:
        """Return the info of getVdsCapabilities, as the host is now. Reads many small files: for worker threads.

        `client` is the address (and port) of the client that called last over the network, or ''.
        """
        info = self._surveyor().capabilities(self._settings, self._guests.virt(), client)
        return info | self.networks.facts(info)

    def identity(self) -> Identity:
        """Return what guests are told of this host. For worker threads."""
        return self._surveyor().identity()

    def devices(self, capabilities: list[str]) -> dict[str, dict[str, Any]]:
        """Return the deviceList of hostdevListByCaps. For worker threads."""
        return self._surveyor().devices(capabilities)

    def hardware(self) -> dict[str, str]:
        """Return the info of getVdsHardwareInfo. Raises HardwareUnknown. For worker threads."""
        return self._surveyor().hardware()

    def _load(self) -> Survey:
        # Deferred: needed only after the first answer, or on a cold start, where nobody waits for it.
        from vdsmd.host.survey import Survey

        if self._survey is None:
            self._survey = Survey(self._root, self._host.root)
            self._loaded.set()
        return self._survey

    def _surveyor(self) -> Survey:
        if not self._loaded.wait(READY_WITHIN) or self._survey is None:
            raise NotResponding(what="the survey of the host", reason="it has not been loaded since the start")
        return self._survey

    def _sample_in(self, seconds: float) -> None:
        self.quiesce(0)
        self._timer = self._host.later(max(SHORTEST, seconds), self._tick)

    def _tick(self) -> None:
        self._host.submit(self._look, self._sampled, key="host/sample")

    def _look(self) -> tuple[Sample, dict[str, Any]]:
        return self._load().look(self._settings.shown, self._state.sample)

    def _sampled(self, seen: tuple[Sample, dict[str, Any]] | None, error: Exception | None) -> None:
        if seen is None:
            log.warning("Host statistics could not be sampled, the last ones stay error=%s", error)
        else:
            self._keep(*seen)
        self._sample_in(self._settings.interval)

    def _keep(self, sample: Sample, statistics: dict[str, Any]) -> None:
        self._state.sample, self._state.statistics = sample, statistics


def _guest_counts(guests: Guests) -> dict[str, int]:
    statuses = guests.statuses()
    incoming = statuses.count("Migration Destination")
    outgoing = statuses.count("Migration Source")
    return {
        "vmCount": len(statuses),
        "vmActive": statuses.count("Up"),
        "vmMigrating": incoming + outgoing,
        "incomingVmMigrations": incoming,
        "outgoingVmMigrations": outgoing,
        "memCommitted": guests.committed(),
    }
