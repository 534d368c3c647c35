"""Parts: all that the storage driver is made of, beyond what the first answer needs."""

from __future__ import annotations

from collections.abc import Callable

from drivers.base import Host
from drivers.storage.connections.connections import Connections
from drivers.storage.connections.connector import Connector
from drivers.storage.contract import Settings
from drivers.storage.domains.domains import Domains
from drivers.storage.domains.isos import Isos
from drivers.storage.domains.making import Maker
from drivers.storage.domains.monitors import Monitors
from drivers.storage.drives import Drives
from drivers.storage.helpers.remotes import Remotes
from drivers.storage.leases.hostids import HostIds
from drivers.storage.leases.keeping import Keeping
from drivers.storage.leases.leasing import Leasing
from drivers.storage.pools.links import Links
from drivers.storage.pools.making import PoolMaker
from drivers.storage.pools.members import Members
from drivers.storage.pools.ovfs import Ovfs
from drivers.storage.pools.pools import Pools
from drivers.storage.pools.spm import Spm
from drivers.storage.pools.spools import Spools


class Parts:
    def __init__(
        self,
        host: Host,
        settings: Callable[[], Settings],
        remotes: Remotes,
        keeping: Keeping,
        changed: Callable[[], None],
    ) -> None:
        connector = Connector(host, settings, remotes)
        self.connections = Connections(host, settings, connector, changed)
        self.domains = Domains(host, remotes, self.connections)
        self.maker = Maker(host, settings, remotes, self.connections, self.domains)
        self.isos = Isos(self.domains)
        self.monitors = Monitors(host, settings, remotes, self.domains, changed)
        remotes.on_report = self.monitors.heard
        self._lead(host, settings, remotes, keeping, changed)

    def _lead(
        self,
        host: Host,
        settings: Callable[[], Settings],
        remotes: Remotes,
        keeping: Keeping,
        changed: Callable[[], None],
    ) -> None:
        """All about pools and their SPM."""
        self.leasing = Leasing(keeping, self.domains, f"{host.run_dir}/tasks", lambda: settings().sanlock_io_timeout)
        self.host_ids = HostIds(host, settings, self.monitors, self.domains, self.leasing)
        links = Links(lambda: settings().repository)
        self.pools = Pools(host, self.domains, self.monitors, self.host_ids, links, changed)
        self.spm = Spm(host, self.pools, self.domains, self.leasing, remotes)
        self.spools = Spools(self.domains, self.pools)
        limit = lambda: settings().most_domains  # noqa: E731
        self.pool_maker = PoolMaker(host, self.domains, self.pools, self.spm, self.leasing, limit)
        self.members = Members(host, self.domains, self.pools, self.spm, self.leasing, self.spools, limit)
        self.drives = Drives(self.domains, self.pools, host.run_dir)
        self.ovfs = Ovfs(self.domains, self.spm)
        keeping.on_lost = self.spm.lost
        self.monitors.has_host_id = self.host_ids.has
        self.maker.refuse_format = self.pools.refuse_format
        self.maker.on_created = self.leasing.initialise
