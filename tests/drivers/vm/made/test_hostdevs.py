"""USB devices of the host: found at each start by their place, given to an ordinary user's QEMU, and taken back at its end."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from drivers.errors import NotFound
from drivers.vm.made import hostdevs
from supervdsm.errors import NotAllowed
from tests.drivers.vm.conftest import VM
from tests.drivers.vm.fake import ROW, FakeLibvirt
from tests.drivers.vm.stand import Stand
from tests.drivers.vm.test_belongings import FakeRoot
from tests.until import until

EMBEDDED = msgspec.structs.replace(ROW, children_are_ours=True)
STICK = {"type": "hostdev", "device": "usb_1_2_4", "deviceId": "the-stick"}


@pytest.fixture
def sysfs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "usb"
    for place, bus, number in (("usb1", 1, 1), ("1-2", 1, 3), ("1-2.4", 1, 7)):
        (folder / place).mkdir(parents=True)
        (folder / place / "busnum").write_text(f"{bus}\n")
        (folder / place / "devnum").write_text(f"{number}\n")
    (folder / "1-2:1.0").mkdir()
    monkeypatch.setattr(hostdevs, "DEVICES", str(folder))
    return folder


@pytest.mark.usefixtures("sysfs")
def test_a_device_is_found_by_its_place() -> None:
    assert hostdevs.located(STICK) == {**STICK, "hostAddress": {"bus": 1, "device": 7}}
    assert hostdevs.located({**STICK, "device": "usb_1_2"})["hostAddress"] == {"bus": 1, "device": 3}


def test_a_device_that_is_not_there(sysfs: Path) -> None:
    with pytest.raises(NotFound, match="no such USB device of this host: usb_1_9"):
        hostdevs.located({**STICK, "device": "usb_1_9"})
    (sysfs / "1-2.4" / "devnum").unlink()
    with pytest.raises(NotFound, match=r"devnum of USB device: 1-2\.4"):
        hostdevs.located(STICK)


def test_a_host_without_usb(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(hostdevs, "DEVICES", str(tmp_path / "none"))
    with pytest.raises(NotFound, match="usb_1_2_4"):
        hostdevs.located(STICK)


@pytest.fixture
def root(monkeypatch: pytest.MonkeyPatch, sysfs: Path) -> FakeRoot:
    monkeypatch.setattr(hostdevs, "must_be_granted", lambda: True)
    return FakeRoot()


@pytest.mark.slow
def test_an_ordinary_user_is_given_the_device_until_the_machine_ends(
    build: Callable[..., Stand], root: FakeRoot
) -> None:
    stand = build(FakeLibvirt(EMBEDDED), root=root)
    stand.create(VM, devices=[STICK])
    stand.await_status(VM, "Up")
    stand.calm()
    assert root.given == [("udev.grant_usb", 1, 7, VM)]
    told: list[dict[str, Any]] = stand.inside(lambda: stand.driver.list_full([VM]))[0]["devices"]
    assert {**STICK, "hostAddress": {"bus": 1, "device": 7}}.items() <= told[0].items()
    stand.destroy(VM)
    until(lambda: root.given[-1] == ("udev.revoke", VM), 60)


@pytest.mark.slow
def test_a_device_that_is_not_given_keeps_its_machine_from_starting(
    build: Callable[..., Stand], root: FakeRoot
) -> None:
    root.refuses = NotAllowed("USB device 1, 7 is this host's own: it is mounted at /boot")
    stand = build(FakeLibvirt(EMBEDDED), root=root)
    stand.create(VM, devices=[STICK])
    told = stand.await_status(VM, "Down")["exitMessage"]
    assert told.startswith("giving usb_1_2_4 to the virtual machine failed") and "mounted at /boot" in told


@pytest.mark.slow
def test_where_libvirt_is_a_daemon_it_sees_to_that(build: Callable[..., Stand], root: FakeRoot) -> None:
    stand = build(FakeLibvirt(msgspec.structs.replace(ROW, children_are_ours=False)), root=root)
    stand.create(VM, devices=[STICK])
    stand.await_status(VM, "Up")
    assert root.given == []
