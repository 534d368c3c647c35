"""The service manager's protocol: what is said, to whom, and what becomes of descriptors that are to outlive a crash."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers.vm.console import Consoles
from state.children import ChildTable
from state.fds import FdTable
from tests.drivers.vm.stand import Stand
from tests.manager import Manager
from tests.until import until
from vdsmd.loop import Loop
from vdsmd.servicemanager import LONGEST_NAME, ServiceManager, decode_name, encode_name, received

VM = "11111111-2222-4333-8444-555555555555"
CONSOLE = f"vm/{VM}/console"


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Manager]:
    address = str(tmp_path / "notify") if request.param == "path" else f"@vdsmd-test-{os.getpid()}-{tmp_path.name}"
    manager = Manager(address)
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    for name in ("WATCHDOG_USEC", "WATCHDOG_PID"):
        monkeypatch.delenv(name, raising=False)
    yield manager
    manager.close()


@pytest.fixture
def table() -> Iterator[FdTable]:
    table = FdTable()
    yield table
    for name in table.names():
        table.drop(name)


@pytest.fixture
def turning() -> Iterator[Callable[[], Loop]]:
    """Give a function that makes a loop and turns it in a thread until the test ends."""
    loops: list[tuple[Loop, threading.Thread]] = []

    def turn() -> Loop:
        loop = Loop()
        thread = threading.Thread(target=loop.run)
        thread.start()
        loops.append((loop, thread))
        return loop

    yield turn
    for loop, thread in loops:
        loop.call_threadsafe(loop.stop)
        thread.join()
        loop.close()


class Life:
    """What a daemon would have to say of itself."""

    def __init__(self, fds: FdTable, loop: Loop) -> None:
        self.reloading = False
        self.summary = "fine"
        self.told = ServiceManager(fds)
        self._loop = loop

    def serve(self) -> None:
        serving = threading.Event()

        def serve() -> None:
            self.told.serve(self._loop, reloading=lambda: self.reloading, describe=lambda: self.summary)
            serving.set()

        self._loop.call_threadsafe(serve)
        assert serving.wait(60)


# What is said


def test_ready_reloading_ready_stopping(manager: Manager, table: FdTable, turning: Callable[[], Loop]) -> None:
    life = Life(table, turning())
    life.told.changed()
    life.serve()
    until(lambda: manager.states() == ["READY"])
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    life.reloading, life.summary = True, "re-exec 1 is under way"
    life.told.changed()
    until(lambda: manager.states() == ["READY", "RELOADING"])
    after = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    [said] = [said.fields for said in manager.said if "RELOADING" in said.fields]
    assert before <= int(said["MONOTONIC_USEC"]) <= after and said["STATUS"] == "re-exec 1 is under way"
    life.reloading, life.summary = False, "re-exec 1 was refused:\n  a line, and   another"
    life.told.changed()
    life.told.stopping()
    life.told.changed()
    until(lambda: manager.states() == ["READY", "RELOADING", "READY", "STOPPING"])
    assert "re-exec 1 was refused: a line, and another" in manager.all("STATUS")
    assert {said.pid for said in manager.said} == {os.getpid()}


def test_a_reload_of_the_configuration_is_told(manager: Manager, table: FdTable, turning: Callable[[], Loop]) -> None:
    life = Life(table, turning())
    life.serve()
    done: list[list[str]] = []

    def work() -> None:
        until(lambda: len(manager.states()) > 1)
        done.append(manager.states())

    life.told.reload(work)
    until(lambda: manager.states() == ["READY", "RELOADING", "READY"])
    assert done == [["READY", "RELOADING"]]


def test_a_reload_while_a_re_exec_waits_does_not_tell_that_it_is_over(
    manager: Manager, table: FdTable, turning: Callable[[], Loop]
) -> None:
    life = Life(table, turning())
    life.serve()
    life.reloading = True
    life.told.reload(lambda: None)
    until(lambda: len(manager.all("RELOADING")) == 2)
    assert manager.states() == ["READY", "RELOADING"]


@pytest.mark.parametrize(("pid", "wanted"), [("", True), ("ours", True), ("1", False)])
def test_the_watchdog_gets_its_pings(
    manager: Manager,
    table: FdTable,
    turning: Callable[[], Loop],
    monkeypatch: pytest.MonkeyPatch,
    pid: str,
    wanted: bool,
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "20000")
    if pid:
        monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()) if pid == "ours" else pid)
    life = Life(table, turning())
    life.serve()
    if wanted:
        until(lambda: len(manager.all("WATCHDOG")) > 3)
    life.summary = "news"
    if wanted:
        until(lambda: manager.status() == "news")
    else:
        life.told.changed()
        until(lambda: manager.status() == "news")
        assert manager.all("WATCHDOG") == []


def test_a_loop_that_is_stuck_sends_no_ping(
    manager: Manager, table: FdTable, turning: Callable[[], Loop], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "20000")
    loop = turning()
    life = Life(table, loop)
    life.serve()
    until(lambda: manager.all("WATCHDOG"))
    stuck, free = threading.Event(), threading.Event()

    def stick() -> None:
        stuck.set()
        free.wait(60)

    loop.call_threadsafe(stick)
    assert stuck.wait(60)
    life.told.changed()  # behind every ping that was sent before
    until(lambda: len(manager.all("READY")) == 2)
    pings = len(manager.all("WATCHDOG"))
    life.told.changed()
    until(lambda: len(manager.all("READY")) == 3)
    assert len(manager.all("WATCHDOG")) == pings
    free.set()
    until(lambda: len(manager.all("WATCHDOG")) > pings)


def test_without_a_service_manager_nothing_happens(
    table: FdTable, turning: Callable[[], Loop], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    life = Life(table, turning())
    life.serve()
    life.told.reload(lambda: None)
    table.hold("a", os.memfd_create("a"), stored=True)
    table.drop("a")
    life.told.stopping()


@pytest.mark.parametrize("address", ["/nonexistent/notify", "vsock:2:1234", "/" + "x" * 200, "@"])
def test_a_service_manager_that_is_not_there_costs_one_line(
    address: str,
    table: FdTable,
    turning: Callable[[], Loop],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    life = Life(table, turning())
    life.serve()
    for _ in range(3):
        life.told.changed()
        table.hold("a", os.memfd_create("a"), stored=True)
        table.drop("a")
    life.told.stopping()
    assert caplog.text.count("The service manager cannot be told") == 1


def test_what_could_not_be_told_is_told_later_and_in_order(
    tmp_path: Path, table: FdTable, turning: Callable[[], Loop], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full queue and an absent listener are the same thing: neither blocks, neither loses anything."""
    path = str(tmp_path / "notify")
    monkeypatch.setenv("NOTIFY_SOCKET", path)
    life = Life(table, turning())
    deaf = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    deaf.bind(path)
    life.serve()
    for number in range(1000):  # more than any queue takes
        name = f"n{number % 2}"
        table.hold(name, os.memfd_create(name), stored=True)
        table.drop(name)
    table.hold("kept", os.memfd_create("kept"), stored=True)
    deaf.close()
    os.unlink(path)
    manager = Manager(path)
    try:
        until(lambda: heard(life, manager))
    finally:
        life.told.stopping()
        manager.close()


def heard(life: Life, manager: Manager) -> bool:
    life.told.changed()
    return manager.names() == ["kept"] and manager.states() == ["READY"]


# The store


def test_only_what_asks_for_it_is_stored(manager: Manager, table: FdTable) -> None:
    ServiceManager(table)
    table.hold("instance/lock", os.memfd_create("lock"))
    table.obtain("child/x/pidfd", lambda: os.pidfd_open(os.getpid()))
    port = table.obtain("api/tcp/::1:54321", lambda: os.memfd_create("port"), stored=True)
    manager.wait_for("api/tcp/%3A%3A1%3A54321")
    assert os.path.sameopenfile(port, manager.store[0][1])
    assert manager.all("FDPOLL") == ["0"]
    table.drop("instance/lock")
    table.drop("api/tcp/::1:54321")
    manager.wait_for()
    assert manager.all("FDSTOREREMOVE") == ["1"]


def test_a_name_that_is_too_long_is_said(manager: Manager, table: FdTable, caplog: pytest.LogCaptureFixture) -> None:
    ServiceManager(table)
    table.hold("é" * 50, os.memfd_create("a"), stored=True)
    assert "too long for the store" in caplog.text
    table.hold("b", os.memfd_create("b"), stored=True)
    manager.wait_for("b")


def test_taking_it_after_a_re_exec_stores_nothing_twice(manager: Manager, table: FdTable) -> None:
    ServiceManager(table)
    number = table.hold("a", os.memfd_create("a"), stored=True)
    again = FdTable(table.snapshot())
    ServiceManager(again)
    assert again.take("a", stored=True) == number
    until(lambda: len(manager.all("FDSTORE")) == 2)
    assert manager.names() == ["a"]
    again.drop("a")
    manager.wait_for()
    table._held.clear()  # closed above


def test_after_a_crash_it_is_there_and_what_nobody_wants_leaves_the_store(
    manager: Manager, table: FdTable, caplog: pytest.LogCaptureFixture
) -> None:
    ServiceManager(table)
    for name in ("wanted", "useless"):
        os.write(table.hold(name, os.memfd_create(name), stored=True), name.encode())
    manager.wait_for("wanted", "useless")
    fresh = FdTable()
    ServiceManager(fresh)
    fresh.inherit({name: os.dup(number) for name, number in manager.store})
    number = fresh.obtain("wanted", lambda: pytest.fail("it was there"), stored=True)
    assert os.pread(number, 99, 0) == b"wanted"
    assert fresh.close_unclaimed() == ["useless"] and "name=useless" in caplog.text
    manager.wait_for("wanted")
    fresh.drop("wanted")
    manager.wait_for()


@given(st.text(min_size=1))
def test_every_name_comes_back(name: str) -> None:
    if any(0xD800 <= ord(char) < 0xE000 for char in name):
        return
    label = encode_name(name)
    assert label.isascii() and label.isprintable() and ":" not in label
    assert decode_name(label) == name


@pytest.mark.parametrize("label", ["100%", "%zz", "%2", "% 2A", "%41", "%ff%", "%+A"])
def test_a_name_that_is_not_ours_stays_as_it_is(label: str) -> None:
    assert decode_name(label) == label


def test_names_of_ours_fit() -> None:
    assert encode_name(CONSOLE) == CONSOLE and len(CONSOLE) <= LONGEST_NAME


RECEIVE = """
import json, os, sys
for name, content in (("a:b", "one"), ("a:b", "two"), (None, "three")):
    os.write(os.memfd_create("x"), content.encode())
os.dup2(3, 6)
os.environ["LISTEN_PID"] = str(os.getpid()) if sys.argv[1] == "ours" else "1"
os.environ.update(LISTEN_FDS=sys.argv[2], LISTEN_FDNAMES="a%3Ab:a%3Ab::a%3Ab", LISTEN_PIDFDID="7")
from vdsmd.servicemanager import received
found = received()
print(json.dumps({
    "found": {name: os.pread(number, 9, 0).decode() for name, number in found.items()},
    "inheritable": [number for number in found.values() if os.get_inheritable(number)],
    "left": [name for name in os.environ if name.startswith("LISTEN_")],
    "again": received(),
}))
"""


@pytest.mark.parametrize(
    ("whose", "count", "found"),
    [
        ("ours", "4", {"a:b": "one", "a:b#4": "two", "unknown": "three"}),
        ("ours", "9", {"a:b": "one", "a:b#4": "two", "unknown": "three"}),
        ("ours", "x", {}),
        ("another's", "4", {}),
    ],
)
def test_what_a_service_is_started_with_is_taken_once(whose: str, count: str, found: dict[str, str]) -> None:
    command = [sys.executable, "-c", RECEIVE, whose, count]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert json.loads(done.stdout) == {"found": found, "inheritable": [], "left": [], "again": {}}


def test_without_descriptors_there_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LISTEN_FDS", raising=False)
    assert received() == {}


def test_children_do_not_hear_of_the_service_manager(manager: Manager, table: FdTable, tmp_path: Path) -> None:
    told = os.open(tmp_path / "told", os.O_RDWR | os.O_CREAT)
    children = ChildTable(table)
    try:
        children.spawn("env", ["/usr/bin/env"], files={1: told}, on_exit=lambda _: None)
        os.waitid(os.P_PIDFD, table["child/env/pidfd"], os.WEXITED | os.WNOWAIT)
        children.ended("env")
        text = os.pread(told, 1 << 20, 0).decode()
        assert "PATH=" in text and "NOTIFY_SOCKET" not in text and "NOTIFY_SOCKET" in os.environ
    finally:
        os.close(told)


# A console outlives a crash


def test_what_a_guest_says_before_it_ends_is_logged_by_the_next_run(manager: Manager, tmp_path: Path) -> None:
    """No daemon is there when QEMU ends: without the store nobody would have the FIFO open, and what is in it would be gone."""
    stand = Stand(tmp_path, settle=True)
    try:
        fds = stand.host.fds
        ServiceManager(fds)
        before = Consoles(stand.host, limit=1 << 20, keep=1)
        before.prepare(VM)
        qemu = os.open(before.prefix(VM) + ".out", os.O_RDWR)
        os.write(qemu, b"first\n")
        manager.wait_for(CONSOLE)
        os.close(fds[CONSOLE])  # the crash
        fds._held.clear()
        os.write(qemu, b"last words\n")
        os.close(qemu)
        fds.inherit({name: os.dup(number) for name, number in manager.store})
        after = Consoles(stand.host, limit=1 << 20, keep=1)
        after.claim(VM, lives=False)
        after.start()
        log = Path(after.path(VM))
        until(lambda: log.exists() and log.read_bytes() == b"first\nlast words\n")
        manager.wait_for()  # read to its end, so it is dropped
        after.quiesce(time.monotonic() + 60)
    finally:
        stand.stop()


# The unit


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="there is no systemd here")
def test_systemd_understands_every_line_of_the_unit(tmp_path: Path) -> None:
    text = (Path(__file__).parents[2] / "packaging" / "vdsmd.service").read_text()
    unit = tmp_path / "vdsmd.service"
    # What is not installed here cannot be executed, which is not the unit's fault.
    unit.write_text(re.sub(r"^(Exec\w+)=\S+", rf"\1={sys.executable}", text, flags=re.MULTILINE))
    command = ["systemd-analyze", "verify", "--man=no", str(unit)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert "vdsmd.service" not in done.stderr, done.stderr
