"""A daemon that was killed and finds its checkpoints damaged: it serves, answers, and keeps what it cannot use."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from state.records import Entry, pack, unpack
from tests.live.test_lifecycle import create, machine, status_of
from tests.running import Running
from tests.until import until

Start = Callable[..., Running]
Damage = Callable[[Path], None]

pytestmark = pytest.mark.slow


def written(change: Callable[[bytes], bytes]) -> Damage:
    """The bytes of the file are changed."""
    return lambda path: write(path, change(path.read_bytes()))


def resealed(**fields: Any) -> Damage:
    """The machine's fields are changed, and the checksum is right."""

    def damage(path: Path) -> None:
        entry = unpack(Entry, path.read_bytes(), path.name)
        record = msgspec.json.decode(entry.data)
        record["machines"][0].update(fields)
        write(path, pack(msgspec.structs.replace(entry, data=msgspec.Raw(msgspec.json.encode(record)))))

    return damage


def unreadable(path: Path) -> None:
    path.unlink()
    path.symlink_to("/proc/self/mem")  # the kernel's own EIO


def write(path: Path, data: bytes) -> None:
    path.write_bytes(data)


DAMAGES: dict[str, Damage] = {
    "it is empty": written(lambda data: b""),
    "it is cut": written(lambda data: data[: len(data) // 2]),
    "a bit is turned": written(lambda data: data[:200] + bytes([data[200] ^ 4]) + data[201:]),
    "it is text": written(lambda data: b"Lorem ipsum\n"),
    "it is no text": written(lambda data: pack(msgspec.Raw(data.partition(b"\n")[2].replace(b"vmName", b"vmN\xffme")))),
    "it is of a later release": written(lambda data: pack(Entry(version=99, readable_by=99, data=msgspec.Raw(b"{}")))),
    "its status is unknown": resealed(status="Levitating"),
    "it is about another machine": resealed(vm_id="../../../elsewhere"),
    "its pid is nobody's": resealed(pid=2**70),
    "it has no configuration": resealed(conf={}),
    "it cannot be read": unreadable,
}


def started_again(daemon: Start, first: Running) -> Running:
    vdsmd = daemon(again=first)
    until(lambda: vdsmd.call("list")["status"]["code"] == 0, 120, "it to know how the machines are")
    return vdsmd


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_costs_nothing_else(daemon: Start, damage: str) -> None:
    first = daemon()
    hurt, whole = create(first), create(first)
    first.kill()
    folder = first.run_dir / "state" / "checkpoints" / "vm"
    DAMAGES[damage](folder / hurt)
    left = os.readlink(folder / hurt) if (folder / hurt).is_symlink() else (folder / hurt).read_bytes()
    vdsmd = started_again(daemon, first)
    assert [vm["vmId"] for vm in vdsmd.must("list")["vmList"]] == [whole]
    assert [vm["vmId"] for vm in vdsmd.must("list", True)["vmList"]] == [whole]
    assert [stats["vmId"] for stats in vdsmd.must("getAllVmStats")["statsList"]] == [whole]
    (kept,) = folder.glob(f"{hurt}.*.set-aside")
    assert (os.readlink(kept) if kept.is_symlink() else kept.read_bytes()) == left
    assert f"kept={kept}" in vdsmd.log()
    vdsmd.must("create", machine(hurt))
    until(lambda: status_of(vdsmd, hurt) == "Up", 60, "a new machine with the id to be up")
    generation = vdsmd.generation
    assert vdsmd.reexec() == generation + 1


def test_a_console_that_is_none_costs_nothing(daemon: Start) -> None:
    first = daemon()
    vm_id = create(first)
    first.kill()
    (first.run_dir / "console").mkdir(exist_ok=True)
    (first.run_dir / "console" / f"{vm_id}.out").write_bytes(b"not a pipe")
    vdsmd = started_again(daemon, first)
    assert [vm["vmId"] for vm in vdsmd.must("list")["vmList"]] == [vm_id]
