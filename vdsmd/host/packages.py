"""Packages: the releases of what runs guests, as the distribution has installed it.

Read from the text files of dpkg; a host without them tells of none. What runs already says of itself which release it is.
"""

from __future__ import annotations

import os
import re

from vdsmd.host.files import Files

STATUS = "/var/lib/dpkg/status"
NAMES = {
    "qemu-utils": "qemu-img",
    "qemu-system-x86": "qemu-kvm",
    "libspice-server1": "spice-server",
    "libvirt-daemon": "libvirt",
}
"""Debian's names, and those of the wire."""
ENTRY = re.compile(r"^Package: (\S+)\nStatus: install ok installed\n(?:.+\n)*?Version: (\S+)$", re.MULTILINE)
VERSION = re.compile(r"(?:\d+:)?([\d.]*\d)[^-]*-?(.*)")
"""What Debian calls 1:7.2+dfsg-7+deb12u5 is 7.2, release 7+deb12u5."""


class Packages:
    """Knows by the file's time whether anything has changed: there are thousands of lines in it."""

    def __init__(self, files: Files) -> None:
        self._files = files
        self._read_at = 0
        self._found: dict[str, dict[str, str]] = {}

    def installed(self) -> dict[str, dict[str, str]]:
        """Return version, release and time of building ('0': Debian does not say) by the names of the wire."""
        try:
            changed = os.stat(self._files.path(STATUS)).st_mtime_ns
        except OSError:
            return {}
        if changed != self._read_at:
            self._found = {NAMES[name]: _package(version) for name, version in self._entries()}
            self._read_at = changed
        return self._found

    def beside(self, running: dict[str, dict[str, str]]) -> dict[str, dict[str, str]]:
        """Return what is installed, under what is known of the `running` ones: those say best which version they are."""
        installed = self.installed()
        told = {name: {key: value for key, value in known.items() if value} for name, known in running.items()}
        names = {**running, **installed}
        return {name: {**running.get(name, {}), **installed.get(name, {}), **told.get(name, {})} for name in names}

    def _entries(self) -> list[tuple[str, str]]:
        return [entry for entry in ENTRY.findall(self._files.text(STATUS)) if entry[0] in NAMES]


def _package(text: str) -> dict[str, str]:
    found = VERSION.match(text)
    version, release = found.groups() if found else (text, "")
    return {"version": version, "release": release, "buildtime": "0"}
