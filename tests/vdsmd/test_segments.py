"""Segments and the mark, damaged in ways that a checksum does not show or that none guards."""

from __future__ import annotations

import zlib
from pathlib import Path

import pytest

from vdsmd.journal import Journal
from vdsmd.segments import Event, Segments, seal, unseal


@pytest.mark.parametrize(
    "body", [b'{"number":1,"name":"\xff"}', b'{"number":' + b"[" * 100_000, b'{"number":"1"}', b"{}"]
)
def test_a_sealed_line_that_is_no_event_is_none(body: bytes) -> None:
    assert unseal(body[:-1] + b',"crc":"%08x"}' % zlib.crc32(body[:-1] + b"}")) is None


@pytest.mark.parametrize("mark", [b"\xff", b'{"journal":"\xff","boot":"","number":7}', b"[" * 100_000, b"{}", b""])
def test_a_mark_of_no_use_costs_no_event(tmp_path: Path, mark: bytes) -> None:
    line = seal(Event(6, 1.5, "it was", {}))
    (tmp_path / "000000000006.jsonl").write_bytes(line)
    (tmp_path / "mark").write_bytes(mark)
    journal = Journal(str(tmp_path), submit=lambda *_, **__: None, limits=lambda: (1.0, 2))
    journal.recover()
    journal.note("it happened")
    assert [event.name for event in journal.read(0).events] == ["it was", "it happened"]
    journal.close()
    kept = Segments(str(tmp_path), lambda: (1.0, 2)).read_mark()
    assert kept is not None
    assert kept.number == journal.snapshot().next - 1
