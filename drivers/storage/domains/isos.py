"""Files that people put into ISO domains: installation media and floppies."""

from __future__ import annotations

from drivers.errors import Failed
from drivers.storage.contract import ISO_IMAGE, Class, Domain
from drivers.storage.domains.domains import Domains, checked_id
from drivers.storage.domains.metadata import shown
from drivers.storage.errors import FileStatsFailed, NoSuchPool
from drivers.storage.helpers.files import Stat

NOT_READABLE = 469
"""The status, on the wire, of a file that guests could not be given."""
LONGEST_PATTERN = 256


class Isos:
    """For worker threads."""

    def __init__(self, domains: Domains) -> None:
        self._domains = domains

    def stats(self, uuid: str, pattern: str, *, case: bool) -> dict[str, dict[str, object]]:
        """Return the files of an ISO domain that match, by path. Sizes in bytes and times in seconds are strings; status 0 is
        one that can be used."""
        domain = self._domains.get(uuid)
        if not domain.is_iso:
            raise FileStatsFailed(action=f"listing the files of {uuid}", reason="it is no ISO domain")
        return {
            path: {
                "size": str(found.size),
                "ctime": str(int(found.changed)),
                "status": 0 if found.readable else NOT_READABLE,
            }
            for path, found in self._find(domain, pattern, case=case).items()
        }

    def list(self, pool: str, extension: str, failed: type[Failed]) -> list[str]:
        """Return the files with this extension in the ISO domain of a pool, those that can be used. Raises NoSuchPool, and
        `failed` when the pool has none, or it cannot be read."""
        domain = self._of_pool(checked_id(pool, "spUUID"), failed)
        try:
            found = self._find(domain, f"*.{extension.removeprefix('.')}", case=False)
        except OSError as error:
            raise failed(action=f"listing the files of {domain.uuid}", reason=error) from error
        return sorted(path for path, stat in found.items() if stat.readable)

    def _of_pool(self, pool: str, failed: type[Failed]) -> Domain:
        members = self._domains.all(pool=pool)
        if not members:
            raise NoSuchPool(kind="storage pool", name=pool, pool=pool)
        isos = [one.domain for one in members if one.domain.cls is Class.ISO]
        if not isos:
            raise failed(action=f"listing the files of pool {pool}", reason="it has no ISO domain")
        return isos[0]

    def _find(self, domain: Domain, pattern: str, *, case: bool) -> dict[str, Stat]:
        if len(pattern) > LONGEST_PATTERN:
            raise FileStatsFailed(action="listing files", reason="the pattern is too long")
        found = self._domains.files(domain).find(f"images/{ISO_IMAGE}", pattern, ignore_case=not case)
        return {path: stat for path, stat in found.items() if shown(path) == path}
