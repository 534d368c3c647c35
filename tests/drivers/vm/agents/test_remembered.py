"""What guests have told is known again right after a crash, and costs little while nothing crashes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from drivers.errors import NotResponding
from drivers.vm.agents import remembered
from drivers.vm.agents.remembered import GuestRecord, Remembered
from drivers.vm.agents.told import Kept, Nic, Report, Told, lasting
from drivers.vm.machine import Machine
from state.process import boot_id
from state.records import encode, pack
from tests.drivers.vm.agents.inside import Inside, Place, line
from tests.drivers.vm.conftest import OTHER, VM
from tests.until import until

pytestmark = pytest.mark.slow

Start = Callable[..., Place]


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remembered, "INTERVAL", 0.05)


def written(place: Place, vm_id: str = VM) -> bytes:
    path = Path(place.host.checkpoints.path) / "guests" / vm_id
    return path.read_bytes() if path.exists() else b""


def say(place: Place, inside: Inside) -> None:
    inside.say(line("host-name", name="x") + line("applications", applications=["a-1"]))
    inside.say(line("heartbeat", **{"free-ram": 32, "memory-stat": {"mem_free": "1"}}))
    place.says(VM, guestName="x", appsList=["a-1"], memUsage="50")
    until(lambda: b"a-1" in written(place), 60, "it to be written down")


def test_after_a_crash_it_is_known_before_the_guest_is_reached(start: Start, place: Place, inside: Inside) -> None:
    say(place, inside)
    place.stop()
    after = start(begin=False)
    seen = after.stats(VM)
    assert (seen["guestName"], seen["appsList"]) == ("x", ["a-1"])
    # What was true of a moment is not, and nobody is known to listen.
    assert (seen["memoryStats"], seen["memUsage"]) == ({}, "0")
    inside.hang_up()
    after.inside(after.driver.start)
    inside.accept()
    inside.hears("refresh")
    assert after.stats(VM)["guestName"] == "x"
    with pytest.raises(NotResponding):
        after.inside(lambda: after.driver.agents.tell(VM, "lock-screen"))


def test_a_re_exec_right_after_a_crash_hands_it_on(start: Start, place: Place, inside: Inside) -> None:
    say(place, inside)
    place.stop()
    after = start(begin=False)
    last = start(begin=False, **after.hand_over())
    assert last.stats(VM)["guestName"] == "x"


def test_what_was_not_written_before_an_exec_is_written_after_it(
    start: Start, place: Place, inside: Inside, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remembered, "INTERVAL", 3600.0)
    second = start(**place.hand_over())
    inside.say(line("host-name", name="x"))
    second.says(VM, guestName="x")
    monkeypatch.setattr(remembered, "INTERVAL", 0.05)
    third = start(**second.hand_over())
    until(lambda: b"guestName" in written(third), 60, "it to be written down")


def test_of_a_guest_that_ended_nothing_is_left(start: Start, place: Place, inside: Inside) -> None:
    say(place, inside)
    place.destroy(VM)
    until(lambda: not written(place), 60, "it to be forgotten")


def test_nothing_is_left_of_a_guest_that_ended_during_an_exec(start: Start, place: Place, inside: Inside) -> None:
    say(place, inside)
    handed = place.hand_over()
    handed["left"].machines.clear()
    after = start(**handed)
    until(lambda: not written(after), 60, "it to be forgotten")


@pytest.mark.parametrize("wrong", ["run", "boot", "id", "bytes", "kept"])
def test_what_is_of_another_run_or_damaged_is_not_believed(start: Start, wrong: str, base: Path) -> None:
    place = start()
    place.run(VM)
    created = place.inside(lambda: place.driver._machines.get(VM).created)
    place.stop()
    right: dict[str, Any] = {"run": created, "boot": boot_id(), "kept": '{"report":{"told":{"guestName":"x"}}}'}
    record = GuestRecord(**{**right, wrong: 1.0 if wrong == "run" else "{"} if wrong in right else right)
    data = pack(encode(record))
    path = base / "run" / "checkpoints" / "guests" / (OTHER if wrong == "id" else VM)
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data[:-5] if wrong == "bytes" else data)
    after = start()
    assert "guestName" not in after.stats(VM)
    assert not path.exists()


def test_what_is_right_is_believed(start: Start, base: Path) -> None:
    """The same file without anything wrong: the test above is about what is wrong."""
    place = start()
    place.run(VM)
    created = place.inside(lambda: place.driver._machines.get(VM).created)
    place.stop()
    (base / "run" / "checkpoints" / "guests").mkdir(exist_ok=True)
    kept = '{"report":{"told":{"guestName":"x"}}}'
    record = GuestRecord(run=created, boot=boot_id(), kept=kept)
    (base / "run" / "checkpoints" / "guests" / VM).write_bytes(pack(encode(record)))
    assert start().stats(VM)["guestName"] == "x"


# How much is written


@pytest.fixture
def memory() -> tuple[Remembered, list[str]]:
    """Give one, and the list of what it has written, by the ids of machines."""
    works: list[str] = []
    files: Any = SimpleNamespace(write=lambda name, data: works.append(name), names=list)
    host: Any = SimpleNamespace(
        submit=lambda work, done=None, key=None: work(), checkpoints=SimpleNamespace(below=lambda name: files)
    )
    return Remembered(host), works


def guest(kept: Kept) -> Any:
    kept.unwritten = True
    return SimpleNamespace(machine=Machine(vm_id=VM, conf={}), kept=kept)


def test_only_what_is_new_is_written(memory: tuple[Remembered, list[str]]) -> None:
    one = guest(Kept())
    memory[0].write([one])
    memory[0].write([one])
    assert memory[1] == [VM] and not one.kept.unwritten


def test_of_much_only_the_names_are_written(
    memory: tuple[Remembered, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    texts: list[str] = []
    monkeypatch.setattr(remembered, "encode", lambda record: texts.append(record.kept))
    told = Told(guest_name="x", apps_list=["\u1234" * 200] * 1000, net_ifaces=[Nic()] * 100)
    memory[0].write([guest(Kept(report=Report(told=told), survey=told))])
    assert len(texts[0]) < 1000 and texts[0].count('"guestName":"x"') == 2


def test_a_full_disk_is_said_and_hurts_nobody(caplog: pytest.LogCaptureFixture) -> None:
    def full(name: str, data: bytes) -> None:
        raise OSError(28, "No space left on device")

    files = SimpleNamespace(write=full)
    host: Any = SimpleNamespace(submit=lambda work, key: work(), checkpoints=SimpleNamespace(below=lambda name: files))
    Remembered(host).write([guest(Kept())])
    assert "No space left" in caplog.text


def test_what_lasts_is_a_copy() -> None:
    kept = Kept(report=Report(told=Told(guest_name="x", memory_stats={"a": "1"}), heard=5.0, heartbeat=5.0, api=3))
    copy = lasting(kept)
    assert copy == Kept(report=Report(told=Told(guest_name="x")))
    kept.report.told.guest_name = "y"
    assert copy.report.told.guest_name == "x"
