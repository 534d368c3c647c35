"""The ways to run a virtual machine, and what each can do. To add one: a row in `HYPERVISORS`.

What differs between them is data here; nobody else asks which one it is. Imported after the first answer.
"""

from __future__ import annotations

import ctypes
import logging
import os
import shutil
from collections.abc import Callable
from urllib.parse import parse_qs, urlsplit

import msgspec

from drivers.errors import Invalid
from state.directory import StateDirectory
from state.process import boot_id

log = logging.getLogger("libvirt")

PR_SET_CHILD_SUBREAPER = 36
HARDWARE_MODULES = ("kvm_intel", "kvm_amd")


def _nothing(uri: str) -> None:
    """Somebody else has prepared it."""


def _prepare_embedded(uri: str) -> None:
    """Write the embedded driver's configuration, and become the parent of what it double-forks: QEMU, above all.

    QEMU runs as the user that we run as, reads what we can read, and its log is a file (there is no virtlogd)."""
    root = parse_qs(urlsplit(uri).query)["root"][0]
    os.makedirs(f"{root}/etc", mode=0o711, exist_ok=True)
    _forget_other_boots(root)
    lines = [
        'stdio_handler = "file"',
        'security_driver = "none"',
        "remember_owner = 0",
        "dynamic_ownership = 0",
        # A mount namespace per guest needs a root that is a mount point, which that of a container may not be.
        "namespaces = []",
        f'user = "+{os.geteuid()}"',
        f'group = "+{os.getegid()}"',
    ]
    with open(f"{root}/etc/qemu.conf", "w", encoding="utf-8") as file:
        file.write("# Written by vdsmd at every start.\n" + "\n".join(lines) + "\n")
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "cannot become the parent of orphaned descendants")


def _forget_other_boots(root: str) -> None:
    """Remove what libvirt knows of running domains if that was in another boot: elsewhere a tmpfs takes care of it.

    It would take the domains for running, and end the processes that have their pids by now: anybody's."""
    directory, now = StateDirectory(root), boot_id().encode()
    known = directory.read("boot")
    if known == now:
        return
    # Where nothing is written yet, a release that did not may have left machines running.
    if known and os.path.isdir(f"{root}/run"):
        log.info("The host has been booted: running domains of before are forgotten root=%s", root)
        shutil.rmtree(f"{root}/run")
    directory.write("boot", now, sync=True)


class Hypervisor(msgspec.Struct, frozen=True, kw_only=True):
    """What one can do. `prefix`: how its uris begin.

    children_are_ours: QEMU is our child, and libvirt works inside of us: a re-exec must not interrupt it.
    volatile: domains live in our memory, end with an exec, and are given back after it.
    remote: the connection can break while we live.
    monitors: each domain has a monitor, which may be stuck.
    consoles: guests write to the consoles that we offer.
    channels: guests' channels are sockets in our folder.
    net_filters: libvirt has network filters for nics.
    networks: libvirt knows networks, which displays can listen on.
    secrets: libvirt keeps secrets for disks.
    taps: nics are plugged into taps that root makes for us, because libvirt may not make any.
    starts_paused: a domain can be created paused.
    migrates: domains can come from other hosts, and leave for them.
    patient_stats: the bulk call for statistics can be told not to wait for a busy domain.
    emulation, hardware: the domain types for software emulation and for hardware support.
    """

    prefix: str
    prepare: Callable[[str], None] = _nothing
    children_are_ours: bool = False
    volatile: bool = False
    remote: bool = False
    monitors: bool = True
    consoles: bool = True
    channels: bool = True
    net_filters: bool = True
    networks: bool = True
    secrets: bool = True
    taps: bool = False
    starts_paused: bool = True
    migrates: bool = False
    patient_stats: bool = True
    emulation: str = "qemu"
    hardware: str = "kvm"


HYPERVISORS = (
    # Without a daemon there are no drivers for network filters, networks and secrets.
    Hypervisor(
        prefix="qemu:///embed?root=",
        prepare=_prepare_embedded,
        children_are_ours=True,
        net_filters=False,
        networks=False,
        secrets=False,
        taps=True,
    ),
    Hypervisor(prefix="qemu:///system", remote=True, migrates=True),
    # The same, on a socket of its own: `qemu+unix:///system?socket=PATH`.
    Hypervisor(prefix="qemu+unix:///system", remote=True, migrates=True),
    Hypervisor(
        prefix="test:///default",
        volatile=True,
        monitors=False,
        consoles=False,
        channels=False,
        starts_paused=False,
        patient_stats=False,
        emulation="test",
        hardware="test",
    ),
)


def hypervisor_of(uri: str) -> Hypervisor:
    """Return the row of a uri. Raises Invalid."""
    for row in HYPERVISORS:
        if uri.startswith(row.prefix):
            return row
    known = ", ".join(row.prefix for row in HYPERVISORS)
    raise Invalid(what=f"[libvirt] uri = {uri}", reason=f"expected auto, or one that begins with one of {known}")


def candidates(uri: str, lib_dir: str) -> list[str]:
    """Return the uris to try, in this order."""
    return ["qemu:///system", f"qemu:///embed?root={lib_dir}/libvirt"] if uri == "auto" else [uri]


def has_kvm(root: str = "/") -> bool:
    """Say whether KVM really works: a /dev/kvm alone may belong to a paravirtual module that runs no ordinary guest."""
    device = os.path.join(root, "dev/kvm")
    modules = (os.path.join(root, "sys/module", name) for name in HARDWARE_MODULES)
    return os.access(device, os.R_OK | os.W_OK) and any(map(os.path.isdir, modules))


def domain_type(row: Hypervisor, setting: str, root: str = "/") -> str:
    """Return the type of new domains. `setting` is auto, kvm or qemu."""
    wanted = setting if setting != "auto" else "kvm" if has_kvm(root) else "qemu"
    return row.hardware if wanted == "kvm" else row.emulation
