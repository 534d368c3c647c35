"""`vdsmctl vm create`: options that people can type become the parameters of the wire."""

from __future__ import annotations

import argparse
import io
import json
import re
from pathlib import Path
from typing import Any

import pytest

from vdsmd.ctl import create
from vdsmd.ctl.context import Problem
from vdsmd.ctl.machines import WHOLE_ID
from vdsmd.ctl.target import Unusable


def parameters(*words: str) -> dict[str, Any]:
    parser = argparse.ArgumentParser()
    create.add_options(parser)
    return create.parameters(parser.parse_args(words))


def test_the_least(monkeypatch: pytest.MonkeyPatch) -> None:
    params = parameters()
    assert WHOLE_ID.fullmatch(params.pop("vmId"))
    assert params == {"memSize": 1024, "devices": []}
    assert parameters()["vmId"] != parameters()["vmId"]
    assert all(re.match(r".{14}4.{4}[89ab]", parameters()["vmId"]) for _ in range(20)), (
        "not a random UUID (RFC 4122, 4.4)"
    )


def test_a_direct_boot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    params = parameters(
        "--name", "a", "--kernel", "vmlinuz", "--initrd", "/i", "--append", "console=ttyS0 quiet", "--paused"
    )
    assert params["kernel"] == f"{tmp_path}/vmlinuz"
    assert (params["initrd"], params["kernelArgs"], params["launchPaused"]) == ("/i", "console=ttyS0 quiet", True)
    assert params["vmName"] == "a"


@pytest.mark.parametrize(
    ("text", "mebibytes"), [("512", 512), ("64M", 64), ("2G", 2048), ("1TiB", 1048576), ("3gb", 3072)]
)
def test_memory(text: str, mebibytes: int) -> None:
    assert parameters("--memory", text)["memSize"] == mebibytes


@pytest.mark.parametrize("text", ["0", "-5", "lots", "1.5G", "2X"])
def test_memory_that_is_none(text: str) -> None:
    with pytest.raises(Unusable, match="expected a size"):
        parameters(f"--memory={text}")


def test_devices() -> None:
    devices = parameters(
        "--disk", "/a", "--disk", "/b,format=qcow2,bus=scsi,readonly", "--cdrom", "/c", "--bridge", "br0"
    )["devices"]
    assert [device.get("path", device.get("network")) for device in devices] == ["/a", "/b", "/c", "br0"]
    assert devices[1] == {
        "type": "disk",
        "device": "disk",
        "iface": "scsi",
        "path": "/b",
        "format": "qcow2",
        "readonly": "true",
    }
    assert devices[2]["device"] == "cdrom"
    graphics, video = parameters("--display", "vnc")["devices"]
    assert (graphics["device"], video["type"]) == ("vnc", "video")


def test_a_disk_that_is_none() -> None:
    with pytest.raises(Unusable, match="'colour=red' is none of format"):
        parameters("--disk", "/a,colour=red")


def test_parameters_from_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "params"
    text = json.dumps({"vmId": "an id", "memSize": 64, "smp": 4, "display": "vnc"})
    path.write_text(text)
    assert parameters("--params", str(path)) == json.loads(text)
    assert parameters("--params", str(path), "--memory", "128", "--set", "smp=2", "--set", "boot=n") == {
        **json.loads(text),
        "memSize": 128,
        "smp": 2,
        "boot": "n",
    }
    monkeypatch.setattr("sys.stdin", io.StringIO(text))
    assert parameters("--params", "-", "--disk", "/a")["devices"][0]["path"] == "/a"


@pytest.mark.parametrize("text", ["[]", "{", ""])
def test_a_file_that_cannot_be_used(text: str, tmp_path: Path) -> None:
    path = tmp_path / "params"
    path.write_text(text)
    with pytest.raises(Problem, match=f"--params {path}: "):
        parameters("--params", str(path))
    with pytest.raises(Problem, match="No such file"):
        parameters("--params", "/nowhere/at/all")


def test_a_setting_that_is_none() -> None:
    with pytest.raises(Unusable, match="expected KEY=VALUE"):
        parameters("--set", "boot")
