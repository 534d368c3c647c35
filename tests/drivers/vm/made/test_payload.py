"""Media made of files: what can be asked for, that a guest will find it, and that nothing of it stays."""

from __future__ import annotations

import base64
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from drivers.errors import DriverError, Failed, Invalid, Unsupported
from drivers.vm.conf.params import normalise
from drivers.vm.made import payload
from tests.drivers.vm.conftest import OTHER, VM

FILES = {
    "user-data": b"#cloud-config\n",
    "openstack/latest/meta_data.json": b'{"uuid": "x"}',
    "empty": b"",
    "\xdc": b"u",
}


def said(files: dict[str, Any] | None = None, **more: str) -> dict[str, Any]:
    given = FILES if files is None else files
    return {"file": {name: base64.b64encode(content).decode() for name, content in given.items()}, **more}


def device(kind: str, payload: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"type": "disk", "device": kind, "specParams": {"vmPayload": payload}, **more}


def devices(*given: dict[str, Any], **params: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = normalise({"vmId": VM, "memSize": 64, "devices": list(given), **params})["devices"]
    return found


def on_cd(path: str, name: str, into: Path) -> bytes:
    argv = ["xorriso", "-osirrox", "on", "-indev", path, "-extract", name, str(into)]
    subprocess.run(argv, check=True, capture_output=True)
    return into.read_bytes()


def on_floppy(path: str, name: str) -> bytes:
    argv = ["mtools", "-c", "mtype", "-i", path, f"::{name}"]
    return subprocess.run(argv, check=True, capture_output=True, env={**os.environ, "LC_ALL": "C.UTF-8"}).stdout


def test_a_guest_finds_the_files_on_its_cd(tmp_path: Path) -> None:
    path = payload.make(f"{tmp_path}/payload", VM, device("cdrom", said(volId="config-2"), name="hdc"))
    assert os.stat(path).st_mode & 0o777 == 0o600
    for number, (name, content) in enumerate(FILES.items()):
        assert on_cd(path, name, tmp_path / str(number)) == content
    listed = subprocess.run(["xorriso", "-indev", path, "-toc"], capture_output=True, text=True, check=True)
    assert re.search(r"'config-2'", listed.stdout + listed.stderr)


def test_a_guest_finds_the_files_on_its_floppy(tmp_path: Path) -> None:
    path = payload.make(f"{tmp_path}/payload", VM, device("floppy", said(volId="answers"), name="fda"))
    assert os.path.getsize(path) == 1440 << 10
    assert {name: on_floppy(path, name) for name in FILES} == FILES


def test_the_same_files_are_the_same_medium_and_are_removed_with_their_machine(tmp_path: Path) -> None:
    folder = str(tmp_path / "payload")
    floppy = device("floppy", said(), name="fda")
    paths = {payload.make(folder, VM, floppy) for _ in range(2)}
    assert payload.path_of(folder, VM, {**floppy, "name": "fdb"}) not in paths
    assert payload.path_of(folder, VM, {**floppy, "device": "cdrom"}) not in paths
    other = payload.make(folder, OTHER, floppy)
    (tmp_path / "payload" / f"{VM}.half").mkdir()
    assert payload.made(folder, VM) != list(paths) and len(paths) == 1
    payload.remove(folder, VM)
    assert [f"{folder}/{name}" for name in os.listdir(folder)] == [other]
    payload.remove(folder, VM)


def test_what_cannot_be_made_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(payload, "FLOPPY_KIB", 3)  # no such floppy
    with pytest.raises(Failed, match="making a medium with mtools"):
        payload.make(str(tmp_path), VM, device("floppy", said(), name="fda"))
    assert os.listdir(tmp_path) == []
    blocked = tmp_path / "file"
    blocked.touch()
    with pytest.raises((Failed, OSError)):
        payload.make(f"{blocked}/payload", VM, device("floppy", said(), name="fda"))


@pytest.mark.parametrize("kind", ["cdrom", "floppy"])
def test_without_a_program_it_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Unsupported, match="installed"):
        payload.make(str(tmp_path), VM, device(kind, said(), name="hdc"))
    assert os.listdir(tmp_path) == []


WRONG: dict[str, tuple[str, Any]] = {
    "no files": ("cdrom", {"volId": "x"}),
    "empty": ("cdrom", {"file": {}}),
    "no struct": ("cdrom", {"file": "a"}),
    "up": ("cdrom", said({"../a": b""})),
    "absolute": ("cdrom", said({"/etc/passwd": b""})),
    "double slash": ("cdrom", said({"a//b": b""})),
    "dot": ("cdrom", said({"a/./b": b""})),
    "no name": ("cdrom", said({"": b""})),
    "deep": ("cdrom", said({"/".join("abcdefghi"): b""})),
    "long": ("cdrom", said({"a" * 65: b""})),
    "newline": ("cdrom", said({"a\nb": b""})),
    "many": ("cdrom", said({str(number): b"" for number in range(257)})),
    "twice": ("floppy", said({"a": b"", "A": b""})),
    "file and folder": ("cdrom", said({"a": b"", "a/b": b""})),
    "FAT": ("floppy", said({"a:b": b""})),
    "large": ("floppy", said({"a": b"x" * (payload.MOST + 1)})),
    "no base64": ("cdrom", {"file": {"a": "x"}}),
    "number": ("cdrom", {"file": {"a": 5}}),
    "label": ("cdrom", said(volId="a/b")),
    "long label": ("floppy", said(volId="a" * 12)),
    "label of numbers": ("cdrom", {**said(), "volId": 5}),
}


@pytest.mark.parametrize(("kind", "wrong"), WRONG.values(), ids=WRONG)
def test_what_cannot_be_meant_is_refused_when_the_machine_is_taken_in(kind: str, wrong: dict[str, Any]) -> None:
    with pytest.raises(Invalid, match=r"devices\[0\].specParams.vmPayload"):
        devices(device(kind, wrong))


def test_a_disk_is_not_made_of_files() -> None:
    with pytest.raises(DriverError, match="CD or a floppy"):
        devices(device("disk", said(), path="/a"))


def test_a_payload_leaves_the_first_cd_drive_alone() -> None:
    drive = {"type": "disk", "device": "cdrom", "path": "/boot.iso"}
    found = devices(device("cdrom", said(), iface="ide", path="/etc/passwd"), drive)
    assert [(disk["name"], disk["path"]) for disk in found] == [("hdd", ""), ("hdc", "/boot.iso")]


def test_files_come_as_binary_too() -> None:
    (found,) = devices(device("cdrom", {"file": {"a": b"\x00\xff"}}))
    assert found["specParams"]["vmPayload"]["file"] == {"a": "AP8="}


@pytest.mark.parametrize("answers", [b"[Unattended]", "[Unattended]"])
def test_answers_to_windows_become_the_first_floppy(tmp_path: Path, answers: bytes | str) -> None:
    conf = normalise({"vmId": VM, "memSize": 64, "floppy": "/other.vfd", "sysprepInf": answers})
    first, second = (disk for disk in conf["devices"] if disk["device"] == "floppy")
    assert (first["name"], second["name"], second["path"]) == ("fda", "fdb", "/other.vfd")
    assert "sysprepInf" not in conf
    assert normalise(conf) == conf
    path = payload.make(str(tmp_path), VM, first)
    assert on_floppy(path, "sysprep.inf") == b"[Unattended]"


def test_no_answers_are_no_floppy() -> None:
    assert not any(disk["device"] == "floppy" for disk in devices(sysprepInf=""))
