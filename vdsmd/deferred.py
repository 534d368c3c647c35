"""What the first answer does not need is imported here, right after it: from the running release's own files, all of them.

Nothing may be imported later, on demand: by then an upgrade may have changed the files.
"""

from __future__ import annotations

import importlib

MODULES = (
    "vdsmd.kept",
    "vdsmd.hardening",
    "vdsmd.api.contract",
    "vdsmd.api.introspection",
    "vdsmd.api.hooked",
    # What a hook needs, where there is one.
    "drivers.programs",
    "hashlib",
    "tempfile",
    "vdsmd.host.survey",
    "vdsmd.host.fencing",
    "vdsmd.host.secrets",
    "vdsmd.policy.rules",
    "drivers.vm.xml.domain",
    "drivers.vm.hypervisor.link",
    "drivers.storage.parts",
    "drivers.storage.pools.spm_tasks",
    "drivers.storage.drives",
    "drivers.storage.images.images",
    "drivers.storage.images.volumes",
    "drivers.storage.images.waiting",
    "drivers.storage.tasks.tether",
    "drivers.storage.images.alignment",
    "drivers.storage.images.growing",
    "vdsmd.api.streams",
    "drivers.network.work",
    "drivers.network.legacy",
    "drivers.vm.works",
    "drivers.vm.made.taps",
    "drivers.vm.made.layers",
    "drivers.vm.made.hostdevs",
    "drivers.vm.travel.progress",
    "vdsmd.peers",
    "drivers.vm.agents.guest",
    "drivers.vm.agents.qemu",
    "drivers.vm.agents.remembered",
    "drivers.vm.agents.surveyor",
)


def load() -> None:
    """Import all of them. Raises ImportError (rehearsed before every re-exec)."""
    for name in MODULES:
        importlib.import_module(name)
