"""The catalogue: the verb table's content, and the copy of it that saves importing the table."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from vdsmd.api.table import TABLE
from vdsmd.ctl import catalogue, manual

ROOT = Path(__file__).parent.parent.parent
LOAD = """
import sys
from vdsmd.ctl import catalogue
print([entry.name for entry in catalogue.load()], "msgspec" in sys.modules)
"""


def test_it_has_every_verb_of_the_table() -> None:
    entries = [catalogue.entry(row) for row in catalogue.read_table()]
    assert [entry.name for entry in entries] == sorted(TABLE)
    for entry in entries:
        assert entry.summary, f"{entry.name} does not say what it does"
        assert len(entry.summary) <= 72, (
            f"{entry.name}: the first line of its docstring is for lists, and too long for them"
        )


def test_subcommands_have_two_words() -> None:
    for entry in map(catalogue.entry, catalogue.read_table()):
        assert len(entry.cli.split()) in (0, 2), entry


def test_parameters() -> None:
    (found,) = [entry for entry in map(catalogue.entry, catalogue.read_table()) if entry.name == "setLogLevel"]
    assert found.params == (("level", "int | str", True, None), ("name", "str", False, ""))
    assert found.doc.startswith("Log only")
    assert "\n    " not in found.doc


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """Return a release of our own, whose files may be changed."""
    for name in ("vdsmd", "drivers", "state"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def load(release: Path, *, keep: bool = True) -> tuple[str, bool]:
    """Load the catalogue of that release in a process of its own. Return what it has, and whether it had to import."""
    env = {**os.environ, "PYTHONPATH": str(release), "PYTHONDONTWRITEBYTECODE": "" if keep else "1"}
    ran = subprocess.run(
        [sys.executable, "-c", LOAD], cwd=release, env=env, capture_output=True, text=True, check=True, timeout=120
    )
    names, _, imported = ran.stdout.strip().rpartition(" ")
    return names, imported == "True"


def copies(release: Path) -> list[Path]:
    return list(release.glob("vdsmd/api/__pycache__/verbs.*"))


def test_the_copy_is_used_while_no_source_has_changed(copy: Path) -> None:
    names, imported = load(copy)
    assert imported
    assert load(copy) == (names, False)
    with (copy / "vdsmd" / "api" / "host.py").open("a") as file:
        file.write('\n\n@verb("aNewOne")\ndef a_new_one(daemon: Daemon) -> Reply:\n    """Do."""\n    return {}\n')
    found, imported = load(copy)
    assert imported
    assert "aNewOne" in found
    assert load(copy) == (found, False)


def test_a_damaged_copy_is_made_anew(copy: Path) -> None:
    names, _ = load(copy)
    (kept,) = copies(copy)
    for damage in (b"", kept.read_bytes()[:40], b"nonsense"):
        kept.write_bytes(damage)
        assert load(copy) == (names, True)
        assert load(copy) == (names, False)


def test_no_copy_where_python_keeps_none(copy: Path) -> None:
    load(copy, keep=False)
    assert copies(copy) == []


def test_the_manual_is_up_to_date() -> None:
    written = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    assert written == manual.manual(), "docs/api.md is out of date: run scripts/manual"
