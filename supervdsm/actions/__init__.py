"""What root does for us: one module per subject, one function per action. See `supervdsm.registry` for how to add one."""

from __future__ import annotations

import importlib
import pkgutil


def load() -> None:
    """Import every module of this folder, which fills the registry."""
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")
