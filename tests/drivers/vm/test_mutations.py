"""Damaged checkpoints and odd records: the daemon recovers, no guest is touched, and every question is answered."""

from __future__ import annotations

import itertools
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers.errors import IllegalMove, Invalid
from drivers.vm.conf.params import normalise
from drivers.vm.hypervisor.link import Seen
from drivers.vm.machine import Machine, VmRecord
from state.records import RecordError, decode, encode, pack
from tests.drivers.vm import population
from tests.drivers.vm.fake import FakeLibvirt
from tests.drivers.vm.population import ALIVE, ASKED, DOWN, PAUSED, SAVING, UP
from tests.drivers.vm.still import Still
from tests.state.mutations import broken_files, broken_values, damages
from vdsmd.api.xmlrpc import encode_reply

pytestmark = pytest.mark.slow

HARM = ("destroy", "press", "reboot", "reset", "suspend", "resume", "create")

Files = dict[str, bytes]


def checkpoint(machine: Machine) -> Any:
    """Return what the file of a machine holds, as plain data. The boot is no real one: the test is the same in each."""
    entry = encode(VmRecord(machines=[machine], uri="fake:///", boot="the same"))
    return msgspec.json.decode(msgspec.json.encode(entry))


PLAIN = {machine.vm_id: checkpoint(machine) for machine in population.machines()}
WHOLE = {vm_id: pack(plain) for vm_id, plain in PLAIN.items()}


class Watcher(logging.Handler):
    """Keeps what is said of files that are set aside."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append(record.getMessage())


Build = Callable[[], Still]


@pytest.fixture
def watcher() -> Iterator[Watcher]:
    """What is said goes to the watcher alone: there is too much of it for a report."""
    watcher, log = Watcher(), logging.getLogger("state.directory")
    log.addHandler(watcher)
    log.propagate = False
    yield watcher
    log.propagate = True
    log.removeHandler(watcher)


@pytest.fixture
def build(tmp_path: Path) -> Iterator[Build]:
    """Give a function that makes a driver in a place of its own, on a hypervisor that runs the guests of `ALIVE`."""
    numbers = itertools.count()

    def make() -> Still:
        libvirt = FakeLibvirt()
        libvirt.domains = {vm_id: Seen(vm_id == PAUSED, "ENOSPC" if vm_id == PAUSED else "NOERR") for vm_id in ALIVE}
        libvirt.ours = set(PLAIN)
        base = tmp_path / str(next(numbers))
        (base / "checkpoints" / "vm").mkdir(parents=True)
        return Still(base, libvirt)

    logging.getLogger("vm").setLevel(logging.CRITICAL)
    yield make
    logging.getLogger("vm").setLevel(logging.NOTSET)


def folder(still: Still) -> Path:
    return Path(still.driver._host.checkpoints.path) / "vm"


def write(still: Still, files: Files) -> None:
    for name, data in files.items():
        (folder(still) / name).write_bytes(data)


def aside(still: Still) -> dict[str, bytes]:
    """Return the files that were set aside, by the names that they had."""
    return {path.name.split(".")[0]: path.read_bytes() for path in folder(still).glob("*.set-aside")}


def check(still: Still) -> dict[str, str]:
    """Let the driver begin, and return the status of each machine when all is calm: all is as it must be."""
    driver, libvirt = still.driver, still.libvirt
    still.settle()
    driver.start()
    still.settle()
    statuses = {short["vmId"]: short["status"] for short in driver.list_short([])}
    assert {vm_id for vm_id, status in statuses.items() if status != "Down"} >= set(ALIVE)
    shown = {stats["vmId"]: stats["status"] for stats in driver.all_stats()}
    assert shown == statuses
    encode_reply({"vmList": driver.list_full([]), "statsList": driver.all_stats(), "memory": driver.committed()})
    assert set(libvirt.domains) >= set(ALIVE)
    # An operator asked for ASKED to be shut down, and damage to the time of that is not to be told from a wish.
    touched = {(call, vm_id) for call, vm_id in libvirt.asked if call in HARM and vm_id in ALIVE}
    assert not {(call, vm_id) for call, vm_id in touched if (call, vm_id) not in {("press", ASKED), ("reboot", ASKED)}}
    # A machine that is being saved cannot do anything else in this release.
    assert not [error for error in still.failures if not isinstance(error, IllegalMove)]
    decode(VmRecord, encode(driver.snapshot()), "vm")
    assert driver.unsafe() is None
    return statuses


def recover(build: Build, watcher: Watcher, files: Files) -> Files:
    """Recover from these files, and return those that were set aside."""
    still = build()
    watcher.said.clear()
    try:
        write(still, files)
        still.driver.recover()
        check(still)
        kept = aside(still)
        assert kept.items() <= files.items()
        assert len(kept) == len(watcher.said)
        assert all(any(f"{name} kept=" in said for said in watcher.said) for name in kept)
        # What was not set aside was made use of: only this machine's own checkpoint is.
        known = {short["vmId"] for short in still.driver.list_short([])}
        assert set(files) - set(kept) <= known
        return kept
    finally:
        still.close()
        shutil.rmtree(folder(still).parent.parent)


def populations() -> st.SearchStrategy[Files]:
    """All checkpoints, of which each is damaged or whole."""
    return st.fixed_dictionaries({vm_id: broken_files(plain) | st.just(WHOLE[vm_id]) for vm_id, plain in PLAIN.items()})


def test_whole_checkpoints_are_made_use_of(build: Build, watcher: Watcher) -> None:
    still = build()
    write(still, WHOLE)
    still.driver.recover()
    statuses = check(still)
    assert (statuses[UP], statuses[PAUSED], statuses[SAVING], statuses[DOWN]) == (
        "Up",
        "Paused",
        "Saving State",
        "Down",
    )
    assert aside(still) == {} and watcher.said == []
    still.close()


def test_damaged_checkpoints_cost_nothing(build: Build, watcher: Watcher) -> None:
    kept = []

    @damages(40)
    @given(populations())
    def judge(files: Files) -> None:
        kept.append(len(recover(build, watcher, files)))

    judge()
    assert max(kept) > 1


@pytest.mark.slow
def test_thousands_of_damaged_checkpoints_cost_nothing(build: Build, watcher: Watcher) -> None:
    damaged = []

    @damages(400)
    @given(populations())
    def judge(files: Files) -> None:
        damaged.append(sum(data != WHOLE[name] for name, data in files.items()))
        recover(build, watcher, files)

    judge()
    assert sum(damaged) > 1000


def test_a_file_that_cannot_be_read_costs_no_other(build: Build, watcher: Watcher) -> None:
    still = build()
    write(still, {vm_id: data for vm_id, data in WHOLE.items() if vm_id != UP})
    os.symlink("/proc/self/mem", folder(still) / UP)  # the kernel's own EIO
    still.driver.recover()
    assert check(still)[PAUSED] == "Paused"
    assert any("Input/output error" in said for said in watcher.said)
    still.close()


@pytest.mark.parametrize("name", ["foreign", DOWN])
def test_a_checkpoint_under_another_name_is_set_aside(build: Build, watcher: Watcher, name: str) -> None:
    assert name in recover(build, watcher, {name: WHOLE[UP], PAUSED: WHOLE[PAUSED]})


@pytest.mark.parametrize("kind", ["file", "folder", "nothing"])
def test_a_console_that_is_none_costs_nothing(build: Build, kind: str) -> None:
    still = build()
    write(still, WHOLE)
    place = Path(still.driver._host.run_dir) / "console" / f"{UP}.out"
    place.parent.mkdir()
    if kind == "folder":
        place.mkdir()
    elif kind == "file":
        place.write_bytes(b"")
    still.driver.recover()
    check(still)
    still.close()


def take_over(build: Build, record: VmRecord) -> bool:
    """Give the driver the record, and where it cannot take over let it recover. Say whether it took over."""
    still = build()
    try:
        write(still, WHOLE)
        try:
            still.driver.restore(record)
            taken = True
        except RecordError:
            still.driver.recover()
            taken = False
        check(still)
        return taken
    finally:
        still.close()
        shutil.rmtree(folder(still).parent.parent)


RECORD = msgspec.json.decode(msgspec.json.encode(population.record()))
SAMPLES = msgspec.json.decode(RECORD["samples"])


def odd_records() -> st.SearchStrategy[Any]:
    odd_samples = broken_values(SAMPLES).map(lambda odd: {**RECORD, "samples": msgspec.json.encode(odd).decode()})
    odd_conf = st.tuples(st.sampled_from(range(len(RECORD["machines"]))), broken_values(RECORD["machines"][0]["conf"]))
    return st.one_of(broken_values(RECORD), odd_samples, odd_conf.map(lambda odd: with_conf(*odd)))


def with_conf(number: int, conf: Any) -> Any:
    machines = [*RECORD["machines"]]
    own = {"vmId": machines[number]["vm_id"]} if conf.get("vmId") == UP else {}
    machines[number] = {**machines[number], "conf": {**conf, **own}}
    return {**RECORD, "machines": machines}


def judge_record(build: Build, plain: Any) -> bool | None:
    try:
        record = msgspec.json.decode(msgspec.json.encode(plain), type=VmRecord)
    except msgspec.ValidationError:
        return None  # refused before the driver sees it
    return take_over(build, record)


def test_odd_records_cost_nothing(build: Build) -> None:
    taken = []

    @damages(60)
    @given(odd_records())
    def judge(plain: Any) -> None:
        taken.append(judge_record(build, plain))

    judge()
    assert set(taken) == {True, False, None}


@pytest.mark.slow
def test_hundreds_of_odd_records_cost_nothing(build: Build) -> None:
    @damages(700)
    @given(odd_records())
    def judge(plain: Any) -> None:
        judge_record(build, plain)

    judge()


def test_an_owner_that_has_half_taken_over_recovers(build: Build) -> None:
    still = build()
    write(still, WHOLE)
    console = Path(still.driver._host.run_dir) / "console"
    console.mkdir()
    os.mkfifo(console / f"{UP}.out")
    still.driver.restore(population.record())
    still.driver.recover()
    check(still)
    still.close()


@pytest.mark.parametrize("kind", ["disk", "interface"])
def test_no_machine_is_taken_in_whose_statistics_could_not_be_told(kind: str) -> None:
    device = {"type": kind, "path": "/a", "name": ["no text"]}
    with pytest.raises(Invalid, match="name"):
        normalise({"vmId": UP, "memSize": 64, "devices": [device]})
