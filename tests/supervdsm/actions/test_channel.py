"""Channels of guests: the daemon's group may use their sockets, and nothing else."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from supervdsm.errors import Invalid, NotAllowed, NotFound
from supervdsm.registry import Context
from tests.supervdsm.actions.place import GID, call

VM = "11111111-1111-4111-8111-111111111111"
NAME = "com.redhat.rhevm.vdsm"


@pytest.fixture
def folder(where: Context, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = Path(where.run_dir, "channels")
    folder.mkdir(parents=True)
    # A socket's path must be short: it is bound by its name alone.
    monkeypatch.chdir(folder)
    return folder


def test_a_socket_may_be_used_by_the_group(where: Context, folder: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{VM}.{NAME}")
        path = folder / f"{VM}.{NAME}"
        path.chmod(0o700)
        before = path.stat()
        assert call(where, "channel.admit", vm_id=VM, channel=NAME) is True
        after = path.stat()
    assert (after.st_uid, after.st_gid, after.st_mode & 0o777) == (before.st_uid, GID, 0o760)


def test_what_is_no_socket_stays_as_it_is(where: Context, folder: Path) -> None:
    secret = folder.parent / "secret"
    secret.touch(0o600)
    (folder / f"{VM}.file").touch(0o600)
    os.symlink(secret, folder / f"{VM}.link")
    with socket.socket(socket.AF_UNIX) as other:
        # As of another service of this host, where the kernel lets links to it be made.
        other.bind("../other")
        os.link("../other", f"{VM}.other")
    for name in ("file", "link", "other"):
        with pytest.raises(NotAllowed):
            call(where, "channel.admit", vm_id=VM, channel=name)
    assert (folder.parent / "other").stat().st_gid != GID
    assert secret.stat().st_mode & 0o777 == 0o600
    assert (folder / f"{VM}.file").stat().st_mode & 0o777 == 0o600


def test_what_is_not_there_or_elsewhere(where: Context, folder: Path) -> None:
    with pytest.raises(NotFound):
        call(where, "channel.admit", vm_id=VM, channel=NAME)
    for vm_id, name in ((VM, "x/../../secret"), ("..", "/../secret"), (VM, "a\0b")):
        with pytest.raises(Invalid):
            call(where, "channel.admit", vm_id=vm_id, channel=name)
