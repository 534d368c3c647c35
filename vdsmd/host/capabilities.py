"""Capabilities: what this host can do and has, as an engine wants to know it before it sends guests.

Only what works is claimed: a feature whose verbs are not there yet is 'false', whatever the hardware could do.
"""

from __future__ import annotations

import os
from typing import Any

from drivers.vm.contract import Virt
from state.release import VERSION
from vdsmd.host import hardware, topology
from vdsmd.host.facts import Settings
from vdsmd.host.files import Files
from vdsmd.host.links import Addresses, describe

LEVELS = ["3.3", "3.4", "3.5", "3.6"]
"""The releases of the engine whose verbs we speak."""
FC_HOSTS = "/sys/class/fc_host"
FAKE_MODELS = (
    "qemu64",
    "kvm64",
    "coreduo",
    "core2duo",
    "Conroe",
    "Penryn",
    "Nehalem",
    "Westmere",
    "SandyBridge",
    "Haswell",
)
"""Models of a host that only claims to have KVM."""


def capabilities(
    files: Files, settings: Settings, virt: Virt, addresses: dict[str, Addresses], told: dict[str, str]
) -> dict[str, Any]:
    """Return the info of getVdsCapabilities, apart from what only the API knows (who asked last). `told`: by the firmware."""
    return {
        **_ours(),
        **topology.cpu(files, models=virt.models, threads_as_cores=settings.threads_as_cores),
        **topology.numa(files),
        **_memory(files, settings),
        **_virtualization(files, virt),
        **(_fake(files) if settings.fake_kvm else {}),
        **_storage(files),
        **describe(files, settings.shown, addresses),
        "networks": {},
        "netConfigDirty": "False",
        "hooks": {},
        "uuid": hardware.host_id(files, told),
        "operatingSystem": hardware.operating_system(files),
        "packages2": _packages(virt),
        "selinux": {"mode": files.text("/sys/fs/selinux/enforce") or "-1"},
        "kdumpStatus": files.number("/sys/kernel/kexec_crash_loaded", default=-1),
        "additionalFeatures": [],
    }


def _ours() -> dict[str, Any]:
    return {
        "software_version": VERSION,
        "software_revision": "0",
        "version_name": f"vdsmd {VERSION}",
        "supportedENGINEs": list(LEVELS),
        "clusterLevels": list(LEVELS),
        "supportedProtocols": ["2.2", "2.3"],
    }


def _memory(files: Files, settings: Settings) -> dict[str, str]:
    return {
        "memSize": str(topology.memory(files).get("MemTotal", 0) // 1024),
        "reservedMem": str(settings.host_reserve + settings.extra_reserve),
        "guestOverhead": str(settings.guest_overhead),
    }


def _virtualization(files: Files, virt: Virt) -> dict[str, Any]:
    sources = {"random": files.exists("/dev/random"), "hwrng": _has_hwrng(files)}
    return {
        "kvmEnabled": _word(virt.kvm),
        "vmTypes": ["kvm"],
        "emulatedMachines": list(virt.machines),
        "rngSources": [name for name, there in sources.items() if there],
        "liveSnapshot": _word(False),
        "liveMerge": _word(False),
        "hostdevPassthrough": _word(bool(files.names("/sys/kernel/iommu_groups"))),
    }


def _fake(files: Files) -> dict[str, str]:
    """Return what engines look at before they take a host: it has KVM, and runs every processor's guests."""
    flags = dict.fromkeys([*topology.flags(files), "vmx", "nx", *(f"model_{model}" for model in FAKE_MODELS)])
    return {"kvmEnabled": _word(True), "cpuFlags": ",".join(flags)}


def _has_hwrng(files: Files) -> bool:
    current = files.text("/sys/class/misc/hw_random/rng_current")
    return files.exists("/dev/hwrng") and current not in ("", "none")


def _storage(files: Files) -> dict[str, Any]:
    initiator = files.pairs("/etc/iscsi/initiatorname.iscsi", "=").get("InitiatorName", "")
    fibre = [
        {
            "wwpn": files.text(f"{FC_HOSTS}/{name}/port_name").removeprefix("0x"),
            "wwnn": files.text(f"{FC_HOSTS}/{name}/node_name").removeprefix("0x"),
            "model": files.text(f"{FC_HOSTS}/{name}/symbolic_name"),
        }
        for name in files.names(FC_HOSTS)
    ]
    iscsi = [{"InitiatorName": initiator}] if initiator else []
    return {"ISCSIInitiatorName": initiator, "HBAInventory": {"iSCSI": iscsi, "FC": fibre}}


def _packages(virt: Virt) -> dict[str, dict[str, str]]:
    versions = {"kernel": os.uname().release, "vdsm": VERSION, **virt.versions}
    return {name: _package(version) for name, version in versions.items()}


def _package(version: str) -> dict[str, str]:
    """What stands behind the first dash is the release. We do not know when it was built."""
    number, _, release = version.partition("-")
    return {"version": number, "release": release, "buildtime": "0"}


def _word(value: bool) -> str:
    return "true" if value else "false"
