"""What every test of an action needs: root, and a place."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from supervdsm.registry import Context
from tests.supervdsm.actions.place import context

if os.getuid() != 0:
    collect_ignore_glob = ["test_*.py"]


@pytest.fixture
def where(tmp_path: Path) -> Context:
    """Give directories of the daemon's user, and what else a helper knows."""
    return context(tmp_path)
