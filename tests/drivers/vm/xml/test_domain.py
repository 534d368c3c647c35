"""What a configuration becomes in libvirt's XML, and that the real libvirt takes it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import libvirt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lxml import etree

from drivers.errors import DriverError, Invalid, NotFound, Unsupported
from drivers.vm.conf.params import normalise
from drivers.vm.xml import domain as domxml
from drivers.vm.xml import running
from tests.drivers.vm.machines import CASES, QXL, SPICE, VNC, Case, disk, nic
from tests.drivers.vm.values import parameters

ROOT = Path(__file__).parents[4]
HOST = {"host_uuid": "the-host", "os_name": "Test OS", "os_version": "12", "release": "1.2"}

by_name = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


def build(params: dict[str, Any], virt_type: str = "qemu", **site: Any) -> str:
    site = {"channels_dir": "/run/c", "console": "/run/console", **HOST, **site}
    return domxml.domain_xml(normalise(params), virt_type=virt_type, **site)


def tree(params: dict[str, Any], virt_type: str = "qemu", **site: Any) -> etree._Element:
    return etree.fromstring(build(params, virt_type, **site))


def of(case: Case, virt_type: str = "qemu") -> str:
    return build(case.whole, virt_type, **case.site)


@by_name
def test_domain_says_what_was_asked_for(case: Case) -> None:
    domain = etree.fromstring(of(case))
    assert {path: domain.xpath(path) for path in case.facts} == case.facts
    assert domain.findtext("uuid") == case.vm_id


@by_name
def test_mock_libvirt_takes_it(case: Case) -> None:
    # The mock is shared by all connections to its default host in a process: the domains are taken back.
    connection = libvirt.open("test:///default")
    try:
        domain = connection.defineXML(of(case, "test"))
        try:
            assert domain.UUIDString() == case.vm_id
            assert running.is_ours(domain.XMLDesc())
        finally:
            domain.undefine()
    finally:
        connection.close()


@pytest.fixture(scope="module")
def verdicts() -> Iterator[dict[str, str]]:
    """What an embedded libvirt says of each case: empty when it takes it. In a process of its own, which does not
    outlive the question: libvirt's event loop and the parenthood of its probes are facts of a whole process."""
    root = tempfile.mkdtemp(prefix="vdsmd-libvirt-", dir="/tmp")  # a short path: there are sockets below it
    try:
        questions = json.dumps({case.name: [of(case), not case.host] for case in CASES})
        command = [sys.executable, "-m", "tests.drivers.vm.embedded", root]
        ran = subprocess.run(
            command, input=questions, cwd=ROOT, capture_output=True, text=True, timeout=280, check=False
        )
        assert ran.returncode == 0, ran.stderr
        yield json.loads(ran.stdout)
    finally:
        shutil.rmtree(root)


@by_name
def test_qemu_driver_of_libvirt_takes_it(case: Case, verdicts: dict[str, str]) -> None:
    if "spice graphics" in verdicts[case.name] or "video model 'qxl'" in verdicts[case.name]:
        pytest.skip(verdicts[case.name])  # distributions have SPICE in a package of its own
    assert verdicts[case.name] == ""


@settings(deadline=None, derandomize=True, database=None)
@given(parameters(), st.sampled_from(["kvm", "qemu", "test"]), st.booleans())
def test_any_configuration_makes_a_domain_or_an_error(params: dict[str, Any], virt_type: str, tls: bool) -> None:
    try:
        domain = tree(params, virt_type, spice_tls=tls)
    except DriverError as error:
        assert str(error)
    else:
        names = [target.get("dev") for target in domain.iterfind("devices/disk/target")]
        assert len(names) == len(set(names))


def test_what_came_past_normalise_is_refused_too() -> None:
    conf = {**normalise(CASES[0].whole), "vmName": "a\x00b"}
    with pytest.raises(Invalid, match="name"):
        domxml.domain_xml(conf, virt_type="qemu", channels_dir="/run/c")


PROCESSORS: list[tuple[dict[str, Any], dict[str, object]]] = [
    ({}, {"string(//cpu/model)": "qemu64", "string(//cpu/@match)": "exact"}),
    (
        {"cpuType": "Westmere,+aes,-vmx"},
        {
            "string(//cpu/model)": "Westmere",
            "string(//feature[@policy='require']/@name)": "aes",
            "string(//feature[@policy='disable']/@name)": "vmx",
        },
    ),
    ({"cpuType": "hostPassthrough"}, {"string(//cpu/@mode)": "host-passthrough", "count(//cpu/model)": 0}),
    ({"cpuType": "hostModel"}, {"string(//cpu/@mode)": "host-model", "count(//cpu/model)": 0}),
    (
        {"hypervEnable": "true"},
        {
            "string(//hyperv/relaxed/@state)": "on",
            "string(//timer[@name='rtc']/@track)": "guest",
            "string(//timer[@name='hypervclock']/@present)": "yes",
        },
    ),
]


@pytest.mark.parametrize(("params", "facts"), PROCESSORS)
def test_models_and_hyperv_are_for_kvm(params: dict[str, Any], facts: dict[str, object]) -> None:
    domain = tree({**CASES[0].whole, **params}, "kvm")
    assert {path: domain.xpath(path) for path in facts} == facts


def test_no_console_no_serial_port() -> None:
    console = {"type": "console", "device": "console", "specParams": {"consoleType": "serial"}}
    domain = tree({**CASES[0].whole, "devices": [console]}, console=None)
    assert domain.xpath("count(//serial)") == 0
    assert domain.xpath("string(//console/target/@type)") == "serial"


def test_domains_of_others_are_not_ours() -> None:
    assert not running.is_ours("<domain><metadata><vm xmlns='urn:other'/></metadata></domain>")


RUNNING = """
<domain><devices>
  <disk><target dev='vdb'/><alias name='virtio-disk1'/><address type='pci' slot='0x07'/></disk>
  <disk><target dev='vda'/><alias name='virtio-disk0'/><address type='pci' slot='0x06'/></disk>
  <controller type='usb'><alias name='usb'/></controller>
  <controller type='scsi'><alias name='scsi0'/><address type='pci' slot='0x05'/></controller>
  <interface><mac address='00:1a:4a:16:01:52'/><target dev='vnet1'/><alias name='net1'/></interface>
  <interface><mac address='00:1a:4a:16:01:51'/><target dev='vnet0'/><alias name='net0'/></interface>
  <interface><mac address='52:54:00:00:00:01'/><target dev='vnet2'/><alias name='net2'/></interface>
  <console><target type='serial'/><alias name='serial0'/></console>
  <console><target type='virtio'/><alias name='console1'/></console>
  <graphics type='vnc' port='5901'/>
  <graphics type='spice' port='5902' tlsPort='5903'/>
  <video><alias name='video0'/></video>
  <memballoon><alias name='balloon0'/></memballoon>
</devices></domain>
"""


def test_running_domain_is_read_back() -> None:
    given_devices = [
        *(disk("/a", index=0), disk("/b", index=1), {"type": "controller", "device": "scsi"}),
        *(nic("00:1A:4A:16:01:51"), nic("00:1a:4a:16:01:52"), nic("")),
        *(SPICE, VNC, QXL, QXL, {"type": "balloon"}, {"type": "console", "specParams": {"consoleType": "virtio"}}),
    ]
    conf = normalise({**CASES[0].whole, "devices": given_devices})
    before = json.dumps(conf)
    read = running.read_back(RUNNING, conf)
    aliases = [device.get("alias") for device in read["devices"]]
    disks, nics = ["virtio-disk0", "virtio-disk1"], ["net0", "net1", "net2"]
    assert aliases == [*disks, "scsi0", *nics, None, None, "video0", None, "balloon0", "console1"]
    assert read["devices"][0]["address"] == {"type": "pci", "slot": "0x06"}
    assert [nic["name"] for nic in read["devices"][3:6]] == ["vnet0", "vnet1", "vnet2"]
    assert read["devices"][5]["macAddr"] == "52:54:00:00:00:01"
    assert (read["displayPort"], read["displaySecurePort"]) == (5902, 5903)
    assert (read["devices"][7]["port"], read["devices"][7]["tlsPort"]) == (5901, -1)
    assert json.dumps(conf) == before
    assert running.read_back(RUNNING, read) == read


ADDED = """
<domain><devices>
  <controller type='usb' index='0' model='piix3-uhci'><alias name='usb'/>
    <address type='pci' domain='0x0000' bus='0x00' slot='0x01' function='0x2'/></controller>
  <controller type='pci' index='1' model='pci-bridge'><alias name='pci.1'/><address type='pci' slot='0x09'/></controller>
  <controller type='scsi' index='1' model='virtio-scsi'><alias name='scsi1'/><address type='pci' slot='0x08'/></controller>
  <controller type='scsi' index='0' model='virtio-scsi'><alias name='scsi0'/><address type='pci' slot='0x05'/></controller>
  <controller type='fdc' index='0'><alias name='fdc0'/></controller>
  <channel type='unix'><target type='virtio' name='a'/><alias name='channel0'/>
    <address type='virtio-serial' controller='0' bus='0' port='1'/></channel>
  <channel type='unix'><target type='virtio' name='b'/><alias name='channel1'/>
    <address type='virtio-serial' controller='0' bus='0' port='2'/></channel>
  <hostdev mode='subsystem' type='pci'><source><address domain='0x0000' bus='0x05' slot='0x00' function='0x1'/></source>
    <alias name='hostdev0'/><address type='pci' slot='0x0a'/></hostdev>
  <hostdev mode='subsystem' type='usb'><source><address bus='1' device='7'/></source><alias name='hostdev1'/></hostdev>
  <hostdev mode='subsystem' type='scsi'><source><adapter name='scsi_host4'/><address bus='0' target='1' unit='2'/></source>
    <alias name='hostdev2'/></hostdev>
  <hostdev mode='subsystem' type='scsi'><source><adapter name='scsi_host3'/><address bus='0' target='1' unit='2'/></source>
    <alias name='hostdev3'/></hostdev>
  <graphics type='vnc' port='5901'><listen type='network' address='192.0.2.7' network='vdsm-display'/></graphics>
</devices></domain>
"""


def test_what_libvirt_has_added_is_told_and_kept() -> None:
    channel = {"type": "channel", "device": "unix", "alias": "channel7"}
    (hosts,) = (case for case in CASES if case.name == "host devices")
    hostdevs = [device for device in hosts.params["devices"] if device["type"] == "hostdev"]
    scsi = {"type": "controller", "device": "scsi", "index": "0"}
    conf = normalise({**CASES[0].whole, "devices": [scsi, channel, *hostdevs, VNC]})
    read = running.read_back(ADDED, conf)
    told = {device["alias"]: device for device in read["devices"] if device.get("alias")}
    assert {alias for alias, device in told.items() if device["type"] == "hostdev"} == {
        *("hostdev0", "hostdev1", "hostdev3"),
    }
    assert list(told) == ["scsi0", "channel0", "hostdev0", "hostdev1", "hostdev3", "usb", "scsi1", "channel1"]
    assert told["usb"] == {
        "type": "controller",
        "device": "usb",
        "index": "0",
        "model": "piix3-uhci",
        "alias": "usb",
        "address": {"type": "pci", "domain": "0x0000", "bus": "0x00", "slot": "0x01", "function": "0x2"},
    }
    assert told["channel1"]["address"]["port"] == "2"
    assert read["displayIp"] == "192.0.2.7"
    assert running.read_back(ADDED, read) == read
    domain = tree({**CASES[0].whole, "devices": [told["usb"], told["scsi1"], told["channel1"]]})
    assert domain.xpath("string(//controller[@type='usb']/address/@function)") == "0x2"
    assert domain.xpath("string(//controller[@type='scsi']/@model)") == "virtio-scsi"


def test_a_display_for_a_network_of_which_nobody_knows_is_refused() -> None:
    with pytest.raises(NotFound, match="display's network: display"):
        tree({**CASES[0].whole, "display": "vnc", "displayNetwork": "display"}, address_on=lambda network: "")


def test_secrets_are_refused_where_nobody_keeps_them() -> None:
    (case,) = (case for case in CASES if case.name == "network disk")
    with pytest.raises(Unsupported, match="secret of disk vda"):
        tree(case.whole, secrets=False)
    (disk_alone,) = case.params["devices"]
    assert tree({**case.whole, "devices": [{**disk_alone, "auth": {}}]}, secrets=False).xpath("count(//auth)") == 0


@by_name
def test_what_the_mock_made_is_read_back(case: Case) -> None:
    conf = normalise(case.whole)
    read = running.read_back(of(case, "test"), conf)
    assert [device["type"] for device in read["devices"]] == [device["type"] for device in conf["devices"]]
    assert normalise(read)["devices"] == read["devices"]


def ticket(display: str, seconds: int, **more: Any) -> etree._Element:
    xml = (
        f"<domain><devices><graphics type='{display}' port='1' passwdValidTo='2001-01-01T00:00:00'/></devices></domain>"
    )
    return etree.fromstring(running.graphics_with_ticket(xml, "twelve chars", seconds, "keep", now=86400.0, **more))


def attributes(element: etree._Element) -> dict[str, str]:
    return {str(name): str(value) for name, value in element.items()}


def test_ticket_for_spice() -> None:
    assert attributes(ticket("spice", 120)) == {
        "type": "spice",
        "port": "1",
        "passwd": "twelve chars",
        "passwdValidTo": "1970-01-02T00:02:00",
        "connected": "keep",
    }


def test_ticket_for_vnc_is_as_long_as_vnc_allows() -> None:
    assert attributes(ticket("vnc", 0)) == {
        "type": "vnc",
        "port": "1",
        "passwd": "twelve c",
        "passwdValidTo": "2001-01-01T00:00:00",
    }


def test_ticket_that_lasts_for_ever_ends_some_day() -> None:
    assert ticket("spice", 2**62).get("passwdValidTo") == "2038-01-20T03:14:08"


def test_ticket_needs_a_display_and_a_known_action() -> None:
    with pytest.raises(Unsupported, match="display"):
        running.graphics_with_ticket("<domain/>", "x", 1, "keep", now=0.0)
    with pytest.raises(Unsupported, match="spice"):
        ticket("vnc", 1, kind="spice")
    with pytest.raises(Invalid, match="existingConnAction"):
        running.graphics_with_ticket(RUNNING, "x", 1, "ask", now=0.0)
    with pytest.raises(Invalid):
        running.graphics_with_ticket(RUNNING, "\x01", 1, "keep", now=0.0)
