"""The demo guest: it boots without disk and network, counts without a gap, and powers off when its button is pressed."""

from __future__ import annotations

import json
import re
import socket
import subprocess
from pathlib import Path

import pytest

from tests.conftest import Guest
from tests.until import until


@pytest.mark.slow
def test_it_counts_and_powers_off(guest: Guest, tmp_path: Path) -> None:
    console, monitor = tmp_path / "console", tmp_path / "monitor"
    qemu = subprocess.Popen(
        [
            "qemu-system-x86_64", "-accel", "tcg", "-m", "96", "-display", "none", "-nodefaults", "-no-reboot",
            "-serial", f"file:{console}", "-qmp", f"unix:{monitor},server=on,wait=off",
            "-kernel", guest.kernel, "-initrd", guest.initramfs, "-append", "console=ttyS0 quiet",
        ],
    )  # fmt: skip
    try:
        until(lambda: console.exists() and b"\ntick 1\r\n" in console.read_bytes(), 120)
        press_power_button(monitor)
        assert qemu.wait(120) == 0
    finally:
        qemu.kill()
        qemu.wait()
    ticks = [int(number) for number in re.findall(r"^tick (\d+)$", console.read_text(), re.MULTILINE)]
    assert ticks == list(range(1, len(ticks) + 1))


def press_power_button(monitor: Path) -> None:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(monitor))
        with connection.makefile("rw") as lines:
            for command in ("qmp_capabilities", "system_powerdown"):
                lines.write(json.dumps({"execute": command}) + "\n")
                lines.flush()
            while "POWERDOWN" not in lines.readline():
                pass
