"""Parts: all that the storage driver is made of, beyond what the first answer needs."""

from __future__ import annotations

from collections.abc import Callable

from drivers.base import Host
from drivers.storage.connections import Connections
from drivers.storage.connector import Connector
from drivers.storage.contract import Settings
from drivers.storage.domains import Domains
from drivers.storage.isos import Isos
from drivers.storage.making import Maker
from drivers.storage.monitors import Monitors
from drivers.storage.remotes import Remotes


class Parts:
    def __init__(
        self, host: Host, settings: Callable[[], Settings], remotes: Remotes, changed: Callable[[], None]
    ) -> None:
        connector = Connector(host, settings, remotes)
        self.connections = Connections(host, settings, connector, changed)
        self.domains = Domains(host, remotes, self.connections)
        self.maker = Maker(host, settings, remotes, self.connections, self.domains)
        self.isos = Isos(self.domains)
        self.monitors = Monitors(host, settings, remotes, self.domains, changed)
        remotes.on_report = self.monitors.heard
