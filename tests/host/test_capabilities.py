"""What a host can do and has, read from hosts laid out as files and from the one we run on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from drivers.errors import HardwareUnknown
from drivers.vm.contract import Virt
from tests.host.hosts import Layout, server
from vdsmd.api.xmlrpc import decode_reply, encode_reply
from vdsmd.host import hardware
from vdsmd.host.capabilities import capabilities
from vdsmd.host.facts import Settings, Shown
from vdsmd.host.files import Files, cpu_list
from vdsmd.host.links import Addresses, current_addresses, describe, kinds, last_client, our_end

ADDRESSES = {"br0": Addresses(v4=["192.0.2.5/24", "192.0.2.6/32"], v6=["2001:db8::5/64"])}

# Clients of the wire read them by these types, and by nothing else.
TEXTS = (
    "cpuCores cpuThreads cpuSockets cpuSpeed memSize reservedMem guestOverhead kvmEnabled liveSnapshot liveMerge uuid"
)


def whole(files: Files, virt: Virt = Virt()) -> dict[str, Any]:  # noqa: B008 (it is frozen)
    return capabilities(files, Settings(), virt, ADDRESSES, hardware.firmware(files))


def test_processors_and_memory(tmp_path: Path) -> None:
    info = whole(server(tmp_path).files, Virt(models=["Haswell"]))
    assert (info["cpuThreads"], info["cpuCores"], info["cpuSockets"]) == ("8", "4", "2")
    assert info["onlineCpus"] == "0,1,2,3,4,5,6,7"
    assert info["cpuFlags"] == "fpu,sse2,vmx,model_Haswell"
    assert (info["cpuModel"], info["cpuSpeed"]) == ("Model of a test", "2500.000")
    assert (info["memSize"], info["reservedMem"], info["guestOverhead"]) == ("8192", "321", "65")


def test_threads_may_count_as_cores(tmp_path: Path) -> None:
    files = server(tmp_path).files
    told = capabilities(files, Settings(threads_as_cores=True), Virt(), ADDRESSES, {})
    assert (told["cpuThreads"], told["cpuCores"], told["cpuSockets"]) == ("8", "8", "2")


def test_a_host_may_claim_to_have_kvm(tmp_path: Path) -> None:
    told = capabilities(server(tmp_path).files, Settings(fake_kvm=True), Virt(), ADDRESSES, {})
    assert told["kvmEnabled"] == "true"
    assert {"vmx", "nx", "sse2", "model_Haswell"} <= set(told["cpuFlags"].split(","))


def test_memory_nodes(tmp_path: Path) -> None:
    info = whole(server(tmp_path).files)
    assert info["numaNodes"]["1"] == {"cpus": [4, 5, 6, 7], "totalMemory": "4096"}
    assert info["numaNodeDistance"] == {"0": [10, 20], "1": [20, 10]}
    assert info["autoNumaBalancing"] == 1


def test_devices_by_kind(tmp_path: Path) -> None:
    info = whole(server(tmp_path).files)
    assert set(info["nics"]) == {"ens1", "ens2"}
    assert info["nics"]["ens1"]["speed"] == 1000
    assert info["bondings"]["bond0"]["slaves"] == ["ens1", "ens2"]
    assert info["bondings"]["bond0"]["opts"] == {"mode": "1", "miimon": "100"}
    assert (info["vlans"]["bond0.7"]["iface"], info["vlans"]["bond0.7"]["vlanid"]) == ("bond0", 7)
    assert info["bridges"]["br0"]["ports"] == ["bond0.7", "vnet0"]
    assert info["bridges"]["br0"]["stp"] == "off"


def test_addresses_and_gateway(tmp_path: Path) -> None:
    bridge = whole(server(tmp_path).files)["bridges"]["br0"]
    assert (bridge["addr"], bridge["netmask"], bridge["gateway"]) == ("192.0.2.5", "255.255.255.0", "192.0.2.1")
    assert bridge["ipv4addrs"] == ["192.0.2.5/24", "192.0.2.6/32"]
    assert bridge["ipv6addrs"] == ["2001:db8::5/64"]
    assert bridge["mtu"] == "1500"


def test_the_operator_hides_devices(tmp_path: Path) -> None:
    shown = Shown(hidden_nics=("ens*",), hidden_bonds=("bond*",), hidden_vlans=("*.7",))
    assert kinds(server(tmp_path).files, shown) == {"br0": "bridges", "wlan0": "nics"}


def test_only_what_works_is_claimed(tmp_path: Path) -> None:
    info = whole(server(tmp_path).files)
    assert (info["kvmEnabled"], info["liveMerge"], info["emulatedMachines"]) == ("false", "false", [])
    virt = Virt(kvm=True, machines=["pc", "q35"], versions={"libvirt": "9.0.0-4", "qemu-kvm": "7.2.0"})
    info = whole(server(tmp_path).files, virt)
    assert (info["kvmEnabled"], info["emulatedMachines"]) == ("true", ["pc", "q35"])
    assert info["packages2"]["libvirt"] == {"version": "9.0.0", "release": "4", "buildtime": "0"}


def test_devices_are_handed_to_guests_only_behind_an_iommu(tmp_path: Path) -> None:
    host = server(tmp_path)
    assert whole(host.files)["hostdevPassthrough"] == "false"
    host.make("/sys/kernel/iommu_groups/0")
    assert whole(host.files)["hostdevPassthrough"] == "true"


def test_storage_adapters(tmp_path: Path) -> None:
    host = server(tmp_path)
    assert whole(host.files)["HBAInventory"] == {"iSCSI": [], "FC": []}
    host.write("/etc/iscsi/initiatorname.iscsi", "# ours\nInitiatorName=iqn.1993-08.org.example:01:a\n")
    host.write("/sys/class/fc_host/host3/port_name", "0x500143802426baf4\n")
    host.write("/sys/class/fc_host/host3/node_name", "0x500143802426baf5\n")
    info = whole(host.files)
    assert info["ISCSIInitiatorName"] == "iqn.1993-08.org.example:01:a"
    assert info["HBAInventory"]["iSCSI"] == [{"InitiatorName": "iqn.1993-08.org.example:01:a"}]
    assert info["HBAInventory"]["FC"] == [{"wwpn": "500143802426baf4", "wwnn": "500143802426baf5", "model": ""}]


def test_sources_of_randomness(tmp_path: Path) -> None:
    host = server(tmp_path)
    for path in ("/dev/random", "/dev/hwrng"):
        host.write(path, "")
    assert whole(host.files)["rngSources"] == ["random"]
    host.write("/sys/class/misc/hw_random/rng_current", "virtio_rng.0\n")
    assert whole(host.files)["rngSources"] == ["random", "hwrng"]


@pytest.mark.parametrize("root", ["/", "empty"])
def test_any_host_has_an_answer_that_can_be_sent(root: str, tmp_path: Path) -> None:
    files = Files(root if root == "/" else str(tmp_path))
    info = capabilities(files, Settings(), Virt(), current_addresses(), hardware.firmware(files))
    assert decode_reply(encode_reply(info)) == info
    assert all(isinstance(info[key], str) for key in TEXTS.split())


def test_the_addresses_of_this_host() -> None:
    found = current_addresses()["lo"]
    assert found.v4[0].endswith("/8")
    devices = describe(Files(), Shown(hidden_nics=()), {"lo": found})
    assert set(devices) == {"nics", "bondings", "vlans", "bridges"}


@pytest.mark.parametrize(
    ("client", "address", "ours", "device"),
    [
        ("192.0.2.77:40000", "192.0.2.77", "192.0.2.5", "br0"),
        ("2001:db8::77:40000", "2001:db8::77", "2001:db8::5", "br0"),
        ("::ffff:192.0.2.77:40000", "192.0.2.77", "192.0.2.6", "br0"),
        ("198.51.100.1:40000", "198.51.100.1", "192.0.2.5", "br0"),  # from behind a router
        ("198.51.100.1:40000", "198.51.100.1", "198.51.100.2", ""),
        ("198.51.100.1:40000", "198.51.100.1", "", ""),
        ("", "", "192.0.2.5", ""),
    ],
)
def test_who_called_last(client: str, address: str, ours: str, device: str) -> None:
    found = last_client(ADDRESSES, client, our_end=lambda _: ours)
    assert found == {"lastClient": address, "lastClientIface": device}


def test_our_end_of_a_way() -> None:
    assert our_end("127.0.0.1") == "127.0.0.1"
    assert our_end("255.255.255.255") == ""  # what nobody can call from


def test_a_list_of_processors() -> None:
    assert cpu_list("0-2,5,7-8") == [0, 1, 2, 5, 7, 8]
    assert cpu_list("") == cpu_list("nonsense") == []


# Identity and hardware

BURNT_IN = "4c4c4544-0051-3410-8058-b3c04f4e3732"
WRITTEN = "11111111-2222-3333-4444-555555555555"
MACHINE = "b4de2fa9c3b84c9a8f6a2d8a0d3a8a7e"


def test_the_operators_host_id_comes_first(tmp_path: Path) -> None:
    host = Layout(tmp_path)
    assert hardware.host_id(host.files, hardware.firmware(host.files)) == ""
    host.write("/etc/machine-id", f"{MACHINE}\n")
    derived = hardware.host_id(host.files, hardware.firmware(host.files))
    assert derived not in ("", MACHINE)
    host.write("/sys/class/dmi/id/product_uuid", f"{BURNT_IN.upper()}\n")
    assert hardware.host_id(host.files, hardware.firmware(host.files)) == BURNT_IN
    host.write("/etc/vdsm/vdsm.id", f"{WRITTEN}\n")
    assert hardware.host_id(host.files, hardware.firmware(host.files)) == WRITTEN


@pytest.mark.parametrize(
    "told", ["03000200-0400-0500-0006-000700080009", "FFFFFFFF-FFFF-FFFF-FFFF-FFFFFFFFFFFF", "Not Set"]
)
def test_a_uuid_that_every_board_has_is_not_believed(told: str, tmp_path: Path) -> None:
    host = Layout(tmp_path)
    host.write("/sys/class/dmi/id/product_uuid", told)
    assert hardware.host_id(host.files, hardware.firmware(host.files)) == ""


def test_hardware_answers_what_there_is(tmp_path: Path) -> None:
    host = Layout(tmp_path)
    host.write("/sys/class/dmi/id/sys_vendor", "A Vendor\n")
    host.write("/sys/class/dmi/id/product_name", "A Model\n")
    host.write("/sys/class/dmi/id/product_serial", "To be filled by O.E.M.\n")
    assert hardware.information(host.files, hardware.firmware(host.files)) == {
        "systemManufacturer": "A Vendor",
        "systemProductName": "A Model",
    }


def test_hardware_that_tells_nothing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(HardwareUnknown, match="no firmware tables"):
        hardware.information(Layout(tmp_path).files, {})


@pytest.mark.parametrize(
    ("told", "name", "version"),
    [
        ('ID=debian\nVERSION_ID="12"\nVERSION_CODENAME=bookworm\n', "Debian", "12"),
        ('ID="rocky"\nID_LIKE="rhel centos fedora"\nVERSION_ID="9.4"\n', "RHEL", "9.4"),
        ("ID=plan9\n", "unknown", ""),
        ("", "unknown", ""),
    ],
)
def test_operating_systems(told: str, name: str, version: str, tmp_path: Path) -> None:
    host = Layout(tmp_path)
    host.write("/etc/os-release", told)
    found = hardware.operating_system(host.files)
    assert (found["name"], found["version"]) == (name, version)
