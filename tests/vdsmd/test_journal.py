"""The event journal: a number is given once, and what a reader cannot get is named, whatever has happened to the files."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import msgspec
import pytest

from vdsmd.journal import IN_MEMORY, LEAP, LONGEST_TEXT, Journal
from vdsmd.segments import Mark, Segments

FIRST = "000000000001.jsonl"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "lib" / "events"


def opened(path: Path, *, max_mb: float = 4, keep: int = 5, before: Journal | None = None) -> Journal:
    """Return a journal as a cold start finds it, or as the one `before` leaves it to the next run."""
    journal = Journal(str(path), submit=lambda work: work(), limits=lambda: (max_mb, keep))
    journal.recover() if before is None else journal.restore(before.snapshot())
    journal.start()
    return journal


def filled(path: Path, count: int = 5) -> Journal:
    journal = opened(path)
    for index in range(count):
        journal.note("test.event", index=index)
    return journal


def numbers(journal: Journal, since: int = 0, limit: int = 1000) -> list[int]:
    return [event.number for event in journal.read(since, limit).events]


def missed(journal: Journal, since: int = 0) -> list[tuple[int, int]]:
    return journal.read(since).missed


def mark_of(path: Path) -> Mark:
    mark = Segments(str(path), lambda: (4, 5)).read_mark()
    assert mark is not None
    return mark


def test_an_event_is_told_as_it_was_noted(path: Path) -> None:
    journal = opened(path)
    before = time.time()
    journal.note("vm.status", vm="an id", name="a <name>", code=7)
    (event,) = journal.read(0).events
    assert (event.number, event.name) == (1, "vm.status")
    assert event.fields == {"vm": "an id", "name": "a <name>", "code": "7"}
    assert before <= event.time <= time.time()
    assert json.loads((path / FIRST).read_text())["fields"]["code"] == "7"


def test_pages(path: Path) -> None:
    journal = filled(path)
    page = journal.read(1, 2)
    assert [event.number for event in page.events] == [2, 3]
    assert (page.first, page.last, page.read_to, page.missed) == (1, 5, 3, [])
    assert (numbers(journal, 3), numbers(journal, -2), numbers(journal, -99)) == ([4, 5], [4, 5], [1, 2, 3, 4, 5])
    for since, limit in ((5, 10), (99, 10), (2, 0), (2, -1)):
        page = journal.read(since, limit)
        assert (page.events, page.missed, page.read_to) == ([], [], since)


def test_an_empty_journal(path: Path) -> None:
    page = opened(path).read(0)
    assert (page.events, page.missed, page.first, page.last, page.read_to) == ([], [], 1, 0, 0)


@pytest.mark.parametrize("handed_on", [True, False])
def test_numbers_go_on_in_the_next_run(path: Path, handed_on: bool) -> None:
    first = filled(path)
    second = opened(path, before=first if handed_on else None)
    second.note("test.more")
    assert numbers(second) == [1, 2, 3, 4, 5, 6]
    assert (missed(second), second.end["journal"]) == ([], first.end["journal"])
    assert second.read(0, 3).read_to == 3


def test_a_run_that_failed_to_take_over_may_have_noted_events(path: Path) -> None:
    first = filled(path)
    opened(path, before=first).note("test.by_the_run_that_failed")
    back = opened(path, before=first)
    back.note("test.by_the_run_that_came_back")
    assert numbers(back) == [1, 2, 3, 4, 5, 6, 7]


def test_noting_before_all_else_goes_on_too(path: Path) -> None:
    filled(path)
    journal = Journal(str(path), submit=lambda work: work(), limits=lambda: (4, 5))
    journal.note("test.early")
    assert numbers(journal) == [1, 2, 3, 4, 5, 6]


def test_more_than_memory_holds_is_read_from_disk(path: Path) -> None:
    journal = filled(path, IN_MEMORY + 1500)
    told: list[int] = []
    while (page := journal.read(told[-1] if told else 0)).events:
        assert page.missed == []
        told += [event.number for event in page.events]
    assert told == list(range(1, IN_MEMORY + 1501))


def test_old_files_are_removed_and_missing(path: Path) -> None:
    journal = opened(path, max_mb=0.001, keep=2)
    for index in range(100):
        journal.note("test.event", index=index)
    kept = sorted(path.glob("*.jsonl"))
    assert len(kept) == 3
    assert all(each.stat().st_size <= 1049 for each in kept)
    first = int(kept[0].stem)
    fresh = opened(path)
    assert numbers(fresh) == list(range(first, 101))
    assert (missed(fresh), fresh.read(0).first) == ([(1, first - 1)], first)
    assert missed(fresh, first - 3) == [(first - 2, first - 1)]
    assert missed(fresh, first - 1) == []


@pytest.mark.parametrize("torn", [b'{"number":6,"ti', b"\0" * 100000, b"\xff"])
def test_a_torn_last_line_is_cut_off_and_missing(path: Path, torn: bytes) -> None:
    filled(path)
    whole = (path / FIRST).read_bytes()
    (path / FIRST).write_bytes(whole + torn)
    journal = opened(path)
    (cut,) = journal.read(5).events
    assert (cut.number, cut.name, cut.fields) == (7, "journal.cut", {"bytes": str(len(torn))})
    assert missed(journal) == [(6, 6)]
    assert (path / FIRST).read_bytes().startswith(whole + b'{"number":7,')


def test_every_place_at_which_a_write_can_be_cut(path: Path) -> None:
    filled(path, 2)
    whole, mark = (path / FIRST).read_bytes(), (path / "mark").read_bytes()
    first = whole.index(b"\n") + 1
    for length in range(first + 1, len(whole)):
        (path / FIRST).write_bytes(whole[:length])
        (path / "mark").write_bytes(mark)
        journal = opened(path)
        assert numbers(journal) == [1, 3]
        assert missed(journal) == [(2, 2)]


@pytest.mark.parametrize("damaged", [0, 2, 4])
def test_a_damaged_line_is_missing_wherever_it_is_damaged(path: Path, damaged: int) -> None:
    filled(path)
    lines = (path / FIRST).read_bytes().splitlines()
    for at in range(0, len(lines[damaged]), 7):
        line = bytearray(lines[damaged])
        line[at] ^= 1
        (path / FIRST).write_bytes(b"\n".join([*lines[:damaged], bytes(line), *lines[damaged + 1 :], b""]))
        journal = opened(path)
        assert missed(journal) == [(damaged + 1, damaged + 1)]
        assert journal.end["last"] == "5"


def test_a_file_of_which_nothing_is_of_use(path: Path) -> None:
    filled(path)
    (path / FIRST).write_bytes(b"no event\n" * 3)
    journal = opened(path)
    journal.note("test.more")
    assert (numbers(journal), missed(journal)) == ([4], [(1, 3)])


def test_strange_files_are_left_alone(path: Path) -> None:
    filled(path)
    for name in ("notes.jsonl", "1.txt", "²³.jsonl"):
        (path / name).write_text("mine")
    assert numbers(opened(path)) == [1, 2, 3, 4, 5]


# Disks that fail


@pytest.fixture
def full(path: Path) -> Path:
    """Return the directory of a journal whose disk is full: the kernel says so for whatever is written to its file."""
    path.mkdir(parents=True)
    (path / FIRST).symlink_to("/dev/full")
    return path


def test_on_a_full_disk_events_stay_in_memory(full: Path, caplog: pytest.LogCaptureFixture) -> None:
    journal = filled(full)
    assert (numbers(journal), missed(journal)) == ([1, 2, 3, 4, 5], [])
    assert caplog.text.count("No space left") == 1
    (full / FIRST).unlink()
    journal.note("test.again")
    assert numbers(opened(full)) == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("handed_on", [True, False])
def test_what_was_only_in_memory_is_missing_in_the_next_run(full: Path, handed_on: bool) -> None:
    first = filled(full)
    assert mark_of(full).number == 5
    (full / FIRST).unlink()
    second = opened(full, before=first if handed_on else None)
    assert (numbers(second), missed(second)) == ([], [(1, 5)])
    second.note("test.again")
    assert (numbers(second), missed(second), missed(second, 3)) == ([6], [(1, 5)], [(4, 5)])


LIMITED = """
import resource, sys
from vdsmd.journal import Journal

journal = Journal(sys.argv[1], submit=lambda work: work(), limits=lambda: (4, 5))
journal.recover()
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
for index in range(20):
    journal.note("test.event", index=index)
whole = open(sys.argv[1] + "/000000000001.jsonl", "rb").read()
assert len(whole) > 500 and whole.endswith(b"\\n"), whole
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
journal.note("test.last")
"""


def test_a_write_that_is_cut_short_leaves_no_half_line(path: Path) -> None:
    subprocess.run([sys.executable, "-c", LIMITED, str(path)], check=True, timeout=120)
    journal = opened(path)
    assert (numbers(journal), missed(journal)) == (list(range(1, 22)), [])


def test_a_directory_that_is_removed_under_way(path: Path) -> None:
    journal = filled(path)
    shutil.rmtree(path)
    journal.note("test.more")
    assert numbers(journal) == [1, 2, 3, 4, 5, 6]
    second = opened(path)
    assert (numbers(second), missed(second)) == ([6], [(1, 5), (7, 6 + LEAP)])


def test_no_directory_can_be_made(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path.parent.write_text("in the way")
    journal = filled(path)
    page = journal.read(-5)
    assert [event.fields["index"] for event in page.events] == ["0", "1", "2", "3", "4"]
    assert page.missed == []
    journal.close()
    assert caplog.text.count("Events cannot be written") == 1


# The mark: what lines do not tell


def test_a_journal_that_is_gone_is_another_one(path: Path) -> None:
    first = filled(path)
    shutil.rmtree(path)
    second = filled(path, 1)
    assert (numbers(second), missed(second)) == ([1], [])
    assert second.end["journal"] != first.end["journal"]


@pytest.mark.parametrize("closed", [True, False])
def test_after_a_power_failure_no_number_is_given_twice(path: Path, closed: bool) -> None:
    first = filled(path)
    if closed:
        first.close()
    mark = msgspec.structs.replace(mark_of(path), boot="another boot")
    Segments(str(path), lambda: (4, 5)).write_mark(mark)
    second = opened(path)
    second.note("test.more")
    assert second.end["journal"] == first.end["journal"]
    assert missed(second) == ([] if closed else [(6, 5 + LEAP)])
    assert not mark_of(path).closed


@pytest.mark.parametrize("left", [None, b"", b"no mark"])
def test_without_a_mark_the_worst_is_assumed(path: Path, left: bytes | None) -> None:
    first = filled(path)
    if left is None:
        (path / "mark").unlink()
    else:
        (path / "mark").write_bytes(left)
    second = opened(path)
    second.note("test.more")
    assert missed(second) == [(6, 5 + LEAP)]
    assert second.end["journal"] != first.end["journal"]
    assert mark_of(path).journal == second.end["journal"]


# Who notes


class Hostile:
    def __str__(self) -> str:
        raise ValueError("no")


def test_noting_never_raises_and_costs_no_number(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    journal = opened(path)
    journal.note("test.hostile", value=Hostile())
    assert "could not be noted name=test.hostile" in caplog.text
    journal.note("test.odd", surrogate="\ud800", control="\0\n", long="x" * 99999, none=None)
    (event,) = opened(path).read(0).events
    assert (event.number, event.fields["surrogate"], event.fields["control"]) == (1, "?", "\0\n")
    assert (len(event.fields["long"]), event.fields["none"]) == (LONGEST_TEXT, "None")


def test_many_threads(path: Path) -> None:
    journal = opened(path, max_mb=0.01, keep=1000)

    def work(thread: int) -> None:
        for index in range(200):
            journal.note("test.event", thread=thread, index=index)

    threads = [threading.Thread(target=work, args=[number]) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    events = [event for since in (0, 1000) for event in opened(path).read(since).events]
    assert [event.number for event in events] == list(range(1, 1601))
    for number in range(8):
        mine = [int(event.fields["index"]) for event in events if event.fields["thread"] == str(number)]
        assert mine == list(range(200))


def test_one_descriptor_however_many_files(path: Path) -> None:
    journal = opened(path, max_mb=0, keep=3)
    journal.note("test.first")
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        journal.note("test.event")
        journal.read(0)
    assert len(os.listdir("/proc/self/fd")) == before
