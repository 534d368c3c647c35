"""Changes of a volume's metadata that come at the same time, and what a server is told that another one sends us to."""

from __future__ import annotations

import threading
import urllib.request
from email.message import Message
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from drivers.storage.contract import BLANK
from drivers.storage.errors import HelperLost
from drivers.storage.images import waiting
from drivers.storage.images.changing import change_meta, read_meta
from drivers.storage.images.steps import rewrite
from drivers.storage.images.volume_metadata import Allocation, Format, VolumeRole, encode, fresh
from drivers.storage.leases.keeping import Keeping
from drivers.storage.leases.leasing import Leasing
from drivers.storage.tasks.errors import TooManyWait
from drivers.storage.tasks.owner import Tasks
from drivers.storage.toil import _Redirects
from tests.drivers.storage.tasks_stand import PATIENCE, SD, Local
from vdsmd.api import volume as verbs
from vdsmd.api.table import TABLE

IMAGE, VOLUME = "10000000-0000-4000-8000-000000000001", "20000000-0000-4000-8000-000000000001"


@pytest.fixture
def local(tmp_path: Path) -> Local:
    local = Local(tmp_path)
    made = fresh(
        domain=SD,
        image=IMAGE,
        capacity=4096,
        format=Format.RAW,
        allocation=Allocation.SPARSE,
        role=VolumeRole.LEAF,
        parent=BLANK,
        disk_type="2",
        description="",
        legality="LEGAL",
    )
    files = local.files(local.get(SD))
    files.make_directory(f"images/{IMAGE}")
    files.write(f"images/{IMAGE}/{VOLUME}.meta", encode(made, 3))
    return local


def test_of_two_changes_at_once_none_is_lost(local: Local) -> None:
    """One has read, and not written yet, when the other begins."""
    other = threading.Thread(target=change_meta, args=(local, SD, IMAGE, VOLUME), kwargs={"legality": "ILLEGAL"})
    begun = False

    def before(op: str, _arguments: dict[str, Any]) -> None:
        nonlocal begun
        if op == "write" and not begun:
            begun = True
            other.start()
            other.join(0.1)  # it would be done by now, if it were not for the first one

    local.remotes[SD].before = before
    change_meta(local, SD, IMAGE, VOLUME, description="mine")
    other.join(PATIENCE)
    there = read_meta(local.files(local.get(SD)), IMAGE, VOLUME)
    assert (there.description, there.legality) == ("mine", "ILLEGAL")


def test_what_is_said_of_a_volume_while_it_is_merged_stays(local: Local) -> None:
    planned = encode(read_meta(local.files(local.get(SD)), IMAGE, VOLUME), 3).decode()
    change_meta(local, SD, IMAGE, VOLUME, description="since then", capacity=1 << 20)
    rewrite(local, SD, IMAGE, VOLUME, planned)
    there = read_meta(local.files(local.get(SD)), IMAGE, VOLUME)
    assert (there.description, there.capacity) == ("since then", 4096)


@pytest.mark.parametrize(
    ("target", "told"), [("http://one/b", True), ("http://two/b", False), ("https://one/b", False)]
)
def test_secrets_are_for_the_server_that_they_were_meant_for(target: str, told: bool) -> None:
    asked = urllib.request.Request("http://one/a", headers={"Authorization": "secret", "Cookie": "secret", "X-Id": "7"})
    led = _Redirects().redirect_request(asked, cast(Any, None), 302, "Found", Message(), target)
    assert led is not None and led.headers.get("X-id") == "7"
    assert ("Authorization" in led.headers, "Cookie" in led.headers) == (told, told)


def test_uploads_leave_workers_to_others(monkeypatch: pytest.MonkeyPatch) -> None:
    assert TABLE["uploadVolume"].key is None and TABLE["uploadVolume"].timeout > verbs.WAIT
    monkeypatch.setattr(waiting, "_room", threading.BoundedSemaphore(1))

    def second(_attendance: Any) -> str:
        with pytest.raises(TooManyWait):
            waiting.wait_for(cast(Tasks, None), 1.0, second)
        raise OSError("seen")

    for _ in range(2):
        with pytest.raises(OSError, match="seen"):
            waiting.wait_for(cast(Tasks, None), 1.0, second)


@pytest.mark.parametrize("error", [OSError(5, "broken"), HelperLost(what="x", reason="y")])
def test_leases_that_cannot_be_dropped_are_no_error(error: Exception) -> None:
    def call(_op: str, **_arguments: Any) -> None:
        raise error

    keeping = SimpleNamespace(is_there=True, call=call)
    leasing = Leasing(cast(Keeping, keeping), cast(Any, None), "/nowhere", lambda: 0)
    leasing.drop()
    leasing.release(SD)
