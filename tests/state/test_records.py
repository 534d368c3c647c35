"""Records: what is written is read, and what does not fit is refused with the path of the bad field."""

from __future__ import annotations

from typing import Any, ClassVar

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from state.records import Entry, Part, Record, RecordError, decode, encode, pack, unpack
from vdsmd.daemon import record_kinds


class Disk(Part, frozen=True):
    path: str
    size: int
    labels: dict[str, str] = {}


class Machine(Record):
    name: str
    pid: int
    disks: list[Disk]
    ratio: float = 0.0


class MachineTwo(Record):
    """What a later release makes of it: `pid` became `process`, and there is something new."""

    version: ClassVar[int] = 2
    readable_by: ClassVar[int] = 2
    migrations: ClassVar[dict[int, Any]] = {1: lambda old: {"process": old.pop("pid"), **old}}

    name: str
    process: int
    disks: list[Disk]
    ratio: float = 0.0
    tags: list[str] = []


class DiskWithMore(Part, frozen=True):
    path: str
    size: int
    labels: dict[str, str] = {}
    serial: str = "none"


class MachineWithMore(Record):
    """What a later release writes that still wants to be read by version 1."""

    version: ClassVar[int] = 2
    readable_by: ClassVar[int] = 1

    name: str
    pid: int
    disks: list[DiskWithMore]
    ratio: float = 0.0
    by_name: dict[str, DiskWithMore] = {}
    tags: list[str] = []


text = st.text(max_size=20)
numbers = st.integers(-(2**63), 2**63 - 1)
disks = st.builds(Disk, path=text, size=numbers, labels=st.dictionaries(text, text, max_size=3))
machines = st.builds(
    Machine,
    name=text,
    pid=numbers,
    disks=st.lists(disks, max_size=4),
    ratio=st.floats(allow_nan=False, allow_infinity=False),
)


@given(machines)
def test_round_trip(machine: Machine) -> None:
    assert decode(Machine, encode(machine), "owners.vm") == machine


@given(machines)
def test_packed_round_trip(machine: Machine) -> None:
    entry = unpack(Entry, pack(encode(machine)), "file")
    assert decode(Machine, entry, "owners.vm") == machine


@given(machines.filter(lambda machine: machine.disks), st.data())
def test_a_wrong_type_is_refused_with_its_path(machine: Machine, data: st.DataObject) -> None:
    plain = msgspec.to_builtins(machine)
    number = data.draw(st.integers(0, len(machine.disks) - 1))
    field, wrong = data.draw(
        st.sampled_from([("path", 7), ("size", "7"), ("size", None), ("labels", []), ("size", 1.5)])
    )
    plain["disks"][number][field] = wrong
    with pytest.raises(RecordError, match=rf"owners\.vm\.disks\[{number}\]\.{field}"):
        decode(Machine, _entry(plain), "owners.vm")


@given(machines.filter(lambda machine: machine.disks), st.sampled_from(["path", "size"]))
def test_a_missing_field_is_refused_with_its_path(machine: Machine, field: str) -> None:
    plain = msgspec.to_builtins(machine)
    del plain["disks"][0][field]
    with pytest.raises(RecordError, match=rf"missing required field `{field}` - at `owners\.vm\.disks\[0\]`"):
        decode(Machine, _entry(plain), "owners.vm")


def test_an_unknown_field_is_refused_with_its_path() -> None:
    plain = msgspec.to_builtins(Machine(name="a", pid=1, disks=[Disk(path="/x", size=1)]))
    plain["disks"][0]["colour"] = "red"
    with pytest.raises(RecordError, match=r"unknown field `colour` - at `owners\.vm\.disks\[0\]`"):
        decode(Machine, _entry(plain), "owners.vm")


@given(machines)
def test_an_older_record_is_migrated(machine: Machine) -> None:
    newer = decode(MachineTwo, encode(machine), "owners.vm")
    assert (newer.name, newer.process, newer.disks, newer.tags) == (machine.name, machine.pid, machine.disks, [])


def test_a_migration_that_raises_is_told() -> None:
    plain = {"name": "a", "disks": []}
    with pytest.raises(RecordError, match=r"owners\.vm: migration from version 1 failed: KeyError\('pid'\)"):
        decode(MachineTwo, _entry(plain), "owners.vm")


def test_a_version_without_a_way_is_refused() -> None:
    with pytest.raises(RecordError, match="no way from version 0 to 2"):
        decode(MachineTwo, Entry(version=0, readable_by=0, data=msgspec.Raw(b"{}")), "owners.vm")


def test_going_back_leaves_out_what_is_not_known() -> None:
    more = DiskWithMore(path="/x", size=1, serial="s")
    newer = MachineWithMore(name="a", pid=1, disks=[more, more], by_name={"k": more}, tags=["t"])
    assert decode(Machine, encode(newer), "owners.vm") == Machine(name="a", pid=1, disks=[Disk(path="/x", size=1)] * 2)


def test_going_back_is_refused_where_the_writer_says_so() -> None:
    newer = MachineTwo(name="a", process=1, disks=[])
    with pytest.raises(RecordError, match="version 2 can be read from version 2 on, this release has 1"):
        decode(Machine, encode(newer), "owners.vm")


@given(machines, st.data())
def test_a_damaged_file_is_refused(machine: Machine, data: st.DataObject) -> None:
    packed = pack(encode(machine))
    place = data.draw(st.integers(0, len(packed) - 1))
    bit = data.draw(st.integers(0, 7))
    damaged = packed[:place] + bytes([packed[place] ^ (1 << bit)]) + packed[place + 1 :]
    with pytest.raises(RecordError, match=r"^file: "):
        unpack(Entry, damaged, "file")


@given(machines, st.data())
def test_a_cut_file_is_refused(machine: Machine, data: st.DataObject) -> None:
    packed = pack(encode(machine))
    with pytest.raises(RecordError, match=r"^file: "):
        unpack(Entry, packed[: data.draw(st.integers(0, len(packed) - 1))], "file")


@given(st.binary(max_size=200))
def test_a_foreign_file_is_refused(data: bytes) -> None:
    with pytest.raises(RecordError, match=r"^file: "):
        unpack(Entry, data, "file")


def test_deep_nesting_is_refused() -> None:
    deep = b"[" * 100_000 + b"]" * 100_000
    with pytest.raises(RecordError):
        decode(Machine, Entry(version=1, readable_by=1, data=msgspec.Raw(deep)), "owners.vm")


plain_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.parametrize("name", sorted(record_kinds()))
@given(data=st.data())
def test_every_owners_record_round_trips_or_refuses(name: str, data: st.DataObject) -> None:
    """For each real record: any value is either refused by name, or read into what encodes and decodes to itself."""
    kind = record_kinds()[name]
    fields = st.sampled_from(kind.__struct_fields__ or ("x",))
    plain = data.draw(st.dictionaries(fields, plain_values, max_size=4))
    try:
        record = decode(kind, _entry(plain), f"owners.{name}")
    except RecordError as error:
        assert str(error).startswith(f"owners.{name}") or f"`owners.{name}" in str(error)
    else:
        assert decode(kind, encode(record), f"owners.{name}") == record


def _entry(plain: Any) -> Entry:
    return Entry(version=1, readable_by=1, data=msgspec.Raw(msgspec.json.encode(plain)))
