"""Helpers: they are replaced when they end, outlive a re-exec, end with the daemon, and hold nobody up when storage hangs."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from drivers.storage.errors import HelperLost, StorageHangs
from drivers.storage.helpers.directory import MOST_ABANDONED
from drivers.storage.helpers.files import Files
from tests.drivers.storage.hanging import Hanging, hanging
from tests.drivers.storage.stand import Stand
from tests.until import until

pytestmark = pytest.mark.slow


@pytest.fixture
def stand(tmp_path: Path) -> Iterator[Stand]:
    stand = Stand(tmp_path)
    yield stand
    stand.close()


@pytest.fixture
def stuck(tmp_path: Path) -> Iterator[Hanging]:
    with hanging(tmp_path) as found:
        yield found


@pytest.fixture
def impatient(tmp_path: Path, stuck: Hanging) -> Iterator[Stand]:
    """Give a stand on which a helper has two threads, and, once it is told so, a call may take half a second."""
    stand = Stand(tmp_path, slots=2, queue=2)
    yield stand
    stuck.heal()
    stand.close()


def gone(pid: int) -> bool:
    return not os.path.exists(f"/proc/{pid}")


def test_a_helper_that_was_killed_is_replaced(stand: Stand, tmp_path: Path) -> None:
    files = Files(stand.get(tmp_path))
    files.write("a", b"1")
    for _ in range(2):
        (pid,) = stand.ground.pids().values()
        os.kill(pid, signal.SIGKILL)
        assert files.read("a") == b"1"
        until(lambda pid=pid: pid not in stand.ground.pids().values(), 60, "the old one to be reaped")  # type: ignore[misc]


def test_calls_at_the_same_time(stand: Stand, tmp_path: Path) -> None:
    files = Files(stand.get(tmp_path))
    threads = [threading.Thread(target=files.write, args=(f"{n}", bytes([n]) * 200_000)) for n in range(30)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert [files.read(f"{n}") for n in range(30)] == [bytes([n]) * 200_000 for n in range(30)]


def test_a_helper_and_its_monitor_outlive_a_reexec(stand: Stand, tmp_path: Path) -> None:
    (tmp_path / "dom_md").mkdir()
    (tmp_path / "dom_md" / "metadata").write_text("VERSION=3\n")
    stand.get(tmp_path).watch(0.05)
    until(lambda: stand.reports, 60, "a report")
    before = stand.ground.pids()
    for _ in range(3):
        stand.reexec()
        assert stand.ground.pids() == before
        assert Files(stand.get(tmp_path)).exists("dom_md")
        seen = len(stand.reports)
        until(lambda seen=seen: len(stand.reports) > seen + 2, 60, "reports to go on")  # type: ignore[misc]
    assert {report.get("metadata") for _, report in stand.reports} == {b"VERSION=3\n"}
    names = [name for name in stand.ground.fds.names() if name.startswith("storage/")]
    assert names == list(before)


def test_helpers_end_with_the_daemon(tmp_path: Path) -> None:
    stand = Stand(tmp_path)
    Files(stand.get(tmp_path)).stat("")
    (pid,) = stand.ground.pids().values()
    stand.crash()
    assert os.waitpid(pid, 0)[1] == 0


def test_a_helper_that_ended_during_the_exec_is_replaced(stand: Stand, tmp_path: Path) -> None:
    stand.get(tmp_path).watch(0.05)
    until(lambda: stand.reports, 60, "a report")
    (pid,) = stand.ground.pids().values()
    os.kill(pid, signal.SIGKILL)
    stand.reexec()
    seen = len(stand.reports)
    until(lambda: len(stand.reports) > seen + 1, 60, "another helper to report")
    assert pid not in stand.ground.pids().values()


def test_a_helper_that_nobody_needs_is_ended(tmp_path: Path) -> None:
    stand = Stand(tmp_path, idle=0.1)
    Files(stand.get(tmp_path)).stat("")
    until(lambda: not stand.ground.pids(), 60, "it to be ended")
    Files(stand.get(tmp_path)).stat("")  # and it is there again when it is needed
    stand.close()


def test_a_directory_that_moved_gets_another_helper(stand: Stand, tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).touch()
    assert Files(stand.get(tmp_path / "one")).names() == ["one"]
    assert Files(stand.get(tmp_path / "two")).names() == ["two"]
    until(lambda: len(stand.ground.pids()) == 1, 60, "the first one to end")


def test_what_is_dropped_takes_no_calls(stand: Stand, tmp_path: Path) -> None:
    files = Files(stand.get(tmp_path))
    files.stat("")
    stand.remotes.drop("it")
    with pytest.raises(HelperLost):
        files.stat("")


def test_a_helper_that_does_not_listen(tmp_path: Path) -> None:
    stand = Stand(tmp_path)
    files = Files(stand.get(tmp_path))
    files.stat("")
    (pid,) = stand.ground.pids().values()
    os.kill(pid, signal.SIGSTOP)
    stand.change(timeout=0.5)
    try:
        with pytest.raises(StorageHangs):
            files.stat("")
    finally:
        os.kill(pid, signal.SIGCONT)
    assert files.within(60).exists("")
    stand.close()


def test_calls_on_storage_that_hangs_end_and_other_storage_is_not_held_up(
    impatient: Stand, stuck: Hanging, tmp_path: Path
) -> None:
    stuck_files, other = Files(impatient.get(stuck.path)), Files(impatient.get(tmp_path, "other"))
    stuck_files.create("a", b"1")
    stuck.hang()
    impatient.change(timeout=0.5)
    with pytest.raises(StorageHangs):
        stuck_files.read("a")
    assert other.within(60).exists("backing")
    stuck.heal()
    until(lambda: _is(stuck_files, b"1"), 60, "the storage to be well again")
    assert len(impatient.ground.pids()) == 2


def _is(files: Files, data: bytes) -> bool:
    try:
        return files.within(10).read("a") == data
    except StorageHangs:
        return False


@pytest.mark.slow
def test_hanging_helpers_are_replaced_only_so_often(impatient: Stand, stuck: Hanging) -> None:
    files = Files(impatient.get(stuck.path))
    files.create("a", b"1")
    impatient.get(stuck.path).watch(0.1)
    stuck.hang()
    impatient.change(timeout=0.5)
    until(lambda: _hangs(files, "helpers hang in the kernel"), 120, "enough to hang")
    assert impatient.remotes.hanging("it") == MOST_ABANDONED
    stuck.heal()
    until(lambda: _is(files, b"1"), 60, "the storage to be well again")
    until(lambda: impatient.remotes.hanging("it") == 0, 60, "those given up to end")
    seen = len(impatient.reports)
    until(lambda: len(impatient.reports) > seen + 1, 60, "the monitor to be back")


def _hangs(files: Files, reason: str) -> bool:
    with pytest.raises(StorageHangs) as caught:
        files.stat("a")
    return reason in str(caught.value)


@pytest.mark.slow
def test_a_reexec_while_storage_hangs(impatient: Stand, stuck: Hanging) -> None:
    """What hangs is adopted as such, with its name and its pid, and reaped by the next run."""
    files = Files(impatient.get(stuck.path))
    files.create("a", b"1")
    stuck.hang()
    impatient.change(timeout=0.5)
    until(lambda: _hangs(files, "") and impatient.remotes.hanging("it"), 60, "a helper to be given up")
    before = impatient.ground.pids()
    impatient.reexec()
    assert impatient.ground.pids().keys() >= before.keys() - {None}
    files = Files(impatient.get(stuck.path))
    _hangs(files, "")
    stuck.heal()
    until(lambda: _is(files, b"1"), 60, "the storage to be well again")
    until(lambda: len(impatient.ground.pids()) == 1, 60, "the others to be reaped")


@pytest.mark.slow
def test_calls_let_go_when_the_daemon_wants_to_leave(tmp_path: Path, stuck: Hanging) -> None:
    stand = Stand(tmp_path, timeout=600.0)
    files = Files(stand.get(stuck.path))
    files.create("a")
    stuck.hang()
    ended = threading.Event()

    def wait() -> None:
        with pytest.raises(StorageHangs, match="re-executes"):
            files.stat("a")
        ended.set()

    thread = threading.Thread(target=wait)
    thread.start()
    stand.remotes.departing = True
    assert ended.wait(60)
    thread.join()
    stuck.heal()
    stand.close()


def test_a_disconnect_does_not_wait_for_what_hangs(impatient: Stand, stuck: Hanging) -> None:
    files = Files(impatient.get(stuck.path))
    files.create("a")
    stuck.hang()
    impatient.change(timeout=0.5)
    _hangs(files, "")
    with impatient.remotes.rest(str(stuck.path), 0.2) as ended:
        assert not ended
        assert _hangs(files, "being disconnected")
    stuck.heal()
    with impatient.remotes.rest(str(stuck.path), 60) as ended:
        assert ended
    assert _is(files, b"")
