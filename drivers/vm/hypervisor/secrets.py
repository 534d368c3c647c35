"""Secrets that libvirt keeps for the disks of domains: a password for storage, under a uuid. For worker threads.

They are ephemeral and private: libvirt's daemon has them in its memory, and tells nobody. Where libvirt works inside of us it
keeps none. Raises from all calls: HypervisorDown, NotResponding, Failed.
"""

from __future__ import annotations

from typing import Any

import libvirt
from lxml import etree

from drivers.vm.hypervisor.domains import meaning

NAMED = {"ceph": "name", "iscsi": "target", "volume": "volume"}
"""The element of a secret's use, by its kind."""
OURS = "vdsm: "
"""What the description of every secret of ours begins with."""


class LinkSecrets:
    """See the module."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    def define(self, uuid: str, kind: str, usage_id: str, description: str, value: bytes) -> None:
        """Keep a secret; one with the same uuid and use gets the new value. `kind`: ceph, iscsi or volume."""
        secret = etree.Element("secret", ephemeral="yes", private="yes")
        etree.SubElement(secret, "uuid").text = uuid
        etree.SubElement(secret, "description").text = OURS + description
        usage = etree.SubElement(secret, "usage", type=kind)
        etree.SubElement(usage, NAMED[kind]).text = usage_id
        with meaning("keeping a secret"):
            self._connection.secretDefineXML(etree.tostring(secret, encoding="unicode")).setValue(value)

    def undefine(self, uuid: str) -> None:
        """Forget a secret, if there is one."""
        with meaning("forgetting a secret"):
            try:
                self._connection.secretLookupByUUIDString(uuid).undefine()
            except libvirt.libvirtError as error:
                if error.get_error_code() != libvirt.VIR_ERR_NO_SECRET:
                    raise

    def ours(self) -> list[str]:
        """Return the uuids of all secrets that we, or an earlier daemon of our kind, have had kept."""
        with meaning("listing secrets"):
            told = [(secret.UUIDString(), secret.XMLDesc()) for secret in self._connection.listAllSecrets()]
        return [uuid for uuid, xml in told if (etree.fromstring(xml).findtext("description") or "").startswith(OURS)]
