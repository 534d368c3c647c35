"""The comparison: a private libvirtd with as many guests is stopped and started again under a polling client."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from scripts.benchmarks.lab import say, until

XML = """<domain type='qemu'><name>b{n}</name><memory unit='MiB'>16</memory><os><type arch='x86_64' machine='pc'>hvm</type></os>
<devices><emulator>/usr/bin/qemu-system-x86_64</emulator></devices></domain>"""


def restart(guests: int) -> dict[str, Any]:
    """Return how long clients of a restarted libvirtd wait, in milliseconds: for the list of guests (`list_ms`), and for the
    statistics of all of them (`statistics_ms`), which need every monitor to be connected again."""
    program = shutil.which("libvirtd") or "/usr/sbin/libvirtd"
    if not os.path.exists(program):
        return {"skipped": "libvirtd is not installed"}
    base = Path(tempfile.mkdtemp(prefix="vl-", dir="/tmp"))
    private = _private(base)
    probe = subprocess.run([*private, "true"], capture_output=True, text=True, check=False)
    if probe.returncode:
        return {"skipped": f"no mount namespace of our own can be had here: {probe.stderr.strip()}"}
    say(f"Starting a private libvirtd with {guests} guests")
    try:
        return _measure(base, private, program, guests)
    finally:
        for pid in _below(base):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        until(lambda: not _below(base), "the private libvirtd's processes to end")
        shutil.rmtree(base, ignore_errors=True)


def _private(base: Path) -> list[str]:
    """Return the command that runs another one with libvirt's directories being ours."""
    binds = []
    for path in ("/var/lib/libvirt", "/var/log/libvirt", "/var/cache/libvirt", "/etc/libvirt", "/run"):
        ours = base / path.strip("/").replace("/", "-")
        ours.mkdir(exist_ok=True)
        binds.append(f"mount --bind {ours} {path}")
    (base / "etc-libvirt" / "qemu.conf").write_text(
        'stdio_handler = "file"\nsecurity_driver = "none"\nremember_owner = 0\nuser = "root"\ngroup = "root"\n'
    )
    return ["unshare", "-m", "sh", "-ec", "; ".join([*binds, 'exec "$@"']), f"private-{base.name}"]


def _measure(base: Path, private: list[str], program: str, guests: int) -> dict[str, Any]:
    import libvirt

    libvirt.registerErrorHandler(lambda *_: None, None)
    socket = base / "run" / "libvirt" / "libvirt-sock"
    uri = f"qemu+unix:///system?socket={socket}"
    daemon = _start(private, program, base)
    connection = until(lambda: _open(uri), "libvirtd to answer")
    for number in range(guests):
        connection.createXML(XML.format(n=number), libvirt.VIR_DOMAIN_START_PAUSED)
    connection.close()
    begun = time.monotonic()
    daemon.terminate()
    daemon.wait(60)
    daemon = _start(private, program, base)
    again = until(lambda: _all_there(uri, guests), "libvirtd to answer again")
    listed = time.monotonic() - begun
    until(lambda: len(again.getAllDomainStats(0, 0)) == guests, "statistics of all guests")
    told = time.monotonic() - begun
    again.close()
    daemon.terminate()
    daemon.wait(60)
    return {"guests": guests, "list_ms": round(listed * 1000, 1), "statistics_ms": round(told * 1000, 1)}


def _start(private: list[str], program: str, base: Path) -> subprocess.Popen[bytes]:
    log = (base / "libvirtd.log").open("ab")
    return subprocess.Popen([*private, program], stdin=subprocess.DEVNULL, stdout=log, stderr=log)


def _open(uri: str) -> Any:
    import libvirt

    try:
        return libvirt.open(uri)
    except libvirt.libvirtError:
        return None


def _all_there(uri: str, guests: int) -> Any:
    """Return a connection once the same answers come as before: every guest is seen running or paused."""
    connection = _open(uri)
    if connection is not None and len(connection.listAllDomains(1)) == guests:
        return connection
    return None


def _below(base: Path) -> list[int]:
    """Return the pids of what runs in the private directories."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        with contextlib.suppress(OSError):
            mounts = (entry / "mountinfo").read_text()
            if f"/{base.name}/" in mounts and entry.name != "self":
                found.append(int(entry.name))
    return found
