"""Ovfs: the configurations of virtual machines that a pool keeps for its engine, on the master domain or on one for backups.

    master/vms/<vmUUID>/<vmUUID>.ovf

It promises that a configuration is there whole or not at all, and that only the SPM changes any. For worker threads.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from drivers.storage.contract import BLANK, Class, is_uuid
from drivers.storage.domains.domains import Domains, checked_id
from drivers.storage.domains.metadata import shown
from drivers.storage.errors import InvalidParameter, WrongClass
from drivers.storage.helpers.files import Files
from drivers.storage.pools.errors import NotInPool
from drivers.storage.pools.spm import Spm

PLACE = "master/vms"
LONGEST = 1 << 22
"""Bytes of a configuration."""


class Ovfs:
    def __init__(self, domains: Domains, spm: Spm) -> None:
        self._domains = domains
        self._spm = spm

    def names(self, pool: str, domain: str = "") -> list[str]:
        """Return the machines of which there is a configuration. Raises NotSpm, NotInPool, WrongClass."""
        return self._names(self._files(pool, domain))

    def read(self, pool: str, domain: str = "", machines: Iterable[str] = ()) -> dict[str, str]:
        """Return configurations by machine: of those asked for that are there, or of all."""
        files = self._files(pool, domain)
        wanted = [checked_id(one, "vmList") for one in machines] or self._names(files)
        texts = files.read_many([_place(one) for one in wanted], LONGEST)
        return {
            one: shown(text.decode("utf-8", "replace"))
            for one, text in zip(wanted, texts, strict=True)
            if text is not None
        }

    def write(self, pool: str, machines: Iterable[Mapping[str, object]], domain: str = "") -> None:
        """Keep configurations: structs of `vm`, its id, and `ovf`, the text. Raises InvalidParameter before any is kept."""
        files = self._files(pool, domain)
        for name, text in [_checked(one) for one in machines]:
            files.make_directory(f"{PLACE}/{name}", parents=True)
            files.write(_place(name), text)

    def remove(self, pool: str, machine: str, domain: str = "") -> None:
        """Keep the configuration of a machine no more. That there is none is no error."""
        name = checked_id(machine, "vmUUID")
        self._files(pool, domain).remove_tree(f"{PLACE}/{name}")

    def _names(self, files: Files) -> list[str]:
        try:
            return [name for name in files.names(PLACE) if is_uuid(name)]
        except FileNotFoundError:
            return []

    def _files(self, pool_id: str, domain: str) -> Files:
        pool = self._spm.need(pool_id)
        uuid = checked_id(domain) if domain and domain != BLANK else pool.master
        if uuid not in pool.members:
            raise NotInPool(kind="domain", name=uuid, domain=uuid, pool=pool.uuid)
        found = self._domains.get(uuid)
        if uuid != pool.master and found.cls is not Class.BACKUP:
            raise WrongClass(what="sdUUID", given=found.cls.label, reason="expected the master, or one for backups")
        return self._domains.files(found)


def _place(name: str) -> str:
    return f"{PLACE}/{name}/{name}.ovf"


def _checked(one: Mapping[str, object]) -> tuple[str, bytes]:
    name, ovf = one.get("vm"), one.get("ovf")
    if not isinstance(name, str) or not isinstance(ovf, str):
        raise InvalidParameter(what="vmList", reason="expected structs of vm and ovf, which are strings")
    text = ovf.encode("utf-8", "replace")
    if len(text) > LONGEST:
        raise InvalidParameter(what="vmList", reason=f"the ovf of {name[:60]!a} has more than {LONGEST} bytes")
    return checked_id(name, "vmList"), text
