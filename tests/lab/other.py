"""The second host of the lab, as tests on the first see it: commands over ssh, vdsmd on it, its reboot, and its silence."""

from __future__ import annotations

import json
import subprocess
import xmlrpc.client
from pathlib import Path
from typing import Any

from tests.until import until

ROOT = Path(__file__).resolve().parents[2]
HOST = "host2"
PATIENCE = 400.0
PORT = 54321
SILENCE = "inet lab_silence"


def ssh(command: str, *, given: str = "", check: bool = True) -> str:
    """Run a command there and return what it said. Fails the test when it fails, unless told otherwise."""
    alive = ["-o", "ConnectTimeout=20", "-o", "ServerAliveInterval=10", "-o", "ServerAliveCountMax=6"]
    done = subprocess.run(["ssh", *alive, HOST, command], input=given, capture_output=True, text=True, check=False)
    assert done.returncode == 0 or not check, f"{command}: status {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout.strip()


# vdsmd there


def install_there(run_dir: str) -> None:
    """Install vdsmd there, with that run directory, and have it start now and at every boot."""
    options = {
        "vars": {"ssl": "false"},
        "addresses": {"management_ip": "0.0.0.0", "management_port": PORT},
        "paths": {"run_dir": run_dir},
        "libvirt": {"uri": "qemu:///embed?root=/var/lib/vdsm/libvirt", "virt_type": "qemu"},
    }
    _installation("install", options)
    ssh("systemctl enable --now --quiet supervdsmd vdsmd")


def remove_there() -> None:
    _installation("remove", {})


def _installation(deed: str, options: dict[str, Any]) -> None:
    ssh(f"cd {ROOT} && .venv/bin/python -m tests.lab.installation {deed}", given=json.dumps(options))


def call(verb: str, *arguments: Any) -> dict[str, Any]:
    """Call a verb there. While nothing answers, that is a fact that is not there yet."""
    try:
        with xmlrpc.client.ServerProxy(f"http://{HOST}:{PORT}/RPC2") as proxy:
            reply: dict[str, Any] = getattr(proxy, verb)(*arguments)
    except OSError as error:
        raise AssertionError(f"{verb}: {error}") from error
    assert reply["status"]["code"] == 0, reply
    return reply


# The host itself


def boot_id() -> str:
    return ssh("cat /proc/sys/kernel/random/boot_id", check=False)


def reboot(command: str) -> None:
    """Have it boot again, in that way, and wait until vdsmd answers there."""
    before = boot_id()
    assert before
    ssh(command, check=False)
    until(lambda: boot_id() not in ("", before), PATIENCE, "another boot")
    until(lambda: call("ping"), PATIENCE, "vdsmd to answer after the boot")


def fall_silent() -> None:
    """Have it answer nothing but ssh from now on, as a host does that has lost its power."""
    rules = f"""
        add table {SILENCE}
        add chain {SILENCE} input {{ type filter hook input priority -10; policy accept; }}
        add rule {SILENCE} input iifname eth1 tcp dport != 22 drop
        add rule {SILENCE} input iifname eth1 meta l4proto != tcp drop
    """
    ssh("nft -f -", given=rules)


def speak_again() -> None:
    ssh(f"nft delete table {SILENCE}", check=False)
