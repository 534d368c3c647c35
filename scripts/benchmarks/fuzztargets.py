"""What the fuzzer tries: each target takes any bytes, and raises whatever the product should not have raised or done."""

from __future__ import annotations

import logging
import zlib
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import msgspec

from drivers.vm.machine import Machine, VmRecord
from state import handoff, records
from state.children import Child
from state.fds import Held
from state.handoff import Document, Step
from state.records import RecordError
from vdsmd import config
from vdsmd.api import xmlrpc
from vdsmd.api.xmlrpc import DateTime, Decoder, Fault, Malformed
from vdsmd.config import ConfigError
from vdsmd.daemon import records_of
from vdsmd.host.facts import HostRecord
from vdsmd.journal import Journal, JournalRecord
from vdsmd.reexec import ReexecRecord
from vdsmd.segments import Event, seal

logging.disable(logging.CRITICAL)

STRANGE: list[Any] = [None, True, 0, -1, 2**31, 2**63, 10**30, 0.5, 1e300, "", "\0", "../x", [], [[]], {}, {"": None}]
SHARE_OF_BYTES = 0.3


class Target(msgspec.Struct):
    """`once` tries one input; `seeds` are inputs that are as they should be."""

    once: Callable[[bytes], None]
    seeds: list[bytes]
    json: bool = False
    """Whether an input is JSON, of which values are to be broken too, and not only bytes."""


def break_value(data: bytes, random: Random) -> bytes:
    """Return JSON with one value replaced by another of it or by a strange one, or left out; nothing when it is none, and
    now and then."""
    try:
        plain = msgspec.json.decode(data)
    except records.UNREADABLE:
        return b""
    found = _places(plain)
    if not found or random.random() < SHARE_OF_BYTES:
        return b""
    into, key = random.choice(found)
    if random.random() < 0.2:
        del into[key]
    else:
        other, name = random.choice(found)
        # As text: a value must not come to be inside of itself.
        into[key] = msgspec.Raw(msgspec.json.encode(random.choice([other[name], *STRANGE])))
    return msgspec.json.encode(plain)


def _places(plain: Any) -> list[tuple[Any, Any]]:
    """Return where each value is, as (the struct or list that it is in, its key there)."""
    if not isinstance(plain, dict | list):
        return []
    steps = list(plain.items() if isinstance(plain, dict) else enumerate(plain))
    return [(plain, key) for key, _ in steps] + [place for _, value in steps for place in _places(value)]


def document(_: Path) -> Target:
    """The JSON of a document, under a right checksum: it is refused, or can be handed on again and says the same."""

    def once(data: bytes) -> None:
        try:
            taken = handoff.parse(records.pack(msgspec.Raw(data)))
            found = records_of(taken)
        except RecordError as error:
            assert str(error).startswith(("document", "owners."))
            return
        assert msgspec.json.encode(handoff.parse(records.pack(taken))) == msgspec.json.encode(taken)
        for name, record in found.items():
            assert records.decode(type(record), records.encode(record), name) == record

    return Target(once, [msgspec.json.encode(_document())], json=True)


def _document() -> Document:
    machine = Machine(vm_id="1-2", conf={"vmId": "1-2", "memSize": 64, "devices": [{"type": "disk"}]}, pid=7)
    owners: dict[str, records.Record] = {
        "vm": VmRecord(machines=[machine], samples="{}", uri="test:///default"),
        "host": HostRecord(generation_id="1", since=1.5, statistics={"cpuUser": "1.0"}),
        "journal": JournalRecord(journal="1", next=5),
        "reexec": ReexecRecord(number=1),
    }
    return Document(
        format=handoff.FORMAT,
        nonce="0",
        boot_id="0",
        pid=7,
        start_time=1,
        release="1",
        generation=1,
        arguments=["--config", "/etc/vdsm/vdsm.conf"],
        closed_at=1.5,
        departed_at=2.5,
        priority=0,
        steps=[Step(name="drain", ms=0.5)],
        owners={name: records.encode(record) for name, record in owners.items()},
        fds=[Held(name="api/local", number=3, device=1, inode=2, kind=49152)],
        children=[Child(name="a", pid=8, start_time=2)],
    )


def call(_: Path) -> Target:
    """XML-RPC: it is malformed, or has the same meaning when it is said again, and however the pieces of it arrive."""

    def once(data: bytes) -> None:
        meaning = _meaning(data)
        assert type(_in_pieces(data)) is type(meaning)
        if isinstance(meaning, tuple):
            assert _meaning(xmlrpc.encode_call(*meaning)) == meaning
        try:
            value = xmlrpc.decode_reply(data)
        except (Malformed, Fault):
            return
        assert xmlrpc.decode_reply(xmlrpc.encode_reply(value)) == value

    values: list[Any] = [True, -5, 0.25, "a<b", b"\0\1", DateTime("20260101T10:20:30"), {"key": [1, "x"]}, []]
    seeds = [xmlrpc.encode_call("verb", values), xmlrpc.encode_reply({"status": {"code": 0}, "list": values})]
    return Target(once, [*seeds, xmlrpc.encode_fault(4, "no")])


def _meaning(data: bytes) -> tuple[str, list[Any]] | Malformed:
    try:
        return xmlrpc.decode_call(data)
    except Malformed as error:
        return error


def _in_pieces(data: bytes) -> tuple[str, list[Any]] | Malformed:
    decoder = Decoder()
    for place in range(0, len(data), 7):
        decoder.feed(data[place : place + 7])
    try:
        return decoder.call()
    except Malformed as error:
        return error


def journal(base: Path) -> Target:
    """A file of events and the mark, of which the first byte says whether their lines get right checksums: what is noted
    next is told, under a number that nothing that can be read has."""
    path = base / "events"
    path.mkdir()

    def once(data: bytes) -> None:
        for file in path.iterdir():
            file.unlink()
        lines, _, mark = data[1:].partition(b"\n\n")
        (path / "000000000001.jsonl").write_bytes(_resealed(lines) if data[:1] < b"\x80" else lines)
        if mark:
            (path / "mark").write_bytes(mark)
        kept = Journal(str(path), submit=lambda *_, **__: None, limits=lambda: (1.0, 2))
        kept.recover()
        before = kept.read(0)
        kept.note("it happened")
        after = kept.read(before.last)
        assert [event.name for event in after.events] == ["it happened"], after
        assert after.events[0].number > max((event.number for event in before.events), default=0)
        kept.close()

    lines = b"".join(seal(Event(number, 1.5, "vm.status", {"vm": "1", "status": "Up"})) for number in (1, 2, 3))
    mark = b'{"journal":"0123456789abcdef","boot":"0","number":3,"closed":true}'
    plain = b"".join(msgspec.json.encode(Event(number, 1.5, "vm.status", {"vm": "1"})) + b"\n" for number in (1, 2))
    return Target(once, [b"\xff" + lines + b"\n" + mark, b"\0" + plain + b"\n" + mark])


def _resealed(lines: bytes) -> bytes:
    return b"".join(line[:-1] + b',"crc":"%08x"}\n' % zlib.crc32(line) for line in lines.split(b"\n"))


def configuration(base: Path) -> Target:
    """A configuration: it is refused with the file's name, or whole."""
    path = base / "vdsm.conf"

    def once(data: bytes) -> None:
        path.write_bytes(data)
        try:
            config.load(str(path))
        except ConfigError as error:
            assert str(path) in str(error)

    sections = {name: msgspec.to_builtins(kind()) for name, kind in config.SECTIONS.items()}
    text = "".join(
        f"[{name}]\n" + "".join(f"{option} = {value}\n" for option, value in options.items())
        for name, options in sections.items()
    )
    return Target(once, [text.encode(), b"# no\n[vars]\nssl: false\n"])


TARGETS: dict[str, Callable[[Path], Target]] = {
    "document": document,
    "call": call,
    "journal": journal,
    "configuration": configuration,
}
