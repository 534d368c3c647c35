"""Named children: real processes, known by pid, start time and pidfd."""

from __future__ import annotations

import logging
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from state.children import Child, ChildTable, Exit
from state.fds import FdTable
from state.process import boot_id, is_alive, reap_orphans, start_time
from tests.until import until


class Watcher:
    """Stands for the loop: looks at pidfds when asked to."""

    def __init__(self, table: ChildTable) -> None:
        self.table = table
        self.poll = select.poll()
        self.names: dict[int, str] = {}
        table.attach(self.watch, self.unwatch)

    def watch(self, fd: int, name: str) -> None:
        self.names[fd] = name
        self.poll.register(fd, select.POLLIN)

    def unwatch(self, fd: int) -> None:
        del self.names[fd]
        self.poll.unregister(fd)

    def turn(self) -> None:
        for fd, _ in self.poll.poll(50):
            self.table.ended(self.names[fd])


@pytest.fixture
def fds() -> Iterator[FdTable]:
    fds = FdTable()
    yield fds
    for name in fds.names():
        fds.drop(name)


@pytest.fixture
def table(fds: FdTable) -> ChildTable:
    return ChildTable(fds)


def wait_for(watcher: Watcher, exits: list[Exit]) -> Exit:
    until(lambda: watcher.turn() or exits)  # type: ignore[func-returns-value]
    return exits.pop()


@pytest.mark.parametrize(("script", "code"), [("exit 0", 0), ("exit 7", 7), ("kill -9 $$", -9)])
def test_the_end_is_told_once_with_its_status(table: ChildTable, fds: FdTable, script: str, code: int) -> None:
    watcher, exits = Watcher(table), list[Exit]()
    child = table.spawn("jobs/1", ["/bin/sh", "-c", script], on_exit=exits.append)
    assert wait_for(watcher, exits) == Exit(name="jobs/1", pid=child.pid, code=code)
    assert "jobs/1" not in table and fds.names() == []
    assert start_time(child.pid) is None


def test_a_child_has_an_empty_signal_mask_and_default_sigpipe(table: ChildTable) -> None:
    watcher, exits = Watcher(table), list[Exit]()
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    try:
        child = table.spawn("jobs/1", ["/bin/sleep", "1000"], on_exit=exits.append)
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
    with open(f"/proc/{child.pid}/status") as file:
        masks = {line.split(":")[0]: int(line.split()[1], 16) for line in file if line.startswith(("SigBlk", "SigIgn"))}
    assert masks["SigBlk"] == 0
    assert not masks["SigIgn"] & (1 << (signal.SIGPIPE - 1))
    table.signal("jobs/1", signal.SIGTERM)
    assert wait_for(watcher, exits).code == -signal.SIGTERM


def test_files_are_given_by_number(table: ChildTable) -> None:
    watcher, exits = Watcher(table), list[Exit]()
    output = os.memfd_create("out")
    table.spawn("jobs/1", ["/bin/echo", "hi"], on_exit=exits.append, files={1: output})
    wait_for(watcher, exits)
    assert os.pread(output, 10, 0) == b"hi\n"
    os.close(output)


def test_a_program_that_is_not_there(table: ChildTable, fds: FdTable) -> None:
    with pytest.raises(FileNotFoundError):
        table.spawn("jobs/1", ["/no/such/program"], on_exit=lambda _: None)
    assert table.snapshot() == [] and fds.names() == []


def test_taken_by_the_next_run_with_its_status(table: ChildTable, fds: FdTable) -> None:
    child = table.spawn("jobs/1", ["/bin/sh", "-c", "exit 5"], on_exit=lambda _: pytest.fail("the old run"))
    until(lambda: os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT))
    next_table = ChildTable(FdTable(fds.snapshot()), table.snapshot())
    watcher, exits = Watcher(next_table), list[Exit]()
    assert next_table.take("jobs/1", on_exit=exits.append) == child
    assert wait_for(watcher, exits).code == 5
    fds._held.clear()  # closed by the next run's table


def test_a_stranger_with_the_pid_is_never_taken(fds: FdTable, caplog: pytest.LogCaptureFixture) -> None:
    pid = os.getpid()
    table = ChildTable(fds, [Child(name="jobs/1", pid=pid, start_time=(start_time(pid) or 0) + 1)])
    assert table.take("jobs/1", on_exit=lambda _: None) is None
    assert "belongs to a stranger" in caplog.text
    assert table.adopt("jobs/2", pid, 1, on_exit=lambda _: None) is None


PARENT = """
import subprocess
child = subprocess.Popen(['/bin/cat'], stdin=subprocess.PIPE)
print(child.pid, flush=True)
input()
child.kill()
child.wait()
"""


def test_a_process_of_somebody_else_is_adopted(table: ChildTable) -> None:
    watcher, exits = Watcher(table), list[Exit]()
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert parent.stdin and parent.stdout
    pid = int(parent.stdout.readline())
    started = start_time(pid)
    assert started is not None
    child = table.adopt("vm/1/qemu", pid, started, on_exit=exits.append)
    assert child is not None and not child.spawned and is_alive(pid, started)
    parent.communicate("\n")
    assert wait_for(watcher, exits) == Exit(name="vm/1/qemu", pid=pid, code=None)


def test_what_nobody_claims_is_left_running(fds: FdTable, caplog: pytest.LogCaptureFixture) -> None:
    process = subprocess.Popen(["/bin/sleep", "1000"])
    try:
        left = Child(name="jobs/1", pid=process.pid, start_time=start_time(process.pid) or 0)
        table = ChildTable(fds, [left])
        with caplog.at_level(logging.WARNING):
            assert table.drop_unclaimed() == ["jobs/1"]
        assert process.poll() is None
    finally:
        process.kill()
        process.wait()


ORPHANS = """
import ctypes, os, subprocess
from tests.until import until
from state.process import own_children, reap_orphans, stat_fields
ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)
direct = os.posix_spawn("/bin/true", ["/bin/true"], {})
# The orphan ends when we let it: a shell that is still there would reap it.
script = "setsid /bin/sh -c 'exec 3<&0; cat <&3 >/dev/null & echo $!'"
middle = subprocess.Popen(["/bin/sh", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
orphan = int(middle.stdout.readline())
middle.wait()
middle.stdin.close()
def zombie(pid): return pid in own_children() and stat_fields(pid)[0] == "Z"
until(lambda: zombie(direct) and zombie(orphan))
reaped = [pid for pid, _ in reap_orphans(set())]
print(direct in reaped, orphan in reaped, direct in own_children(), orphan in own_children())
print(reap_orphans({direct}, frozenset([direct])), [pid for pid, _ in reap_orphans(set(), frozenset([direct]))] == [direct])
"""


def test_only_double_forked_orphans_are_reaped() -> None:
    """libvirt waits for its own direct children; taking their status away breaks it."""
    done = subprocess.run([sys.executable, "-c", ORPHANS], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split() == ["False", "True", "True", "False", "[]", "True"]


def test_nothing_to_reap() -> None:
    reap_orphans(set())  # what earlier tests of this process have left
    assert reap_orphans(set()) == []
    assert len(boot_id()) == 36
