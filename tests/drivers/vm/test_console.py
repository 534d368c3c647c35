"""Every byte that a guest writes is in its log, once and in order, whatever happens to us in between."""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from drivers.base import Host
from drivers.errors import Busy
from drivers.vm import console
from drivers.vm.console import Consoles, Log
from state.fds import FdTable
from tests.drivers.vm.conftest import VM
from tests.drivers.vm.stand import Stand
from tests.until import until

OUTPUT = b"".join(b"line %d of what the guest says\r\n" % number for number in range(40_000))
"""More than a FIFO holds."""


class Desk:
    """Consoles in a place of their own, and guests that write to them."""

    def __init__(self, stand: Stand, limit: int = 1 << 30, keep: int = 2) -> None:
        self.stand = stand
        self.limit = limit
        self.keep = keep
        self.held = stand.host.fds
        self.consoles = Consoles(stand.host, limit=limit, keep=keep)

    @property
    def host(self) -> Host:
        return self.stand.host

    def guest(self) -> Guest:
        return Guest(self.consoles.prefix(VM))

    def logged(self) -> bytes:
        """Return all that is logged, rotated files first."""
        path = Path(self.consoles.path(VM))
        files = [*(Path(f"{path}.{n}") for n in range(self.keep, 0, -1)), path]
        return b"".join(file.read_bytes() for file in files if file.exists())

    def again(self) -> None:
        """Be a new run that knows the FIFOs by their paths alone, as after a SIGKILL."""
        self.consoles.quiesce(time.monotonic() + 60)
        for name in self.held.names("vm/"):
            self.held.drop(name)
        self.consoles = Consoles(self.host, limit=self.limit, keep=self.keep)

    def close(self) -> None:
        self.consoles.quiesce(time.monotonic() + 60)


class Guest:
    """Writes to a console as QEMU does: both ends of the FIFO opened for reading and writing, and waits while it is full."""

    def __init__(self, prefix: str) -> None:
        self.fds = [os.open(prefix + end, os.O_RDWR) for end in (".in", ".out")]

    def say(self, data: bytes) -> None:
        while data:
            data = data[os.write(self.fds[1], data) :]

    def say_in_thread(self, data: bytes, *, then_end: bool = False) -> threading.Thread:
        def talk() -> None:
            dice = random.Random(1)
            left = data
            while left:
                count = dice.randrange(1, 5000)
                self.say(left[:count])
                left = left[count:]
            if then_end:
                self.end()

        thread = threading.Thread(target=talk)
        thread.start()
        return thread

    def end(self) -> None:
        for fd in self.fds:
            os.close(fd)


@pytest.fixture
def open_desk(stand: Stand) -> Iterator[Callable[..., Desk]]:
    desks: list[Desk] = []

    def start(**how: Any) -> Desk:
        desks.append(Desk(stand, **how))
        return desks[-1]

    yield start
    for desk in desks:
        desk.close()


@pytest.fixture
def desk(open_desk: Callable[..., Desk]) -> Desk:
    return open_desk()


def test_all_is_logged_and_the_end_is_noticed(desk: Desk) -> None:
    desk.consoles.prepare(VM)
    desk.consoles.start()
    guest = desk.guest()
    writer = guest.say_in_thread(OUTPUT, then_end=True)
    until(lambda: f"vm/{VM}/console" not in desk.held, 60)
    writer.join()
    assert desk.logged() == OUTPUT


def test_before_qemu_opens_it_a_console_is_not_at_its_end(desk: Desk) -> None:
    desk.consoles.start()
    desk.consoles.prepare(VM)
    guest = desk.guest()
    guest.say(b"first")
    until(lambda: desk.logged() == b"first")
    guest.end()


def test_rotation_cuts_at_the_byte(open_desk: Callable[..., Desk]) -> None:
    desk = open_desk(limit=100_000, keep=20)
    desk.consoles.prepare(VM)
    desk.consoles.start()
    guest = desk.guest()
    guest.say_in_thread(OUTPUT, then_end=True).join()
    until(lambda: f"vm/{VM}/console" not in desk.held, 60)
    assert desk.logged() == OUTPUT
    path = Path(desk.consoles.path(VM))
    old = [path.parent / f"{path.name}.{n}" for n in range(1, 1 + len(OUTPUT) // 100_000)]
    assert [file.stat().st_size for file in old] == [100_000] * len(old)


def test_only_so_many_old_logs_are_kept(open_desk: Callable[..., Desk]) -> None:
    desk = open_desk(limit=100_000, keep=2)
    desk.consoles.prepare(VM)
    desk.consoles.start()
    desk.guest().say_in_thread(OUTPUT, then_end=True).join()
    until(lambda: f"vm/{VM}/console" not in desk.held, 60)
    path = Path(desk.consoles.path(VM))
    assert sorted(file.name for file in path.parent.iterdir()) == [path.name, f"{path.name}.1", f"{path.name}.2"]
    assert OUTPUT.endswith(desk.logged())


@pytest.mark.parametrize("keeps_descriptor", [True, False])
def test_nothing_is_lost_or_doubled_over_many_runs(desk: Desk, keeps_descriptor: bool) -> None:
    def stop() -> None:
        if keeps_descriptor:
            desk.consoles.quiesce(time.monotonic() + 60)
        else:
            desk.again()
            desk.consoles.claim(VM, lives=True)

    desk.consoles.prepare(VM)
    guest = desk.guest()
    share = len(OUTPUT) // 8
    for begin in range(0, len(OUTPUT), share):
        writer = guest.say_in_thread(OUTPUT[begin : begin + share])
        desk.consoles.start()
        until(lambda done=begin: len(desk.logged()) > done, 60)  # type: ignore[misc]
        stop()
        desk.consoles.start()
        writer.join()
        stop()
    desk.consoles.start()
    until(lambda: len(desk.logged()) >= len(OUTPUT), 60)
    assert desk.logged() == OUTPUT
    guest.end()


def test_while_nobody_reads_the_guest_waits(desk: Desk) -> None:
    desk.consoles.prepare(VM)
    guest = desk.guest()
    writer = guest.say_in_thread(OUTPUT)
    until(lambda: pending(desk.held[f"vm/{VM}/console"]) >= 1 << 16)
    desk.consoles.start()
    writer.join()
    guest.end()
    until(lambda: f"vm/{VM}/console" not in desk.held, 60)
    assert desk.logged() == OUTPUT


def pending(fd: int) -> int:
    import array
    import fcntl
    import termios

    size = array.array("i", [0])
    fcntl.ioctl(fd, termios.FIONREAD, size)
    return size[0]


@pytest.mark.parametrize("lives", [True, False])
def test_an_inherited_descriptor_is_taken(desk: Desk, stand: Stand, lives: bool) -> None:
    desk.consoles.prepare(VM)
    guest = desk.guest()
    guest.say(b"before the exec, ")
    guest.end()
    inherited = FdTable(stand.host.fds.snapshot())
    kept = {name: getattr(stand.host, name) for name in stand.host.__struct_fields__}
    successor = Consoles(Host(**{**kept, "fds": inherited}), limit=1 << 20, keep=1)
    os.unlink(desk.consoles.prefix(VM) + ".out")  # the descriptor is all there is
    successor.claim(VM, lives=lives)
    successor.start()
    until(lambda: f"vm/{VM}/console" not in inherited, 60)
    successor.quiesce(time.monotonic() + 60)
    assert desk.logged() == b"before the exec, "
    # The number is closed already: only forget it.
    stand.host.fds._held.clear()


def test_a_fifo_that_is_gone_cannot_be_claimed(desk: Desk) -> None:
    desk.consoles.claim(VM, lives=True)
    assert desk.held.names("vm/") == []


def test_for_a_guest_that_has_ended_nothing_is_opened_anew(desk: Desk) -> None:
    desk.consoles.prepare(VM)
    desk.again()
    desk.consoles.claim(VM, lives=False)
    assert desk.held.names("vm/") == []


def test_claiming_twice_is_claiming_once(desk: Desk) -> None:
    desk.consoles.prepare(VM)
    desk.consoles.claim(VM, lives=True)
    assert desk.held.names("vm/") == [f"vm/{VM}/console"]


def test_a_console_that_cannot_be_opened_costs_nothing_else(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    path = Path(desk.consoles.prefix(VM) + ".out")
    path.parent.mkdir(parents=True)
    path.symlink_to(path)
    desk.consoles.claim(VM, lives=True)
    assert desk.held.names("vm/") == []
    assert f"vm={VM}" in caplog.text


def test_what_is_removed_is_read_to_the_end_first(desk: Desk) -> None:
    desk.consoles.prepare(VM)
    guest = desk.guest()
    guest.say(b"last words")
    guest.end()
    desk.consoles.remove(VM)
    assert desk.logged() == b"last words"
    assert os.listdir(Path(desk.consoles.prefix(VM)).parent) == []
    assert desk.held.names("vm/") == []
    desk.consoles.remove(VM)


def test_the_next_machine_with_the_id_goes_on_in_the_same_log(desk: Desk) -> None:
    for word in (b"one, ", b"two"):
        desk.consoles.prepare(VM)
        guest = desk.guest()
        guest.say(word)
        guest.end()
    desk.consoles.remove(VM)
    assert desk.logged() == b"one, two"


def test_without_splice_it_is_copied(desk: Desk, tmp_path: Path) -> None:
    source, sink = os.pipe()
    os.set_blocking(source, False)
    log = Log(str(tmp_path / "copied.log"), limit=1000, keep=9)
    log._can_splice = False
    os.write(sink, OUTPUT[:5000])
    while log.move(source) > 0:
        pass
    os.close(sink)
    assert log.move(source) == 0
    log.close()
    os.close(source)
    files = [tmp_path / f"copied.log.{n}" for n in range(9, 0, -1)] + [tmp_path / "copied.log"]
    assert b"".join(file.read_bytes() for file in files if file.exists()) == OUTPUT[:5000]


@pytest.mark.parametrize("can_splice", [True, False])
def test_a_full_disk_does_not_stop_the_guest(
    tmp_path: Path, can_splice: bool, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "full.log"
    path.symlink_to("/dev/full")
    source, sink = os.pipe()
    os.set_blocking(source, False)
    log = Log(str(path), limit=1 << 20, keep=1)
    log._can_splice = can_splice
    for _ in range(3):
        os.write(sink, b"x" * 1000)
        while log.move(source) > 0:
            pass
    assert log.lost == 3000
    log.close()
    path.unlink()
    os.write(sink, b"there is room again")
    while log.move(source) > 0:
        pass
    log.close()
    os.close(sink)
    os.close(source)
    assert path.read_bytes() == b"there is room again"
    assert log.lost == 0
    told = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert len(told) == 2
    assert "bytes=3000" in told[1]


def test_a_disk_that_does_not_answer_is_named(desk: Desk) -> None:
    desk.consoles.prepare(VM)
    desk.consoles.start()
    guest = desk.guest()
    with desk.consoles._lock:  # what the thread waits for while the disk does not answer
        guest.say(b"x")
        with pytest.raises(Busy, match=f"thread {console.THREAD}"):
            desk.consoles.quiesce(time.monotonic() + 0.1)
    desk.consoles.quiesce(time.monotonic() + 60)
    guest.end()
