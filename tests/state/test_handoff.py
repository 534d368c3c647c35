"""The hand-off document, over a real exec and against everything that is not for us."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from state import handoff
from state.directory import StateDirectory
from state.handoff import Document, HandOff, load, receive
from state.records import Record, RecordError, pack


class Count(Record):
    value: int = 0


EXECS = """
import os, sys
from state.directory import StateDirectory
from state.handoff import HandOff, receive
from state.records import Record
class Count(Record):
    value: int = 0
given = os.environ.pop("GIVEN", "").split(":")
document = receive(*given) if given[0] else None
directory = StateDirectory(sys.argv[1])
hand = HandOff(directory, document)
count = hand.record("count", Count) or Count()
path = sys.argv[1] + "/log"
log = hand.fds.obtain("log", lambda: os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND))
hand.settle()
fds = len(os.listdir("/proc/self/fd"))
env = str("GIVEN" in os.environ).encode()
os.write(log, b"generation %d count %d fds %d env %s\\n" % (hand.generation, count.value, fds, env))
if count.value < 5:
    left = hand.collect({"count": Count(value=count.value + 1)}, release="1", arguments=[])
    path = hand.store(left)
    hand.depart([sys.executable, *sys.orig_argv[1:]], {**os.environ, "GIVEN": f"{path}:{left.nonce}"})
hand.commit()
"""


def test_state_and_descriptors_cross_execs(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", EXECS, str(tmp_path)], check=True, timeout=120)
    lines = (tmp_path / "log").read_text().splitlines()
    fds = lines[0].split()[5]
    assert lines == [f"generation {n} count {n} fds {fds} env False" for n in range(6)]
    assert StateDirectory(str(tmp_path)).read(handoff.FILE) is None


def document_at(directory: StateDirectory, **changes: object) -> tuple[str, Document]:
    hand = HandOff(directory)
    document = hand.collect({"count": Count(value=3)}, release="1", arguments=["--config", "x"])
    for name, value in changes.items():
        document = type(document)(**{f: getattr(document, f) for f in document.__struct_fields__} | {name: value})
    return hand.store(document), document


@pytest.mark.parametrize("change", [{"nonce": "other"}, {"boot_id": "other"}, {"pid": 1}, {"start_time": 1}])
def test_a_document_for_somebody_else_is_refused(tmp_path: Path, change: dict[str, object]) -> None:
    path, document = document_at(StateDirectory(str(tmp_path)), **{k: v for k, v in change.items() if k != "nonce"})
    with pytest.raises(RecordError, match=f"document.{next(iter(change))}: not written for this process"):
        receive(path, str(change.get("nonce", document.nonce)))
    assert os.path.exists(path)


def test_the_right_one_is_received(tmp_path: Path) -> None:
    path, document = document_at(StateDirectory(str(tmp_path)))
    received = receive(path, document.nonce)
    assert received == document and os.path.exists(path)  # kept until the commit
    hand = HandOff(StateDirectory(str(tmp_path)), received)
    assert hand.record("count", Count) == Count(value=3)
    assert hand.generation == 1 and hand.record("nobody", Count) is None
    hand.commit()
    assert not os.path.exists(path)


@pytest.mark.parametrize("content", [b"", b"garbage", b"vdsmd 1 2 00000000\n{}"])
def test_a_foreign_document_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "handoff").write_bytes(content)
    with pytest.raises(RecordError):
        receive(str(tmp_path / "handoff"), "nonce")


def test_a_missing_document_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        receive(str(tmp_path / "handoff"), "nonce")


def test_another_format_is_refused(tmp_path: Path) -> None:
    path, _ = document_at(StateDirectory(str(tmp_path)), format=99)
    with pytest.raises(RecordError, match=r"document\.format: 99"):
        load(path)


def test_a_field_of_the_wrong_type_is_named(tmp_path: Path) -> None:
    (tmp_path / "handoff").write_bytes(pack({"format": 1, "nonce": 5}))
    with pytest.raises(RecordError, match=r"`document\.nonce`"):
        load(str(tmp_path / "handoff"))


def test_a_failed_exec_changes_nothing(tmp_path: Path) -> None:
    hand = HandOff(StateDirectory(str(tmp_path)))
    number = hand.fds.hold("a", os.memfd_create("a"))
    with pytest.raises(FileNotFoundError):
        hand.depart(["/no/such/python"], os.environ)
    assert not os.get_inheritable(number)
    hand.fds.drop("a")


def test_a_full_disk_raises_and_keeps_nothing(tmp_path: Path) -> None:
    os.symlink("/dev/full", tmp_path / "handoff.new")
    hand = HandOff(StateDirectory(str(tmp_path)))
    with pytest.raises(OSError, match="No space left"):
        hand.store(hand.collect({}, release="1", arguments=[]))
    assert not (tmp_path / "handoff").exists()
