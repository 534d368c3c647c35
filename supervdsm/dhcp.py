"""DHCP clients: udhcpc of busybox, one for each link that needs one.

It promises that a client is known by the pid file on its own command line, so that it is found again after any death of ours
and never mistaken; and that it gives its link nothing but the address, and the way back over its gateway: the default route if
that was asked for, else a table of its own.
"""

from __future__ import annotations

import os
import select
import signal
import time
from typing import NamedTuple

from supervdsm.errors import Failed
from supervdsm.links import checked
from supervdsm.places import private
from supervdsm.programs import find, run
from supervdsm.registry import Context

SCRIPT = """\
# What the DHCP client of a network does with its lease: $0 says what has come of it. Written by supervdsm; changes are lost.
PATH=/usr/sbin:/usr/bin:/sbin:/bin
known=$(cat "$LEASE" 2>/dev/null)
# The gateway is the main table's, or that of a table of the link's own, for what comes in by it.
case "$0" in
bound | renew)
    [ "$lease" -le 2147483647 ] || lease=2147483647
    [ -z "$known" ] || [ "$known" = "$ip/$mask" ] || ip -4 addr del "$known" dev "$interface"
    ip -4 addr replace "$ip/$mask" dev "$interface" valid_lft "$lease" preferred_lft "$lease" || exit 1
    echo "$ip/$mask" >"$LEASE"
    for gateway in $router; do
        if [ -n "$DEFAULT_ROUTE" ]; then
            ip -4 route show default dev "$interface" | grep -qF "via $gateway " ||
                ip -4 route prepend default via "$gateway" dev "$interface" proto dhcp
            exit 0
        fi
        subnet=$(ip -4 route show dev "$interface" proto kernel scope link src "$ip" | head -n 1)
        subnet=${subnet%% *}
        [ -n "$TABLE" ] && [ -n "$subnet" ] || exit 0
        ip -4 route replace "$subnet" dev "$interface" table "$TABLE" proto dhcp scope link
        ip -4 route replace default via "$gateway" dev "$interface" table "$TABLE" proto dhcp
        ip -4 rule show table "$TABLE" | grep -qF "from $ip " && exit 0
        while ip -4 rule del table "$TABLE" protocol dhcp; do :; done 2>/dev/null
        ip -4 rule add from "$ip" table "$TABLE" priority 32000 protocol dhcp
        ip -4 rule add to "$subnet" iif "$interface" table "$TABLE" priority 32000 protocol dhcp
        exit 0
    done
    ;;
nak)
    [ -z "$known" ] || ip -4 addr del "$known" dev "$interface"
    rm -f "$LEASE"
    ;;
esac
# Nothing is done when a lease has merely not been renewed: the kernel counts its seconds.
"""
EVENTS = ("deconfig", "bound", "renew", "nak", "leasefail")
"""What a client tells a program that it starts, as its one argument. That program is the shell, which takes it for the name
of the script to run: nothing below /run can be executed itself, where systemd mounts it."""
ATTEMPTS, PAUSE = 6, 2
"""How often a server is asked, and the seconds between."""
STARTS_WITHIN = 10.0
LOOK_EVERY = 0.01
"""Seconds."""
ENDS_WITHIN = 10_000
"""Milliseconds."""


class Client(NamedTuple):
    link: str
    default_route: bool
    pid: int


class Clients:
    """Those of this host. `folder` is root's own."""

    def __init__(self, context: Context) -> None:
        self.folder = os.path.join(private(context), "dhcp")
        os.makedirs(self.folder, mode=0o700, exist_ok=True)

    def all(self) -> list[Client]:
        """Return the clients that run."""
        files = [name.removesuffix(".pid").rpartition(".") for name in os.listdir(self.folder) if name.endswith(".pid")]
        found = [Client(link, kind == "default", self._pid(link, kind)) for link, _, kind in files]
        return sorted(client for client in found if client.pid)

    def start(self, link: str, *, default_route: bool, table: int, wait: bool) -> None:
        """Have a client run. `wait`: until it has a lease; raises Failed when there is none to be had."""
        kind = "default" if default_route else "plain"
        if self._pid(link, kind):
            return
        self.stop(link)
        environment = {"LEASE": self._path(link, "lease")}
        environment |= {"DEFAULT_ROUTE": "yes"} if default_route else {"TABLE": str(table)} if table else {}
        options = ["-n"] if wait else ["-b"]
        known = self._read(link, "lease").partition("/")[0]
        options += ["-r", known] if known else []
        done = run(
            find("env"),
            f"--chdir={self._scripts()}",
            find("udhcpc"),
            *options,
            *("-i", link, "-t", str(ATTEMPTS), "-T", str(PAUSE), "-A", "1"),
            *("-p", self._path(link, f"{kind}.pid"), "-s", find("sh")),
            environment=environment,
            timeout=ATTEMPTS * PAUSE * 3,
        )
        if done.code:
            raise Failed(f"no DHCP server answers on {link}: {done.last_line()}")
        self._await_pid(link, kind)
        if wait and not self._read(link, "lease"):
            self.stop(link)
            raise Failed(f"a DHCP server has answered on {link}, but the address cannot be set")

    def stop(self, link: str) -> str:
        """End the client of a link, if there is one. Returns the address that it had given the link, '' for none."""
        for kind in ("default", "plain"):
            pid = self._pid(link, kind)
            if pid:
                _end(pid)
            self._remove(link, f"{kind}.pid")
        return self._read(link, "lease")

    def forget(self, link: str) -> None:
        """Ask for any address, when the link asks again."""
        self._remove(link, "lease")

    def _pid(self, link: str, kind: str) -> int:
        """Return the pid of a client that runs, 0 when none does."""
        text = self._read(link, f"{kind}.pid")
        if not text.isdigit():
            return 0
        try:
            with open(f"/proc/{text}/cmdline", "rb") as file:
                words = file.read().split(b"\0")
        except OSError:
            return 0
        return int(text) if self._path(link, f"{kind}.pid").encode() in words else 0

    def _await_pid(self, link: str, kind: str) -> None:
        """The client goes on in the background as another process, which writes its pid a moment after the first has ended."""
        deadline = time.monotonic() + STARTS_WITHIN
        while not self._pid(link, kind):
            if time.monotonic() > deadline:
                raise Failed(f"the DHCP client of {link} has ended right after its start")
            time.sleep(LOOK_EVERY)

    def _scripts(self) -> str:
        """Return the directory in which the script is there for each event."""
        folder = os.path.join(self.folder, "scripts")
        os.makedirs(folder, mode=0o700, exist_ok=True)
        for event in EVENTS:
            fresh = os.path.join(folder, f"{event}.{os.getpid()}")
            with open(fresh, "w", encoding="ascii") as file:
                file.write(SCRIPT)
            os.rename(fresh, os.path.join(folder, event))
        return folder

    def _path(self, link: str, what: str) -> str:
        return os.path.join(self.folder, f"{checked(link)}.{what}")

    def _read(self, link: str, what: str) -> str:
        try:
            with open(self._path(link, what), encoding="ascii") as file:
                return file.read().strip()
        except FileNotFoundError:
            return ""

    def _remove(self, link: str, what: str) -> None:
        try:
            os.unlink(self._path(link, what))
        except FileNotFoundError:
            pass


def _end(pid: int) -> None:
    """End a client, without a word to the server: whoever starts one again gets the same address."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        signal.pidfd_send_signal(pidfd, signal.SIGTERM)
        waiter = select.poll()
        waiter.register(pidfd, select.POLLIN)
        if not waiter.poll(ENDS_WITHIN):
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    except ProcessLookupError:
        pass
    finally:
        os.close(pidfd)
