"""Which way of running machines is taken, and what it can do."""

from __future__ import annotations

from pathlib import Path

import pytest

from drivers.errors import Invalid
from drivers.vm.hypervisor.kinds import HYPERVISORS, candidates, domain_type, has_kvm, hypervisor_of

EMBEDDED, SYSTEM, MOCK = map(hypervisor_of, ("qemu:///embed?root=/x", "qemu:///system", "test:///default"))


@pytest.mark.parametrize(
    ("uri", "tried"),
    [
        ("auto", ["qemu:///system", "qemu:///embed?root=/lib/vdsm/libvirt"]),
        ("qemu:///system", ["qemu:///system"]),
        ("test:///default", ["test:///default"]),
    ],
)
def test_what_is_tried(uri: str, tried: list[str]) -> None:
    assert candidates(uri, "/lib/vdsm") == tried
    assert all(hypervisor_of(one) in HYPERVISORS for one in tried)


@pytest.mark.parametrize("uri", ["", "qemu:///session", "qemu+ssh://host/system", "xen:///", "qemu:///embed"])
def test_what_is_not_known(uri: str) -> None:
    with pytest.raises(Invalid, match="uri = "):
        hypervisor_of(uri)


def host(root: Path, *, device: bool, module: str) -> str:
    (root / "dev").mkdir(parents=True)
    (root / "sys/module").mkdir(parents=True)
    if device:
        (root / "dev/kvm").touch()
    if module:
        (root / "sys/module" / module).mkdir()
    return str(root)


@pytest.mark.parametrize(
    ("device", "module", "works"),
    [
        (True, "kvm_intel", True),
        (True, "kvm_amd", True),
        (True, "kvm_pvm", False),
        (True, "", False),
        (False, "kvm_intel", False),
    ],
)
def test_kvm_needs_its_device_and_a_module_for_this_hardware(
    tmp_path: Path, device: bool, module: str, works: bool
) -> None:
    root = host(tmp_path / "root", device=device, module=module)
    assert has_kvm(root) is works
    assert domain_type(SYSTEM, "auto", root) == ("kvm" if works else "qemu")


@pytest.mark.parametrize(
    ("setting", "row", "kind"),
    [
        ("kvm", EMBEDDED, "kvm"),
        ("qemu", EMBEDDED, "qemu"),
        ("kvm", MOCK, "test"),
        ("qemu", MOCK, "test"),
        ("auto", MOCK, "test"),
    ],
)
def test_the_setting_overrides(tmp_path: Path, setting: str, row: object, kind: str) -> None:
    root = host(tmp_path / "root", device=setting == "qemu", module="kvm_intel")
    assert domain_type(row, setting, root) == kind  # type: ignore[arg-type]


def test_capabilities_are_data() -> None:
    rows = (EMBEDDED, SYSTEM, MOCK)
    assert [row.children_are_ours for row in rows] == [True, False, False]
    assert [row.volatile for row in rows] == [False, False, True]
    assert [row.remote for row in rows] == [False, True, False]
    assert [row.channels for row in rows] == [True, True, False]
    assert [row.net_filters for row in rows] == [False, True, True]


def test_the_embedded_one_forgets_what_ran_in_another_boot(tmp_path: Path) -> None:
    """libvirt would end the processes that have those pids by now."""
    status, boot = tmp_path / "run/qemu/guest.xml", tmp_path / "boot"
    for known, stays in ((None, True), ("", True), ("another", False)):
        status.parent.mkdir(parents=True, exist_ok=True)
        status.write_text("<domstatus pid='1'/>")
        if known:
            boot.write_text(known)
        EMBEDDED.prepare(f"qemu:///embed?root={tmp_path}")
        assert status.exists() is stays
        assert boot.read_text() == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
