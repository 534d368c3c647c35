"""scripts/setup: quick and quiet when nothing is to do, and clear when it cannot go on."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent


def setup(**env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [ROOT / "scripts" / "setup"], env={**os.environ, **env}, capture_output=True, text=True, check=False
    )


def made() -> tuple[str, str]:
    return os.readlink(ROOT / ".venv"), (ROOT / ".venv" / "made-from").read_text(encoding="utf-8")


def test_a_second_time_it_does_and_says_nothing() -> None:
    before = made()
    again = setup()
    assert (again.returncode, again.stdout, again.stderr) == (0, "", "")
    assert made() == before


def test_the_project_costs_no_import_hook() -> None:
    """An editable install may put a finder in front of every import; ours is a line in a .pth file."""
    hooks = subprocess.run(
        [sys.executable, "-c", "import sys; print(*(type(f).__name__ + getattr(f, '__name__', '') for f in sys.meta_path))"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert "editable" not in hooks.lower()
    assert not list((ROOT / ".venv" / "lib").rglob("__editable___*finder*"))


@pytest.fixture
def bare_path(tmp_path: Path) -> str:
    """Return a PATH with a dpkg-query that knows no package, and an `id` that says we are not root."""
    for name, text in {"dpkg-query": "exit 1", "id": "echo 1000"}.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
        (tmp_path / name).chmod(0o755)
    return f"{tmp_path}:{os.environ['PATH']}"


def test_a_user_is_told_what_is_missing_and_how_to_get_it(bare_path: str) -> None:
    refused = setup(PATH=bare_path)
    assert refused.returncode == 1
    assert "sudo apt-get install --no-install-recommends python3 python3-venv python3-libvirt" in refused.stderr
