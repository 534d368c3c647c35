"""Paths: what leads out of the allowed roots is refused, however it is written and whatever moves meanwhile."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from supervdsm.errors import ActionError, NotAllowed, NotFound
from supervdsm.places import below, magic, parent_below, private
from supervdsm.registry import Context
from tests.supervdsm.actions.place import UID, inside, mount_tmpfs

NOT_PLAIN = [
    "",
    "/",
    "relative",
    "{lib}",
    "{lib}/",
    "{lib}/.",
    "{lib}/..",
    "{lib}/../out",
    "{lib}/a/../../out",
    "{lib}//a",
    "{lib}/a/",
    "{lib}/./a",
    "{lib}x/a",
    "/etc/shadow",
    "{lib}/a\0b",
    "{lib}/a\nb",
    "{lib}/\ud800",
]


@pytest.mark.parametrize("path", NOT_PLAIN)
def test_what_is_not_plainly_below_a_root_is_refused(where: Context, path: str) -> None:
    with pytest.raises(NotAllowed):
        with below([where.lib_dir], path.replace("{lib}", where.lib_dir)):
            pass


def test_what_is_there_is_reached(where: Context) -> None:
    Path(where.lib_dir, "a").mkdir()
    Path(where.lib_dir, "a", "file").write_text("found")
    with below([where.repository, where.lib_dir], f"{where.lib_dir}/a/file") as fd:
        assert Path(magic(fd)).read_text() == "found"
    with parent_below([where.lib_dir], f"{where.lib_dir}/a/nothing") as (fd, name):
        assert (os.listdir(magic(fd)), name) == (["file"], "nothing")


def test_what_is_not_there_is_said(where: Context) -> None:
    with pytest.raises(NotFound, match="nothing"):
        with below([where.lib_dir], f"{where.lib_dir}/nothing/file"):
            pass
    with pytest.raises(ActionError):
        with below([where.lib_dir], f"{where.lib_dir}/{'x' * 300}"):
            pass


@pytest.mark.parametrize("target", ["/etc", "{lib}/inner", "inner"])
def test_no_link_is_followed_neither_last_nor_on_the_way(where: Context, target: str) -> None:
    Path(where.lib_dir, "inner").mkdir()
    Path(where.lib_dir, "inner", "passwd").touch()
    Path(where.lib_dir, "link").symlink_to(target.replace("{lib}", where.lib_dir))
    for path in ("link", "link/passwd"):
        with pytest.raises(NotAllowed, match="link is a link"):
            with below([where.lib_dir], f"{where.lib_dir}/{path}"):
                pass
    with pytest.raises(NotAllowed, match="link is a link"):
        with parent_below([where.lib_dir], f"{where.lib_dir}/link/passwd"):
            pass


def test_a_file_on_the_way_is_no_directory(where: Context) -> None:
    Path(where.lib_dir, "file").touch()
    with pytest.raises(NotAllowed):
        with below([where.lib_dir], f"{where.lib_dir}/file/more"):
            pass


def test_a_root_that_a_caller_has_replaced_by_a_link_is_refused(where: Context, tmp_path: Path) -> None:
    folder = tmp_path / "theirs"
    folder.mkdir()
    os.chown(folder, UID, UID)
    (folder / "place").symlink_to("/etc")
    with pytest.raises(NotAllowed, match="link"):
        with below([f"{folder}/place"], f"{folder}/place/passwd"):
            pass
    os.chown(folder / "place", UID, UID, follow_symlinks=False)
    with pytest.raises(NotAllowed, match="link"):
        with below([f"{folder}/place"], f"{folder}/place/passwd"):
            pass


def test_root_may_link_its_own_roots(where: Context, tmp_path: Path) -> None:
    Path(where.lib_dir, "file").touch()
    (tmp_path / "alias").symlink_to("lib")
    with below([f"{tmp_path}/alias"], f"{tmp_path}/alias/file") as fd:
        assert stat.S_ISREG(os.fstat(fd).st_mode)


def test_other_mounts_are_entered_when_asked_only(where: Context) -> None:
    def deed() -> None:
        place = Path(where.lib_dir, "mounted")
        place.mkdir()
        mount_tmpfs(place)
        (place / "file").touch()
        with below([where.lib_dir], f"{place}/file", other_mounts=True) as fd:
            assert stat.S_ISREG(os.fstat(fd).st_mode)
        for path in (str(place), f"{place}/file"):
            with pytest.raises(NotAllowed, match="mount point"):
                with below([where.lib_dir], path):
                    pass

    inside(deed)


def test_no_descriptor_stays_open(where: Context) -> None:
    before = os.listdir("/proc/self/fd")
    for path in ("a/b", "x", ".."):
        with pytest.raises(ActionError):
            with below([where.lib_dir], f"{where.lib_dir}/{path}"):
                pass
    assert os.listdir("/proc/self/fd") == before


@pytest.mark.parametrize("trap", ["link", "others", "open"])
def test_roots_own_directory_is_roots_alone(where: Context, tmp_path: Path, trap: str) -> None:
    assert stat.S_IMODE(os.stat(private(where)).st_mode) == 0o700
    os.rmdir(where.private_dir)
    if trap == "link":
        os.symlink(where.lib_dir, where.private_dir)
    else:
        os.mkdir(where.private_dir, 0o700)
        os.chmod(where.private_dir, 0o700 if trap == "others" else 0o755)
        os.chown(where.private_dir, UID if trap == "others" else 0, 0)
    with pytest.raises(NotAllowed):
        private(where)
