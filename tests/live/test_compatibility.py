"""Releases understand each other: every hand-off that ever landed is read, and an upgrade and the way back keep all guests.

`tests/fixtures/handoff/` holds, for each state of the formats that has landed, a real hand-off (`NAME.document`) and the
schemas of its records (`NAME.schemas`). They are never changed. A changed format is a new version of its record, and a new
pair of files, which `VDSMD_FREEZE=NAME scripts/test tests/live/test_compatibility.py -k freeze` makes.
"""

from __future__ import annotations

import inspect
import json
import os
import shutil
import signal
import subprocess
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from state import handoff, records
from tests.conftest import Guest
from tests.live.test_guests import assert_counted, boot, pid
from tests.live.test_lifecycle import create, outcome, status_of
from tests.running import Running
from tests.until import until
from vdsmd.daemon import record_kinds

Start = Callable[..., Running]
ROOT = Path(__file__).parents[2]
FROZEN = ROOT / "tests" / "fixtures" / "handoff"
PREVIOUS = FROZEN / "previous"
"""The commit of the release before this one."""
PACKAGES = ("vdsmd", "state", "drivers", "supervdsm")

documents = pytest.mark.parametrize("path", sorted(FROZEN.glob("*.document")), ids=lambda path: path.stem)


def plain(schema: Any) -> Any:
    """Return a schema with its texts as every Python gives them: 3.13 takes the indentation from docstrings."""
    if isinstance(schema, dict):
        return {key: plain(each) for key, each in schema.items()}
    if isinstance(schema, list):
        return [plain(each) for each in schema]
    return inspect.cleandoc(schema) if isinstance(schema, str) else schema


def schemas() -> dict[str, Any]:
    """Return the version and the schema of each record, and of the document around them."""
    kinds = record_kinds()
    told = {name: {"version": kind.version, "schema": msgspec.json.schema(kind)} for name, kind in kinds.items()}
    return {**told, "document": {"version": handoff.FORMAT, "schema": msgspec.json.schema(handoff.Document)}}


@documents
def test_every_hand_off_that_ever_landed_is_read(path: Path) -> None:
    document = handoff.load(str(path))
    assert set(document.owners) <= set(record_kinds()), "an owner has gone: say what becomes of its record"
    for name, entry in document.owners.items():
        record = records.decode(record_kinds()[name], entry, f"owners.{name}")
        assert records.decode(type(record), records.encode(record), name) == record


def test_a_changed_format_is_a_new_version_and_is_frozen() -> None:
    known = [json.loads(path.read_text()) for path in sorted(FROZEN.glob("*.schemas"))]
    for name, now in json.loads(json.dumps(schemas())).items():
        versions = [plain(frozen[name]) for frozen in known if name in frozen]
        same_version = [frozen for frozen in versions if frozen["version"] == now["version"]]
        assert same_version, f"{name} version {now['version']} is not frozen: see the top of this file"
        assert plain(now) in same_version, f"{name} has changed and is still version {now['version']}"


@pytest.mark.slow
@pytest.mark.skipif("VDSMD_FREEZE" not in os.environ, reason="only when a new state of the formats lands")
def test_freeze(daemon: Start, guest: Guest) -> None:
    name = os.environ["VDSMD_FREEZE"]
    vdsmd = daemon(uri="embed")
    # A path of its own: what is frozen must not tell of the machine that it was made on.
    boot(vdsmd, Guest(*(str(shutil.copy(path, vdsmd.base)) for path in guest)), 2)
    paused = str(uuid.uuid4())
    machine = {"vmId": paused, "vmName": "paused", "memSize": 16, "display": "vnc", "launchPaused": True, "devices": []}
    vdsmd.must("create", machine)
    broken: dict[str, Any] = {**machine, "vmId": str(uuid.uuid4()), "kernel": "/no/such/kernel"}
    vdsmd.must("create", broken)
    until(lambda: (status_of(vdsmd, paused), status_of(vdsmd, broken["vmId"])) == ("Paused", "Down"), 120)
    vdsmd.reexec()
    until(lambda: not any(vdsmd.must("vdsmd.status")["info"]["owners"].values()), 120)
    vdsmd.reexec()
    (FROZEN / f"{name}.document").write_bytes((vdsmd.run_dir / "state" / "rehearsal").read_bytes())
    (FROZEN / f"{name}.schemas").write_text(json.dumps(schemas(), indent=1, sort_keys=True) + "\n")


# The release before this one


@pytest.fixture
def previous(tmp_path: Path) -> Path:
    """Return a directory with the release before this one, taken from git."""
    if shutil.which("git") is None:
        pytest.skip("git, which has the previous release, is not installed")
    commit = PREVIOUS.read_text().strip()
    there = subprocess.run(["git", "cat-file", "-e", commit], cwd=ROOT, capture_output=True, check=False)
    if there.returncode:
        pytest.skip("this checkout does not have the history that the previous release is in")
    lay(commit, tmp_path)
    return tmp_path


def lay(commit: str, place: Path) -> None:
    """Replace the code in `place` by that of the commit, or by this checkout's for ''."""
    for package in PACKAGES:
        shutil.rmtree(place / package, ignore_errors=True)
        if not commit:
            shutil.copytree(ROOT / package, place / package, ignore=shutil.ignore_patterns("__pycache__"))
    if commit:
        packed = subprocess.run(["git", "archive", commit, *PACKAGES], cwd=ROOT, capture_output=True, check=True)
        subprocess.run(["tar", "-x", "-C", str(place)], input=packed.stdout, check=True)


def test_upgrade_and_the_way_back(daemon: Start, previous: Path) -> None:
    vdsmd = daemon(env={"PYTHONPATH": str(previous)})
    first = create(vdsmd)
    lay("", previous)
    vdsmd.reexec()
    second = create(vdsmd)
    lay(PREVIOUS.read_text().strip(), previous)
    go_or_stay(vdsmd)
    assert {status_of(vdsmd, first), status_of(vdsmd, second)} == {"Up"}
    assert vdsmd.call("create", {"vmId": first, "vmName": "x", "memSize": 64, "display": "vnc"})["status"]["code"] == 4


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_upgrade_and_the_way_back_with_guests(daemon: Start, previous: Path, guest: Guest) -> None:
    vdsmd = daemon(uri="embed", env={"PYTHONPATH": str(previous)})
    pids = boot(vdsmd, guest, 2)
    for commit in ("", PREVIOUS.read_text().strip(), ""):
        until(lambda: not any(vdsmd.must("vdsmd.status")["info"]["owners"].values()), 240)
        lay(commit, previous)
        go_or_stay(vdsmd)
        assert {vm_id: pid(vdsmd, vm_id) for vm_id in pids} == pids
        for vm_id in pids:
            assert_counted(vdsmd, vm_id)


def go_or_stay(daemon: Running) -> None:
    """Re-execute. Going back may be refused before the exec, by the older release's rehearsal, and in no other way."""
    generation, number = daemon.generation, outcome(daemon)["number"]
    os.kill(daemon.pid, signal.SIGHUP)

    def ended() -> dict[str, Any]:
        told = outcome(daemon)
        assert told["number"] > number and told["state"] in ("done", "refused")
        return told

    told = until(ended, 240)
    if told["state"] == "refused":
        assert "the rehearsal failed" in told["reason"] and "can be read from version" in told["reason"]
        assert daemon.generation == generation
