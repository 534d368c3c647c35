"""From a caller's parameters to a configuration: what is filled in, what is translated, what is refused and how."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from drivers.errors import DriverError, Invalid, MissingParameter, Unsupported
from drivers.vm.conf.params import Defaults, UselessParameter, machine_of, normalise
from tests.drivers.vm.machines import CASES, SPICE, disk, nic
from tests.drivers.vm.values import parameters, values

VM = "0B6A2E5C-3F0B-4B0E-9E57-0F5A8D7C1E11"
BARE: dict[str, Any] = {"vmId": VM, "memSize": "512"}
UNSAID = {
    "format": "raw",
    "shared": "false",
    "propagateErrors": "off",
    "optional": "false",
    "truesize": "0",
    "apparentsize": "0",
}
"""What callers read of every disk."""


def devices(kind: str, **params: Any) -> list[dict[str, Any]]:
    return [device for device in normalise({**BARE, **params})["devices"] if device["type"] == kind]


def test_defaults_are_filled_in() -> None:
    conf = normalise(BARE)
    assert conf == {
        "vmId": VM.lower(),
        "vmName": VM.lower(),
        "memSize": 512,
        "memGuaranteedSize": 0,
        "vmType": "kvm",
        "kvmEnable": "true",
        "acpiEnable": "true",
        "transparentHugePages": "false",
        "smp": 1,
        "nice": 0,
        "timeOffset": "0",
        "emulatedMachine": "pc",
        "nicModel": "rtl8139,pv",
        "clientIp": "",
        "custom": {},
        "pid": 0,
        "display": "",
        "displayIp": "0",
        "displayPort": -1,
        "displaySecurePort": -1,
        "devices": [
            {
                "type": "disk",
                "device": "cdrom",
                "path": "",
                "readonly": "true",
                "iface": "ide",
                "index": 2,
                "name": "hdc",
                **UNSAID,
            }
        ],
    }


def test_what_the_caller_said_stays_as_it_was() -> None:
    said = {
        "smp": "2",
        "acpiEnable": "False",
        "timeOffset": "-3600",
        "unknown": {"a": [1, "2", 1.5, True]},
        "nice": "0",
    }
    params = {**BARE, **said, "devices": [disk(mystery={"x": "y"}, readonly=True)]}
    before = json.dumps(params)
    conf = normalise(params)
    assert {key: conf[key] for key in said} == said
    told = {**disk(mystery={"x": "y"}, readonly=True), "index": 0, "name": "vda"}
    assert conf["devices"][0] == {**UNSAID, **told}
    assert json.dumps(params) == before


def test_empty_text_is_as_good_as_absent() -> None:
    conf = normalise({**BARE, "vmName": "", "smp": "", "kernel": "", "devices": [disk(bootOrder="", address="")]})
    assert conf["smp"] == 1
    assert conf["vmName"] == VM.lower()


def test_an_old_configuration_makes_a_new_machine() -> None:
    old = normalise(
        {**BARE, "display": "qxl", "drives": [{"path": "/a"}, {"path": "/b"}], "macAddr": "00:1a:4a:16:01:51"}
    )
    told = {**old, "pid": 77, "status": "Up", "displayPort": 5900, "exitCode": 1, "exitMessage": "x", "exitReason": 1}
    assert normalise(told) == old


def test_large_integers_become_text() -> None:
    assert normalise({**BARE, "truesize": 2**40})["truesize"] == str(2**40)


def test_host_configuration_gives_defaults() -> None:
    defaults = Defaults(nic_model="e1000", bridge="br7")
    conf = normalise({**BARE, "macAddr": "00:1a:4a:16:01:51"}, defaults)
    assert conf["devices"][-1] == {
        "type": "interface",
        "device": "bridge",
        "macAddr": "00:1a:4a:16:01:51",
        "nicModel": "e1000",
        "network": "br7",
    }


def test_a_nic_without_a_model_gets_the_first_one() -> None:
    (found,) = devices("interface", nicModel="virtio,e1000", devices=[nic(nicModel="")])
    assert found["nicModel"] == "virtio"


def test_shorter_lists_of_nics_repeat_their_last() -> None:
    found = devices(
        "interface", macAddr="00:1a:4a:16:01:51, 00:1a:4a:16:01:52,00:1a:4a:16:01:53", nicModel="pv,e1000", bridge="a,b"
    )
    assert [(nic["nicModel"], nic["network"]) for nic in found] == [("pv", "a"), ("e1000", "b"), ("e1000", "b")]


def test_listed_devices_win_for_their_kind_only() -> None:
    params = {"display": "vnc", "cdrom": "/c.iso", "hda": "/a", "soundDevice": "ac97", "devices": [disk(), SPICE]}
    conf = normalise({**BARE, **params})
    assert [(device["type"], device["device"]) for device in conf["devices"]] == [
        ("disk", "disk"),
        ("graphics", "spice"),
        ("video", "cirrus"),
        ("sound", "ac97"),
    ]


def test_video_follows_listed_graphics() -> None:
    assert [video["device"] for video in devices("video", devices=[SPICE])] == ["qxl"]
    assert normalise({**BARE, "devices": [SPICE]})["display"] == "qxl"


def test_disk_names_never_clash() -> None:
    wishes = [None, 1, 0, 1, None, 700, 5000]
    found = devices(
        "disk", devices=[disk(f"/{n}", **({} if wish is None else {"index": wish})) for n, wish in enumerate(wishes)]
    )
    assert [device["name"] for device in found] == ["vdd", "vdb", "vda", "vdc", "vde", "vdzy", "vdzz"]


def test_buses_that_share_a_prefix_share_names() -> None:
    found = devices("disk", devices=[disk("/a", iface="scsi"), disk("/b", iface="sata"), disk("/c", iface="ide")])
    assert [device["name"] for device in found] == ["sda", "sdb", "hda"]


REFUSED: dict[str, tuple[dict[str, Any], type[DriverError], str]] = {
    "no id": ({"vmId": ""}, MissingParameter, "vmId"),
    "no memory": ({"memSize": ""}, MissingParameter, "memSize"),
    "memory 0": ({"memSize": 0}, UselessParameter, "memSize"),
    "memory '0'": ({"memSize": "0"}, UselessParameter, "memSize"),
    "memory of words": ({"memSize": "lots"}, Invalid, "memSize"),
    "memory beyond all bounds": ({"memSize": "9" * 5000}, Invalid, "memSize"),
    "id that is none": ({"vmId": "the-vm"}, UselessParameter, "vmId"),
    "id that is a number": ({"vmId": 5}, UselessParameter, "vmId"),
    "name with a slash": ({"vmName": "../x"}, Invalid, "vmName"),
    "another type": ({"vmType": "xen"}, Invalid, "vmType"),
    "smp": ({"smp": "two"}, Invalid, "smp"),
    "half a socket": ({"smp": 3, "smpCoresPerSocket": 2}, Invalid, "smp"),
    "boot from what": ({"boot": "z"}, Invalid, "boot"),
    "boot without a disk": ({"boot": "c"}, MissingParameter, "hda"),
    "display": ({"display": "crt"}, Invalid, "display"),
    "devices": ({"devices": {"type": "disk"}}, Invalid, "devices"),
    "device": ({"devices": ["disk"]}, Invalid, "devices[0]"),
    "kindless": ({"devices": [SPICE, {"device": "disk"}]}, MissingParameter, "devices[1].type"),
    "unknown kind": ({"devices": [{"type": "lease"}]}, Unsupported, "devices[0].type"),
    "host device of no name": ({"devices": [{"type": "hostdev"}]}, Invalid, "devices[0]"),
    "host device of another kind": (
        {"devices": [{"type": "hostdev", "device": "net_eth0_00_1a_4a_16_01_51"}]},
        Invalid,
        "devices[0].device",
    ),
    "hub of the host": ({"devices": [{"type": "hostdev", "device": "usb_usb1"}]}, Invalid, "devices[0].device"),
    "order of a host device": (
        {"devices": [disk(bootOrder=1), {"type": "hostdev", "device": "usb_1_2", "bootOrder": "1"}]},
        Invalid,
        "devices",
    ),
    "kind of a kind": ({"devices": [{"type": ["disk"]}]}, Unsupported, "devices[0].type"),
    "disk without path": ({"devices": [disk("")]}, MissingParameter, "devices[0].path"),
    "GUID out of bounds": ({"devices": [disk("", GUID="../../etc")]}, Invalid, "devices[0].GUID"),
    "payload": (
        {"devices": [{"type": "disk", "device": "cdrom", "specParams": {"vmPayload": {"file": {"a": "b"}}}}]},
        Invalid,
        "devices[0].specParams.vmPayload.file.a",
    ),
    "mirror": ({"devices": [nic(device="user", portMirroring=["ovirtmgmt"])]}, Unsupported, "devices[0].portMirroring"),
    "format": ({"devices": [disk(format="vmdk")]}, Invalid, "devices[0].format"),
    "tune": (
        {"devices": [disk(specParams={"ioTune": {"read_iops_sec": "-1"}})]},
        Invalid,
        "devices[0].specParams.ioTune.read_iops_sec",
    ),
    "five on ide": ({"devices": [disk(f"/{n}", iface="ide") for n in range(5)]}, Invalid, "devices"),
    "same order": ({"devices": [disk(bootOrder=1), nic(bootOrder="1")]}, Invalid, "devices"),
    "mac": ({"devices": [nic("00:00")]}, Invalid, "devices[0].macAddr"),
    "legacy mac": ({"macAddr": "00:1a:4a:16:01:51,x"}, Invalid, "devices[2].macAddr"),
    "more bridges than nics": ({"macAddr": "00:1a:4a:16:01:51", "bridge": "a,b"}, Invalid, "bridge"),
    "sysprep": ({"sysprepInf": ["x"]}, Invalid, "sysprepInf"),
    "binary": ({"x": {"y": [b"z"]}}, Invalid, "x.y[0]"),
    "nil": ({"x": None}, Invalid, "x"),
    "no number": ({"x": float("nan")}, Invalid, "x"),
    "characters": ({"vmName": "a\x00b"}, Invalid, "vmName"),
    "surrogate": ({"x": "\ud800"}, Invalid, "x"),
}


@pytest.mark.parametrize(("params", "error", "path"), REFUSED.values(), ids=REFUSED)
def test_refusals_name_the_parameter(params: dict[str, Any], error: type[DriverError], path: str) -> None:
    with pytest.raises(error) as refused:
        normalise({**BARE, **params})
    assert type(refused.value) is error
    assert path in (refused.value.fields.get("what"), refused.value.fields.get("name"))
    assert path in str(refused.value)


def test_nesting_has_an_end() -> None:
    deep: Any = []
    for _ in range(50_000):
        deep = [deep]
    with pytest.raises(Invalid, match="nested too deeply"):
        normalise({**BARE, "x": deep})


def test_kernel_needs_no_disk_to_boot_from() -> None:
    assert machine_of(normalise({**BARE, "boot": "c", "kernel": "/vmlinuz"})).boot == "c"


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_configuration_is_its_own_configuration(case: Any) -> None:
    conf = normalise(case.whole)
    assert normalise(conf) == conf
    assert json.loads(json.dumps(conf)) == conf


@settings(deadline=None, derandomize=True, database=None)
@given(st.one_of(parameters(), st.dictionaries(st.text(max_size=5), values())))
@example({"vmId": VM, "memSize": "1e3", "memGuaranteedSize": "1e1"})
@example({"vmId": VM, "memSize": "1e999"})
def test_any_parameters_make_a_configuration_or_an_error(params: dict[str, Any]) -> None:
    try:
        conf = normalise(params)
    except DriverError as error:
        assert str(error)
    else:
        assert normalise(conf) == conf
