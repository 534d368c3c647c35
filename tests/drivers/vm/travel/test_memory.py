"""Saved memories: what a handle names, what is whole, and what a configuration from a storage domain may hold."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest

from drivers.errors import DriverError, Failed, Invalid
from drivers.vm.changes.images import Paths
from drivers.vm.errors import ImageUnavailable
from drivers.vm.travel.memory import Places, is_whole, places_of, read_params, write_params
from drivers.vm.travel.restoring import remembered

VM = "11111111-1111-4111-8111-111111111111"


class Domains(Paths):
    """A storage driver: every volume is a file of its name in a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def prepare(self, drive: dict[str, Any]) -> str:
        if "volumeID" not in drive:
            return super().prepare(drive)
        assert (drive["domainID"], drive["poolID"]) == ("domain", "pool")
        return str(self._folder / drive["volumeID"])


class Hostile:
    def __reduce__(self) -> tuple[Any, ...]:
        return print, ("this must not be called",)


def test_a_handle_is_a_path_or_six_ids(tmp_path: Path) -> None:
    assert places_of(Paths(), "/a/memory") == Places("/a/memory")
    named = places_of(Domains(tmp_path), "domain,pool,i1,memory,i2,params")
    assert named == Places(f"{tmp_path}/memory", f"{tmp_path}/params")
    with pytest.raises(ImageUnavailable):
        places_of(Paths(), "domain,pool,i1,memory,i2,params")


@pytest.mark.parametrize("handle", ["", "a", "a,b,c,d,e", "a,b,c,d,e,", "a,b,c,d,e,f,g", "relative/path"])
def test_nothing_else_is(handle: str) -> None:
    with pytest.raises(Invalid):
        places_of(Paths(), handle)


def test_a_memory_is_whole_when_it_says_so(tmp_path: Path) -> None:
    for name, data, whole in (
        ("a", b"LibvirtQemudSave...", True),
        ("b", b"LibvirtQemudPart...", False),
        ("c", b"", False),
    ):
        (tmp_path / name).write_bytes(data)
        assert is_whole(str(tmp_path / name)) is whole
    with pytest.raises(Failed):
        is_whole(str(tmp_path / "missing"))


def test_a_configuration_comes_back_from_a_larger_volume(tmp_path: Path) -> None:
    volume = tmp_path / "params"
    volume.write_bytes(bytes(65536))
    conf = {"vmId": VM, "memSize": 64, "devices": [{"type": "disk", "path": "/ä"}], "custom": {}}
    write_params(str(volume), conf)
    assert read_params(str(volume)) == conf and volume.stat().st_size == 65536
    handle = "domain,pool,i1,memory,i2,params"
    params = {"vmId": VM, "memSize": 1, "hiberVolHandle": handle, "other": "said"}
    assert remembered(Domains(tmp_path), params) == {**conf, "other": "said", "hiberVolHandle": handle}
    with pytest.raises(Invalid):
        remembered(Domains(tmp_path), {**params, "vmId": VM.replace("1", "2")})
    assert remembered(Paths(), {"vmId": VM}) == {"vmId": VM}


@pytest.mark.parametrize(
    "data", [b"", bytes(512), b"nonsense", pickle.dumps([1]), pickle.dumps(Hostile()), pickle.dumps({"a": Hostile()})]
)
def test_what_is_no_configuration_is_refused(tmp_path: Path, data: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    volume = tmp_path / "params"
    volume.write_bytes(data)
    with pytest.raises(DriverError):
        read_params(str(volume))
    assert not capsys.readouterr().out
