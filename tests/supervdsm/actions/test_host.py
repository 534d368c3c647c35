"""The host's own switches and facts: on the real kernel where it lets us, else on files like the kernel's."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from supervdsm.errors import ActionError, Failed, Invalid, NotFound, Unsupported
from supervdsm.registry import Context
from tests.supervdsm.actions.place import call, inside, read_only


def files(where: Context, folder: str, **values: object) -> Path:
    """Make files as the kernel shows them in sysfs."""
    place = Path(where.sysfs, folder)
    place.mkdir(parents=True, exist_ok=True)
    for name, value in values.items():
        (place / name).write_text(f"{value}\n")
    return place


def values(place: Path) -> dict[str, str]:
    return {path.name: path.read_text().strip() for path in place.iterdir() if path.is_file()}


def _ksm(where: Context) -> Path:
    return files(where, "kernel/mm/ksm", run=0, pages_to_scan=100, sleep_millisecs=20, merge_across_nodes=1)


def test_ksm_is_tuned(where: Context) -> None:
    place = _ksm(where)
    told = call(where, "ksm.tune", run=1, pages_to_scan=64, merge_across_nodes=0)
    assert told == {"run": 1, "pages_to_scan": 64, "sleep_millisecs": 20, "merge_across_nodes": 0}
    assert values(place) == {name: str(value) for name, value in told.items()}
    assert call(where, "ksm.tune") == told


@pytest.mark.parametrize(
    "wrong",
    [
        {"run": 3},
        {"run": -1},
        {"pages_to_scan": 0},
        {"sleep_millisecs": 1 << 40},
        {"run": True},
        {"run": "1"},
        {"x": 1},
    ],
)
def test_what_ksm_cannot_be_is_refused(where: Context, wrong: dict[str, object]) -> None:
    place = _ksm(where)
    before = values(place)
    with pytest.raises(Invalid):
        call(where, "ksm.tune", **{"merge_across_nodes": 0, **wrong})
    assert values(place) == before


def test_what_the_kernel_refuses_puts_the_rest_back(where: Context) -> None:
    def deed() -> None:
        place = _ksm(where)
        before = values(place)
        read_only(place / "run")
        with pytest.raises(Unsupported, match="run = 1"):
            call(where, "ksm.tune", run=1, pages_to_scan=64)
        assert values(place) == before

    inside(deed)


def test_a_kernel_without_ksm_says_so(where: Context) -> None:
    with pytest.raises(Unsupported):
        call(where, "ksm.tune", run=1)


def test_the_real_ksm_takes_what_it_has(where: Context) -> None:
    real = Path("/sys/kernel/mm/ksm/pages_to_scan")
    if not os.access(real, os.W_OK):
        pytest.skip("this kernel has no KSM")
    now = int(real.read_text())
    assert call(where._replace(sysfs="/sys"), "ksm.tune", pages_to_scan=now)["pages_to_scan"] == now


def test_huge_pages_come_and_go(where: Context) -> None:
    place = files(where, "kernel/mm/hugepages/hugepages-2048kB", nr_hugepages=3, free_hugepages=3)
    node = files(where, "devices/system/node/node0/hugepages/hugepages-2048kB", nr_hugepages=1, free_hugepages=0)
    assert call(where, "hugepages.reserve", count=2) == 5
    assert call(where, "hugepages.reserve", count=1, node=0) == 2
    assert values(place)["nr_hugepages"] == "5"
    assert call(where, "hugepages.release", count=4) == 2  # three were free
    assert call(where, "hugepages.release", count=1, node=0) == 2  # none was
    assert values(node)["nr_hugepages"] == "2"


def test_huge_pages_that_cannot_be_are_refused(where: Context) -> None:
    place = files(where, "kernel/mm/hugepages/hugepages-2048kB", nr_hugepages=3, free_hugepages=3)
    before = values(place)
    for wrong in ({"count": 0}, {"count": -1}, {"count": 1 << 40}, {"count": 1, "size": 0}, {"count": 1, "node": -1}):
        with pytest.raises(Invalid):
            call(where, "hugepages.reserve", **wrong)
    for absent in ({"size": 4096}, {"node": 7}):
        with pytest.raises(Unsupported):
            call(where, "hugepages.reserve", count=1, **absent)
    with pytest.raises(Failed, match="available"):
        call(where, "hugepages.reserve", count=1 << 20)
    assert values(place) == before


def test_the_real_kernel_gives_one_and_takes_it_back(where: Context) -> None:
    real = where._replace(sysfs="/sys")
    try:
        now = call(real, "hugepages.reserve", count=1)
    except ActionError as error:
        pytest.skip(f"this kernel gives none: {error}")
    assert now >= 1
    assert call(real, "hugepages.release", count=1) >= 0


def test_hardware_facts_are_what_the_firmware_tells(where: Context) -> None:
    assert call(where, "hardware.facts") == {}
    files(where, "class/dmi/id", sys_vendor="Maker", product_name=" Box ", product_serial="", product_uuid="abc")
    assert call(where, "hardware.facts") == {
        "systemManufacturer": "Maker",
        "systemProductName": "Box",
        "systemUUID": "abc",
    }


def test_virtual_functions_are_set(where: Context) -> None:
    place = files(where, "bus/pci/devices/0000:05:00.1", sriov_totalvfs=8, sriov_numvfs=2)
    assert call(where, "hostdev.set_numvfs", device="pci_0000_05_00_1", count=4) == 4
    assert values(place)["sriov_numvfs"] == "4"
    assert call(where, "hostdev.set_numvfs", device="0000:05:00.1", count=0) == 0
    assert call(where, "hostdev.set_numvfs", device="0000:05:00.1", count=0) == 0
    assert values(place)["sriov_numvfs"] == "0"


@pytest.mark.parametrize(
    ("device", "count", "error"),
    [
        ("../../../../etc", 1, Invalid),
        ("pci_0000_05_00_1/..", 1, Invalid),
        ("net_eth0", 1, Invalid),
        ("pci_0000_06_00_1", 1, NotFound),
        ("pci_0000_05_00_1", 9, Unsupported),
        ("pci_0000_05_00_1", -1, Unsupported),
        ("pci_0000_07_00_0", 1, Unsupported),
    ],
)
def test_other_devices_and_counts_are_refused(
    where: Context, device: str, count: int, error: type[ActionError]
) -> None:
    place = files(where, "bus/pci/devices/0000:05:00.1", sriov_totalvfs=8, sriov_numvfs=2)
    files(where, "bus/pci/devices/0000:07:00.0", vendor=1)
    with pytest.raises(error):
        call(where, "hostdev.set_numvfs", device=device, count=count)
    assert values(place)["sriov_numvfs"] == "2"


def test_virtual_functions_that_the_kernel_refuses_stay(where: Context) -> None:
    def deed() -> None:
        place = files(where, "bus/pci/devices/0000:05:00.1", sriov_totalvfs=8, sriov_numvfs=2)
        read_only(place / "sriov_numvfs")
        with pytest.raises(Unsupported, match="sriov_numvfs"):
            call(where, "hostdev.set_numvfs", device="0000:05:00.1", count=4)
        assert values(place)["sriov_numvfs"] == "2"

    inside(deed)
