"""How QEMU is called for a virtual host: the one place that knows its options, and how to ask its monitor.

It promises that a host reaches nothing of ours, and that nothing of it but the port for ssh is reached.
"""

from __future__ import annotations

import re
import socket
import subprocess
import uuid
from collections.abc import Mapping
from pathlib import Path

from scripts.virtualhost.image import Image

MEMORY = 2048
"""MiB of a host."""


def command(base: Path, image: Image, payload: Path, number: int, count: int, networks: Mapping[str, str]) -> list[str]:
    """Return the command that runs host `number` of `count`. Under `base` there will be its `console.log`, and its `monitor`.

    `networks`: QEMU's options for each network, by its id. The host's first card is the lab's way in, eth1 and so on are these.
    """
    disk = base / "disk.qcow2"
    backing = ["-F", "raw", "-b", str(image.root)]
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", *backing, str(disk)], check=True)
    name, identity = f"host{number}", uuid.UUID(int=(0x1AB << 112) + (4 << 76) + (8 << 60) + number)
    kernel = [
        "console=ttyS0", "root=/dev/vda", "rw", "panic=-1", "quiet", "net.ifnames=0", "mitigations=off",
        f"systemd.hostname={name}", f"systemd.machine_id={identity.hex}", "systemd.show_status=no",
        f"lab.host={number}", f"lab.hosts={count}",
    ]  # fmt: skip
    # Port 0 is a free one.
    cards = {"way-in": "user,id=way-in,restrict=on,ipv6=off,hostfwd=tcp:127.0.0.1:0-:22", **networks}
    return [
        # Should we be killed, it goes, too.
        "setpriv", "--pdeathsig", "KILL", "qemu-system-x86_64", "-name", name, "-uuid", str(identity),
        "-smbios", f"type=1,manufacturer=vdsmd,product=lab,serial=LAB{number:04}",
        "-accel", "tcg,thread=multi", "-smp", "2", "-cpu", "max", "-m", str(MEMORY), "-display", "none",
        "-nodefaults", "-no-user-config", "-device", "virtio-rng-pci",
        "-kernel", str(image.kernel), "-initrd", str(image.initrd), "-append", " ".join(kernel),
        "-drive", f"file={disk},if=virtio,format=qcow2,cache=unsafe,discard=unmap",
        "-drive", f"file={payload},if=virtio,format=raw,readonly=on",
        *(part for index, (card, options) in enumerate(cards.items()) for part in _card(number, index, card, options)),
        "-serial", f"file:{base / 'console.log'}", "-monitor", f"unix:{base / 'monitor'},server=on,wait=off",
    ]  # fmt: skip


def _card(number: int, index: int, network: str, options: str) -> list[str]:
    mac = f"52:54:00:77:{number:02x}:{index:02x}"
    return ["-netdev", options, "-device", f"virtio-net-pci,netdev={network},mac={mac}"]


def ssh_port(base: Path) -> int:
    """Return the port of ours that leads to the host's ssh, or 0 while QEMU does not tell."""
    told = _ask(base / "monitor", "info usernet")
    found = re.search(r"TCP\[HOST_FORWARD\] +\d+ +127\.0\.0\.1 +(\d+) ", told)
    return int(found[1]) if found else 0


def _ask(path: Path, question: str) -> str:
    """Return what the monitor answers, or nothing while it is not there."""
    try:
        with socket.socket(socket.AF_UNIX) as monitor:
            monitor.settimeout(10)
            monitor.connect(str(path))
            _prompt(monitor)
            monitor.sendall(f"{question}\n".encode())
            return _prompt(monitor)
    except OSError:
        return ""


def _prompt(monitor: socket.socket) -> str:
    got = b""
    while not got.endswith(b"(qemu) "):
        data = monitor.recv(4096)
        if not data:
            break
        got += data
    return got.decode(errors="replace")
