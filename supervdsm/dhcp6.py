"""DHCPv6 clients: dhcpcd, one for each link that needs one, for nothing but an address.

It promises that a client is known by the lock on its pid file, so that it is found again after any death of ours and never
mistaken; and that those of this host's own configuration are neither seen nor disturbed: ours have in the place of dhcpcd's
directories, in a mount namespace of theirs, others that are root's own. Routes come by router advertisements, as always.
"""

from __future__ import annotations

import fcntl
import os
import signal
import time
from collections.abc import Callable

from supervdsm.errors import Failed
from supervdsm.links import checked, session
from supervdsm.places import private
from supervdsm.programs import find, run
from supervdsm.registry import Context

CONFIGURATION = """\
# What the DHCPv6 client of a network does. Written by supervdsm; changes are lost.
ipv6only
noipv6rs
duid ll
ia_na
script /bin/true
"""
PLACES = {"run": "/run/dhcpcd", "lib": "/var/lib/dhcpcd"}
"""Where dhcpcd has its pid files and sockets, and its identity and leases; by the folders of ours that stand for that."""
APART = 'mount --bind "$0/run" /run/dhcpcd && mount --bind "$0/lib" /var/lib/dhcpcd && exec "$@"'
"""In a slave of this host's mount namespace, from which goes what is unmounted there: in one that is private, a client would
keep every storage that was mounted when it started."""
STARTS_WITHIN, ANSWERS_WITHIN, ENDS_WITHIN = 10.0, 30.0, 1.0
LOOK_EVERY = 0.02
"""Seconds."""
ASKED_TO_END = 10
"""How often."""
NO_PREFIX_ROUTE, PERMANENT = 0x200, 0x80
"""Flags of addresses: a client's have the first and not the second (linux/if_addr.h)."""
GENERATION = "/proc/sys/net/ipv6/conf/{}/addr_gen_mode"
"""How the kernel makes the link's address of link scope. A client sees to that itself, and leaves it so."""


class Clients6:
    """Those of this host. `folder` is root's own."""

    def __init__(self, context: Context) -> None:
        self.folder = os.path.join(private(context), "dhcp6")

    def all(self) -> list[str]:
        """Return the links whose client runs."""
        try:
            names = os.listdir(os.path.join(self.folder, "run"))
        except FileNotFoundError:
            return []
        links = [name.removesuffix("-6.pid") for name in names if name.endswith("-6.pid")]
        return sorted(link for link in links if self._pid(link))

    def start(self, link: str, *, wait: bool) -> None:
        """Have a client run. `wait`: until it has given the link an address; raises Failed when there is none to be had."""
        if self._pid(link):
            return
        program, config = find("dhcpcd"), self._prepare()
        self._end_rest(link)
        self._note_generation(link)
        apart = (find("unshare"), "--mount", "--propagation", "slave", find("sh"), "-c", APART, self.folder)
        done = run(*apart, program, "-6", "-b", "-f", config, "--", checked(link))
        if done.code or not _within(STARTS_WITHIN, lambda: self._pid(link) > 0):
            raise Failed(f"the DHCPv6 client of {link} does not start: {done.last_line()}")
        self._note_session(link)
        if wait and not _within(ANSWERS_WITHIN, lambda: bool(_given(link))):
            self.stop(link)
            raise Failed(f"no DHCPv6 server answers on {link}")

    def stop(self, link: str) -> None:
        """End the client of a link, if there is one, and take from the link what it has given it."""
        pid = self._pid(link)
        if pid:
            self._end(link, pid)
        self._end_rest(link)
        _take(link)
        self._restore_generation(link)
        _remove(self._path("run", f"{link}-6.pid"))

    def _end(self, link: str, pid: int) -> None:
        """One that has just begun may miss what it is asked first."""
        for _ in range(ASKED_TO_END):
            _kill(pid, signal.SIGTERM)
            if _within(ENDS_WITHIN, lambda: not self._pid(link)):
                return
        _kill(pid, signal.SIGKILL)

    def _note_session(self, link: str) -> None:
        """A client is several processes, in a session of their own. When the first dies, the others may stay."""
        try:
            session_id = os.getsid(self._pid(link))
        except ProcessLookupError:
            return
        with open(self._path(f"{link}.session"), "w", encoding="ascii") as note:
            note.write(str(session_id))

    def _end_rest(self, link: str) -> None:
        """End what a client that has died has left. It does not listen to less than SIGKILL."""
        note = self._path(f"{link}.session")
        try:
            with open(note, encoding="ascii") as file:
                session_id = file.read()
        except FileNotFoundError:
            return
        for pid in filter(str.isdigit, os.listdir("/proc")):
            if _is_of(int(pid), session_id):
                _kill(int(pid), signal.SIGKILL)
        _remove(note)

    def _pid(self, link: str) -> int:
        """Return the pid of a client that runs, 0 when none does."""
        try:
            with open(self._path("run", f"{checked(link)}-6.pid"), encoding="ascii") as file:
                text = file.read().strip()
                try:
                    fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
                except BlockingIOError:
                    return int(text) if text.isdigit() else 0
        except FileNotFoundError:
            pass
        return 0

    def _prepare(self) -> str:
        """Make the places, and return that of the configuration."""
        for name, place in PLACES.items():
            os.makedirs(place, exist_ok=True)
            os.makedirs(self._path(name), exist_ok=True)
            os.chmod(self._path(name), 0o755)  # its own user has no way here but through the mount
        path = self._path("dhcpcd.conf")
        with open(f"{path}.new", "w", encoding="ascii") as file:
            file.write(CONFIGURATION)
        os.rename(f"{path}.new", path)
        return path

    def _note_generation(self, link: str) -> None:
        note = self._path(f"{link}.generation")
        if not os.path.exists(note):
            with open(GENERATION.format(link), encoding="ascii") as file, open(note, "w", encoding="ascii") as copy:
                copy.write(file.read())

    def _restore_generation(self, link: str) -> None:
        note = self._path(f"{link}.generation")
        try:
            with open(note, encoding="ascii") as file, open(GENERATION.format(link), "w", encoding="ascii") as setting:
                setting.write(file.read())
        except FileNotFoundError:
            pass  # it has had no client, or the link has gone
        _remove(note)

    def _path(self, *names: str) -> str:
        return os.path.join(self.folder, *names)


def _kill(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass  # it has ended meanwhile


def _is_of(pid: int, session_id: str) -> bool:
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:
            return file.read() == "dhcpcd\n" and str(os.getsid(pid)) == session_id
    except OSError:
        return False  # it has ended


def _given(link: str) -> list[str]:
    """Return the addresses that clients give a link: single ones, that end, and say nothing of their network."""
    with session(f"DHCPv6 on {link}") as kernel:
        found = kernel.find(link)
        told = [] if found is None else [each for each in kernel.addresses(found) if each["prefixlen"] == 128]
    flags = {each.get_attr("IFA_ADDRESS"): each.get_attr("IFA_FLAGS") or 0 for each in told}
    return [address for address, those in flags.items() if those & NO_PREFIX_ROUTE and not those & PERMANENT]


def _take(link: str) -> None:
    for address in _given(link):
        with session(f"DHCPv6 on {link}") as kernel:
            kernel.route.addr("del", index=kernel.must(link).number, address=address, prefixlen=128)


def _within(seconds: float, fact: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + seconds
    while not fact():
        if time.monotonic() > deadline:
            return False
        time.sleep(LOOK_EVERY)
    return True


def _remove(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
