"""Chown: what is the storage's is given away, and nothing that a caller leads us to."""

from __future__ import annotations

import os
import socket
import threading
from pathlib import Path

import pytest

from supervdsm.errors import NotAllowed, NotFound
from supervdsm.registry import Context
from tests.supervdsm.actions.place import GID, UID, call, inside, mount_tmpfs


def _owner(path: Path | str) -> tuple[int, int]:
    status = os.lstat(path)
    return status.st_uid, status.st_gid


def test_a_file_and_a_directory_are_given_to_the_user(where: Context) -> None:
    place = Path(where.repository, "mnt", "domain")
    place.mkdir()
    (place / "file").touch()
    for path in (place, place / "file"):
        assert call(where, "ownership.chown", path=str(path)) is True
        assert call(where, "ownership.chown", path=str(path)) is False
        assert _owner(path) == (UID, GID)


def test_what_is_mounted_below_the_repository_is_entered(where: Context) -> None:
    def deed() -> None:
        place = Path(where.repository, "mnt", "domain")
        place.mkdir()
        mount_tmpfs(place)
        assert call(where, "ownership.chown", path=str(place))
        assert _owner(place) == (UID, GID)

    inside(deed)


@pytest.mark.parametrize("path", ["/etc/passwd", "{repository}", "{repository}/../run", "{run}/x", "{lib}/x"])
def test_other_places_are_refused(where: Context, path: str) -> None:
    named = (
        path.replace("{repository}", where.repository).replace("{run}", where.run_dir).replace("{lib}", where.lib_dir)
    )
    with pytest.raises(NotAllowed):
        call(where, "ownership.chown", path=named)


def test_what_does_not_exist_is_said(where: Context) -> None:
    with pytest.raises(NotFound):
        call(where, "ownership.chown", path=f"{where.repository}/nothing")


def test_links_special_files_and_dangerous_modes_are_refused(where: Context, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.touch()
    lib = Path(where.repository)
    (lib / "mnt").rmdir()
    (lib / "symbolic").symlink_to(victim)
    (lib / "hard").hardlink_to(victim)
    os.mkfifo(lib / "fifo")
    os.mknod(lib / "device", 0o600 | 0o060000, os.makedev(1, 1))
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(lib / "socket"))
    for name, mode in (("setuid", 0o4755), ("setgid", 0o2755)):
        (lib / name).touch()
        (lib / name).chmod(mode)
    for path in lib.iterdir():
        with pytest.raises(NotAllowed):
            call(where, "ownership.chown", path=str(path))
        assert _owner(path) == (0, 0), path
    assert _owner(victim) == (0, 0)


def test_a_name_that_is_swapped_all_the_time_never_leads_out(where: Context, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "file").touch()
    here, theirs, link = (Path(where.repository, name) for name in ("here", "theirs", "link"))
    theirs.mkdir()
    (theirs / "file").touch()
    stop = threading.Event()

    def swap() -> None:
        while not stop.is_set():
            link.symlink_to(victim)
            link.rename(here)
            here.unlink()
            theirs.rename(here)
            here.rename(theirs)

    swapper = threading.Thread(target=swap)
    swapper.start()
    try:
        for _ in range(1000):
            for path in (here, here / "file"):
                try:
                    call(where, "ownership.chown", path=str(path))
                except (NotAllowed, NotFound):
                    pass
    finally:
        stop.set()
        swapper.join()
    assert _owner(victim) == _owner(victim / "file") == (0, 0)
