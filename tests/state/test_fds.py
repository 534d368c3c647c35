"""Named descriptors: found again over a real exec, verified, and nothing else crosses."""

from __future__ import annotations

import fcntl
import logging
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from state import fds
from state.fds import FdTable


@pytest.fixture
def table() -> Iterator[FdTable]:
    table = FdTable()
    yield table
    for name in table.names():
        table.drop(name)


def test_obtain_creates_once_and_finds_again(table: FdTable) -> None:
    number = table.obtain("vm/1/console", lambda: os.memfd_create("a"))
    assert "vm/1/console" in table and table["vm/1/console"] == number
    assert table.names("vm/") == ["vm/1/console"]
    again = FdTable(table.snapshot())
    assert again.inherited("vm/") == ["vm/1/console"]
    assert again.obtain("vm/1/console", lambda: pytest.fail("it was there")) == number
    assert again.inherited() == []


def test_a_name_is_held_once(table: FdTable) -> None:
    table.hold("a", os.memfd_create("a"))
    spare = os.memfd_create("b")
    with pytest.raises(ValueError, match="'a' is already held"):
        table.hold("a", spare)
    os.close(spare)


def test_dropping_closes_and_may_happen_twice(table: FdTable) -> None:
    number = table.hold("a", os.memfd_create("a"))
    table.drop("a")
    table.drop("a")
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(number)


def test_one_that_is_dropped_during_a_snapshot_is_left_out(table: FdTable, monkeypatch: pytest.MonkeyPatch) -> None:
    describe = fds._describe

    def late(name: str, number: int) -> fds.Held:
        table.drop("a")  # as another thread would
        return describe(name, number)

    monkeypatch.setattr(fds, "_describe", late)
    table.hold("a", os.memfd_create("a"))
    table.hold("b", os.memfd_create("b"))
    assert [held.name for held in table.snapshot()] == ["b"]


def test_a_descriptor_that_became_another_file_is_not_taken(table: FdTable, caplog: pytest.LogCaptureFixture) -> None:
    number = table.hold("a", os.memfd_create("a"))
    left = table.snapshot()
    other = os.memfd_create("other")
    os.dup2(other, number)
    os.close(other)
    again = FdTable(left)
    assert again.take("a") is None
    assert "not what it was name=a" in caplog.text


def test_what_nobody_claims_is_closed_and_said(table: FdTable, caplog: pytest.LogCaptureFixture) -> None:
    number = os.memfd_create("a")
    table.hold("vm/gone/console", number)
    again = FdTable(table.snapshot())
    with caplog.at_level(logging.WARNING):
        assert again.close_unclaimed() == ["vm/gone/console"]
    assert "name=vm/gone/console" in caplog.text
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(number)
    table._held.clear()  # closed above


LEAKY = """
import os, sys, json
from state.fds import FdTable
table = FdTable()
kept = os.memfd_create("kept"); os.write(kept, b"hello")
table.hold("kept", kept)
leak = os.open("/dev/null", os.O_RDONLY); os.set_inheritable(leak, True)
table.open_for_exec()
os.execv(sys.executable, [sys.executable, "-c", '''
import os, sys
kept, leak = int(sys.argv[1]), int(sys.argv[2])
others = [n for n in map(int, os.listdir("/proc/self/fd")) if n > 2 and n != kept and os.path.exists(f"/proc/self/fd/{n}")]
print(os.pread(kept, 10, 0).decode(), others)
''', str(kept), str(leak)])
"""


def test_only_named_descriptors_cross_an_exec() -> None:
    done = subprocess.run([sys.executable, "-c", LEAKY], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "hello []"


def test_a_failed_exec_leaves_descriptors_close_on_exec(table: FdTable) -> None:
    number = table.hold("a", os.memfd_create("a"))
    table.open_for_exec()
    assert not fcntl.fcntl(number, fcntl.F_GETFD) & fcntl.FD_CLOEXEC
    table.close_for_exec()
    assert fcntl.fcntl(number, fcntl.F_GETFD) & fcntl.FD_CLOEXEC


def test_names_are_told_while_others_hold_and_drop() -> None:
    """A worker may drop one in the middle of the question: here it is the question itself that does."""

    class Meddler(str):
        def startswith(self, *_: object) -> bool:
            ours.drop("b")
            return True

    ours = FdTable()
    for name in (Meddler("a"), "b", "c"):
        ours.hold(name, os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
    assert set(ours.names()) >= {"a", "c"}
    for name in ("a", "c"):
        ours.drop(name)
