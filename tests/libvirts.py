"""Two hosts on one machine: a libvirtd each, with a network, a name and folders of its own, and a cable between them.

It promises that nothing is left behind: the namespaces live as long as the processes in them, which are found and ended by
their pid, and the files lie in the stage's directory. Needs root.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.certificates import authority, certificate, trust_store
from tests.running import PATIENCE, Running, Stage
from tests.until import until
from vdsmd.ctl.wire import Address, Client, Lost, Refused, Unreachable

_KEEPER = """
set -e
mount --make-rprivate /
mount -t tmpfs none /run
for part in lib log; do
    mkdir -p {base}/$part /var/$part/libvirt
    mount --bind {base}/$part /var/$part/libvirt
done
# What libvirt finds out about QEMU takes long, and is the same for both.
mkdir -p {base}/../cache /var/cache/libvirt
mount --bind {base}/../cache /var/cache/libvirt
mkdir -p {base}/etc/qemu
mount --bind {base}/etc /etc/libvirt
# libvirt finds its certificates in a folder of /etc that need not be there: give it an /etc of its own, of links.
mkdir /run/etc
mount --rbind /etc /run/etc
mount -t tmpfs none /etc
ln -s /run/etc/* /etc/
rm -f /etc/pki
ln -s {base}/pki /etc/pki
hostname {name}
ip link set lo up
exec sleep infinity
"""
_LIBVIRTD = """
host_uuid = "{uuid}"
listen_tls = {tls}
auth_tls = "none"
listen_tcp = 1
auth_tcp = "none"
auth_unix_rw = "none"
unix_sock_rw_perms = "0777"
"""
_QEMU = """
stdio_handler = "file"
security_driver = "none"
user = "root"
group = "root"
remember_owner = 0
namespaces = []
"""


_PKI = {
    "CA/cacert.pem": "authority.pem",
    "libvirt/servercert.pem": "{host}.pem",
    "libvirt/private/serverkey.pem": "{host}.key",
    "libvirt/clientcert.pem": "{host}.pem",
    "libvirt/private/clientkey.pem": "{host}.key",
}
"""Where libvirt looks for its certificates below /etc/pki."""


class Host:
    """One of them. `address` is where the others reach it, `uri` its libvirt as its own daemon reaches it."""

    def __init__(self, base: Path, number: int) -> None:
        self.base = base
        self.address = f"10.99.7.{number}"
        self.uri = "qemu+unix:///system?socket=/run/libvirt/libvirt-sock"
        base.mkdir()
        (base / "etc").mkdir()
        self._certify()
        text = _LIBVIRTD.format(uuid=uuid.uuid4(), tls=int(self.trust_store.exists()))
        (base / "etc" / "libvirtd.conf").write_text(text, encoding="ascii")
        (base / "etc" / "qemu.conf").write_text(_QEMU, encoding="ascii")
        script = _KEEPER.format(base=base, name=f"host{number}")
        # The pid of `unshare` stays that of the keeper, in which the namespaces can be found.
        self.keeper = subprocess.Popen(["unshare", "-m", "-u", "-n", "sh", "-c", script], stdin=subprocess.DEVNULL)
        until(lambda: self._comm() == "sleep", PATIENCE, "the namespaces of a host")
        self.libvirtd: subprocess.Popen[bytes] | None = None

    @property
    def launcher(self) -> list[str]:
        return ["nsenter", "-t", str(self.keeper.pid), "-m", "-u", "-n", "--"]

    def run(self, *command: str) -> str:
        """Run a command there, which must succeed. Return what it says."""
        ran = subprocess.run([*self.launcher, *command], capture_output=True, text=True, check=False, timeout=PATIENCE)
        assert ran.returncode == 0, f"{command}: {ran.stderr}"
        return ran.stdout

    def start_libvirtd(self) -> None:
        with (self.base / "libvirtd.log").open("ab") as output:
            self.libvirtd = subprocess.Popen(
                [*self.launcher, "libvirtd", "-l"], stdin=subprocess.DEVNULL, stdout=output, stderr=output
            )
        until(lambda: self.virsh("version"), PATIENCE, "libvirtd to answer")

    def virsh(self, *words: str) -> bool:
        """Run virsh there. Say whether it succeeded."""
        command = [*self.launcher, "virsh", "-c", self.uri, *words]
        return subprocess.run(command, capture_output=True, check=False, timeout=PATIENCE).returncode == 0

    def clear(self) -> None:
        """End all that runs there: all processes in its network."""
        network = os.readlink(f"/proc/{self.keeper.pid}/ns/net")
        for process in (self.libvirtd, self.keeper):
            for pid in _in_network(network) - {self.keeper.pid} if process is self.libvirtd else {self.keeper.pid}:
                _kill(pid)
            if process is not None:
                process.wait(PATIENCE)
        until(lambda: not _in_network(network), PATIENCE, "a host to be empty")

    @property
    def trust_store(self) -> Path:
        """The daemon's keys and certificates; it is there if openssl is."""
        return self.base / "pki" / "vdsm"

    def _certify(self) -> None:
        """Have libvirtd and the daemon hold certificates of one authority, which both hosts know."""
        if shutil.which("openssl") is None:
            return
        keys = self.base.parent / "keys"
        if not keys.exists():
            keys.mkdir()
            authority(keys, "authority")
        certificate(keys, self.address, "authority", extra=f"subjectAltName=IP:{self.address}")
        trust_store(self.trust_store, keys, self.address, "authority")
        pki = self.base / "pki"
        for name, source in _PKI.items():
            (pki / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(keys / source.format(host=self.address), pki / name)

    def _comm(self) -> str:
        assert self.keeper.poll() is None, "the namespaces could not be made"
        return Path(f"/proc/{self.keeper.pid}/comm").read_text(encoding="ascii").strip()


class Libvirts:
    """Both hosts, with a cable between them."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.hosts: list[Host] = []
        try:
            for number in (1, 2):
                self.hosts.append(Host(stage.base / f"host{number}", number))
            self._connect()
            for host in self.hosts:
                host.start_libvirtd()
        except BaseException:  # whatever it is, also the end of the tests: nothing may be left
            self.clear()
            raise

    def daemon(
        self, number: int, options: Mapping[str, object] | None = None, *, again: Running | None = None
    ) -> Running:
        """Start a daemon at host 0 or 1. It is called over its local socket."""
        host = self.hosts[number]
        config: dict[str, dict[str, object]] = {
            "addresses": {"management_ip": "0.0.0.0"},
            "vars": {"migration_monitor_interval": 0.2, "vm_sample_interval": 1, **(options or {})},
        }
        daemon = self.stage.start(uri=host.uri, config=config, launcher=host.launcher, again=again, wait=False)
        daemon.call = lambda verb, *args: _call(daemon, verb, *args)  # type: ignore[method-assign]
        daemon.serving()
        until(lambda: daemon.call("ping")["status"]["code"] == 0, PATIENCE, "machines to be recovered")
        return daemon

    def peer(self, number: int, daemon: Running) -> str:
        """Return how another daemon finds it."""
        return f"{self.hosts[number].address}:{daemon.port}"

    def empty(self) -> None:
        """End all machines on both hosts."""
        for host in self.hosts:
            for name in host.run("virsh", "-c", host.uri, "list", "--name").split():
                host.virsh("destroy", name)

    def clear(self) -> None:
        for host in self.hosts:
            host.clear()

    def _connect(self) -> None:
        first, second = self.hosts
        first.run(
            "ip", "link", "add", "cable", "type", "veth", "peer", "name", "cable", "netns", str(second.keeper.pid)
        )
        for host in self.hosts:
            host.run("ip", "address", "add", f"{host.address}/24", "dev", "cable")
            host.run("ip", "link", "set", "cable", "up")


def _call(daemon: Running, verb: str, *args: Any) -> dict[str, Any]:
    client = Client(Address(path=daemon.socket), PATIENCE)
    try:
        return {"status": {"code": 0, "message": ""}, **client.call(verb, *args)}
    except Refused as error:
        return {"status": {"code": error.code, "message": error.message}}
    except (Lost, Unreachable) as error:
        raise AssertionError(str(error)) from error
    finally:
        client.close()


def _in_network(network: str) -> set[int]:
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if os.readlink(entry / "ns" / "net") == network:
                    found.add(int(entry.name))
            except OSError:
                continue  # it has just ended
    return found


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
