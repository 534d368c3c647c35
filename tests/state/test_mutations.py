"""Damaged documents: each is refused with the place of what is wrong, or read into what can be handed on again."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given

from drivers.network.model import Bond, Configuration, Found, Network, NetworkRecord
from drivers.storage.tasks.contract import State
from drivers.storage.tasks.record import Command, Lock, Task, TasksRecord
from state import handoff
from state.children import Child
from state.directory import StateDirectory
from state.fds import Held
from state.handoff import Document, HandOff, Step
from state.records import Entry, Record, RecordError, decode, encode, pack
from tests.drivers.storage import samples as storage_samples
from tests.drivers.vm import population
from tests.state.mutations import broken_bytes, broken_files, broken_values, damages
from vdsmd.daemon import record_kinds, records_of
from vdsmd.host.facts import HostRecord, Link, Sample
from vdsmd.journal import JournalRecord
from vdsmd.policy.owner import PolicyRecord
from vdsmd.reexec import ReexecRecord

RECORDS: dict[str, Record] = {
    "vm": population.record(),
    "host": HostRecord(
        generation_id="0b0cf9a9-1a52-4a4e-a4f0-0f8a3c4d5e6f",
        since=1000.25,
        sample=Sample(at=2000.5, cpus={"cpu": [1, 2, 3, 6]}, own=[4, 5], links={"eth0": Link(rx=1, tx=2, speed=1000)}),
        statistics={"cpuUser": "1.50", "memFree": 1024, "network": {"eth0": {"rxRate": "0.0"}}},
    ),
    "storage": storage_samples.record(),
    "tasks": TasksRecord(
        tasks=[
            Task(
                task_id="0c0aa591-60f4-4e8e-9718-4018fddacd28",
                verb="createVolume",
                args={"size": "1048576"},
                locks=[Lock(name="image/1"), Lock(name="image/2", shared=True)],
                state=State.RUNNING,
                command=Command(argv=["/usr/bin/qemu-img", "create"]),
                progress=12.5,
                created=1000.5,
            )
        ],
        spm=["5849b030-626e-47cb-ad90-3ce782d831b3"],
        boot="6f0b36a0-0000-4000-8000-000000000000",
    ),
    "network": NetworkRecord(
        running=Configuration(
            networks={"net": Network(bond="bond0", vlan=7, address="192.0.2.1/24", custom={"a": "b"})},
            bonds={"bond0": Bond(nics=("ens1", "ens2"), options={"mode": "active-backup"})},
            found={"ens1": Found(mtu=1500, up=True)},
        ),
        drift=["net: its bridge is gone"],
    ),
    "policy": PolicyRecord(release="0.1.0"),
    "journal": JournalRecord(journal="0123456789abcdef", next=42),
    "reexec": ReexecRecord(number=7),
}

NAMED = re.compile(rf"(document|owners\.({'|'.join(RECORDS)}))[.:]")


def whole() -> Document:
    """Return a document with everything in it that one can have."""
    return Document(
        format=handoff.FORMAT,
        nonce="00112233445566778899aabbccddeeff",
        boot_id="6f0b36a0-0000-4000-8000-000000000000",
        pid=4242,
        start_time=123456,
        release="1.0",
        generation=3,
        arguments=["--config", "/etc/vdsm/vdsm.conf"],
        closed_at=3000.5,
        departed_at=3000.75,
        priority=0,
        steps=[Step(name="rehearse", ms=250.5), Step(name="drain", ms=0.5)],
        owners={name: encode(record) for name, record in RECORDS.items()},
        fds=[
            Held(name=name, number=number, device=8, inode=9000 + number, kind=0o140000)
            for number, name in enumerate(("api/local", "instance/lock", "child/a/pidfd"), 3)
        ],
        children=[Child(name="a", pid=4243, start_time=123457), Child(name="b", pid=77, start_time=1, spawned=False)],
    )


WHOLE = pack(whole())
PLAIN: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(whole()))


@pytest.fixture
def place(tmp_path: Path) -> Iterator[StateDirectory]:
    """Give where the documents lie. That their descriptors are nobody's here is not worth a line each."""
    log = logging.getLogger("state.fds")
    log.setLevel(logging.CRITICAL)
    yield StateDirectory(str(tmp_path))
    log.setLevel(logging.NOTSET)


def read(place: StateDirectory, data: bytes) -> tuple[Document, dict[str, Record]] | None:
    """Read the file as a rehearsal and a new run do; return None when it is refused, as it should be."""
    place.write(handoff.FILE, data)
    try:
        document = handoff.load(f"{place.path}/{handoff.FILE}")
        found = records_of(document)
    except RecordError as error:
        assert NAMED.match(str(error)), error
        return None
    HandOff(place, document)
    return document, found


def check(place: StateDirectory, data: bytes) -> bool:
    """Say whether the file was taken. What was taken can be handed on, and says the same then."""
    taken = read(place, data)
    if taken is None:
        return False
    document, found = taken
    assert msgspec.json.encode(handoff.parse(pack(document))) == msgspec.json.encode(document)
    for name, record in found.items():
        assert decode(type(record), encode(record), f"owners.{name}") == record
    return True


def test_the_whole_one_is_taken(place: StateDirectory) -> None:
    assert set(RECORDS) == set(record_kinds())
    assert records_of(handoff.parse(WHOLE)) == RECORDS
    assert check(place, WHOLE)


def test_damage_is_refused_or_harmless(place: StateDirectory) -> None:
    taken = []

    @damages(300)
    @given(broken_files(PLAIN))
    def judge(data: bytes) -> None:
        taken.append(check(place, data))

    judge()
    assert set(taken) == {True, False}


@pytest.mark.slow
def test_thousands_of_wrong_values_are_refused_or_harmless(place: StateDirectory) -> None:
    taken = []

    @damages(3500)
    @given(broken_values(PLAIN))
    def judge(plain: Any) -> None:
        taken.append(check(place, pack(plain)))

    judge()
    assert set(taken) == {True, False}


@pytest.mark.slow
def test_thousands_of_wrong_bytes_are_refused_or_harmless(place: StateDirectory) -> None:
    """The checksum is right: it is the JSON that is judged."""
    body = WHOLE.partition(b"\n")[2]
    taken = []

    @damages(2500)
    @given(broken_bytes(body))
    def judge(data: bytes) -> None:
        taken.append(check(place, pack(msgspec.Raw(data))))

    judge()
    assert set(taken) == {True, False}


@pytest.mark.slow
def test_thousands_of_damaged_files_are_refused(place: StateDirectory) -> None:
    @damages(1500)
    @given(broken_bytes(WHOLE))
    def judge(data: bytes) -> None:
        assert check(place, data) is (data == WHOLE)

    judge()


@pytest.mark.parametrize("name", sorted(RECORDS))
def test_a_damaged_record_is_refused_by_its_owners_name(place: StateDirectory, name: str) -> None:
    plain = msgspec.json.decode(msgspec.json.encode(RECORDS[name]))

    @damages(50)
    @given(broken_values(plain))
    def judge(data: Any) -> None:
        entry = Entry(version=1, readable_by=1, data=msgspec.Raw(msgspec.json.encode(data)))
        document = msgspec.structs.replace(whole(), owners={name: entry})
        try:
            found = records_of(document)
        except RecordError as error:
            assert str(error).startswith(f"owners.{name}: ")
        else:
            assert set(found) == {name}

    judge()


def test_text_that_is_no_utf_8_is_refused(place: StateDirectory) -> None:
    body = WHOLE.partition(b"\n")[2]
    for good in (b"generation_id", b"vmName", b'"release":"1'):
        assert good in body
        data = pack(msgspec.Raw(body.replace(good, good[:-1] + b"\xff")))
        assert read(place, data) is None


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"priority": 2**40}, "document.priority"),
        ({"fds": [{**PLAIN["fds"][0], "number": 2**40}]}, "document.fds[0].number"),
        ({"children": [{**PLAIN["children"][0], "pid": 0}]}, "document.children[0].pid"),
    ],
)
def test_numbers_that_the_kernel_does_not_know_are_refused(
    place: StateDirectory, change: dict[str, Any], named: str
) -> None:
    place.write(handoff.FILE, pack({**PLAIN, **change}))
    with pytest.raises(RecordError, match=re.escape(f"`{named}`")):
        handoff.load(f"{place.path}/{handoff.FILE}")
