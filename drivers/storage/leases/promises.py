"""Promises: which of them can be kept here, for whoever must know before relying on it.

It promises to say so without asking any storage, and without starting anything.
"""

from __future__ import annotations

import importlib.util
import os
import socket
from typing import Any

PATIENCE = 1.0
NOT_PROMISED = (
    "No other host is kept from being the SPM of a pool, and none sees whether this one lives: only local directories can have"
    " an SPM, and no other host must reach them"
)


def told() -> dict[str, Any]:
    """Return how leases are held on this host, as getVdsCapabilities tells it: `way` (sanlock, or local: by a lock of the
    kernel); `reason`, why it is not sanlock; `notPromised`, what that means. Both are empty where nothing is amiss.
    """
    missing = without_sanlock()
    return {"way": "local" if missing else "sanlock", "reason": missing, "notPromised": NOT_PROMISED if missing else ""}


def without_sanlock() -> str:
    """Return why sanlock cannot be used here, '' when it can, as far as a glance tells."""
    if importlib.util.find_spec("sanlock") is None:
        return "its Python binding is not installed"
    path = os.path.join(os.environ.get("SANLOCK_RUN_DIR", "/run/sanlock"), "sanlock.sock")
    with socket.socket(socket.AF_UNIX) as trial:
        trial.settimeout(PATIENCE)
        try:
            trial.connect(path)
        except OSError as error:
            return f"it does not answer at {path}: {error}"
    return ""
