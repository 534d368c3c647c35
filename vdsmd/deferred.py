"""What the first answer does not need is imported here, right after it: from the running release's own files, all of them.

Nothing may be imported later, on demand: by then an upgrade may have changed the files.
"""

from __future__ import annotations

import importlib

MODULES = (
    "vdsmd.kept",
    "vdsmd.api.contract",
    "vdsmd.api.introspection",
    "vdsmd.host.survey",
    "drivers.vm.domxml",
    "drivers.vm.link",
)


def load() -> None:
    """Import all of them. Raises ImportError (rehearsed before every re-exec)."""
    for name in MODULES:
        importlib.import_module(name)
