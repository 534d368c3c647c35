"""What is installed, as dpkg has written it down."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.host.hosts import Layout
from vdsmd.host.packages import STATUS, Packages, _package

ENTRIES = """\
Package: qemu-utils
Status: install ok installed
Priority: optional
Description: tools
 Version: not this
Version: 1:7.2+dfsg-7+deb12u5

Package: libspice-server1
Status: deinstall ok config-files
Version: 0.15.1-1

Package: other
Status: install ok installed
Version: 1
"""


def test_only_what_is_installed_is_told(tmp_path: Path) -> None:
    host = Layout(tmp_path)
    packages = Packages(host.files)
    assert packages.installed() == {}
    host.write(STATUS, ENTRIES)
    assert packages.installed() == {"qemu-img": {"version": "7.2", "release": "7+deb12u5", "buildtime": "0"}}
    host.write(STATUS, ENTRIES.replace("deinstall ok config-files", "install ok installed"))
    os.utime(tmp_path / STATUS.lstrip("/"), ns=(1, 1))
    assert set(packages.installed()) == {"qemu-img", "spice-server"}


def test_what_runs_says_its_version_itself(tmp_path: Path) -> None:
    host = Layout(tmp_path)
    host.write(STATUS, ENTRIES)
    told = Packages(host.files).beside({"qemu-img": {"version": "8.0", "release": "", "buildtime": "0"}})
    assert told == {"qemu-img": {"version": "8.0", "release": "7+deb12u5", "buildtime": "0"}}


@pytest.mark.parametrize(
    ("text", "version", "release"),
    [("9.0.0-4+deb12u2", "9.0.0", "4+deb12u2"), ("1:7.2+dfsg-7", "7.2", "7"), ("6.1", "6.1", ""), ("odd", "odd", "")],
)
def test_versions(text: str, version: str, release: str) -> None:
    assert _package(text) == {"version": version, "release": release, "buildtime": "0"}
