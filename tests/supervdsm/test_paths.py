"""Directories of another user's, touched by root: no link leads it astray, and nothing of others is given away."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from supervdsm import paths

if os.geteuid() != 0:
    pytest.skip("only root has something to lose", allow_module_level=True)

USER = 65534


def where(fd: int) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{fd}")
    finally:
        os.close(fd)


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    """Give a directory of the user's."""
    place = tmp_path / "theirs"
    place.mkdir()
    os.chown(place, USER, USER)
    return place


def test_a_directory_is_reached(tmp_path: Path) -> None:
    assert where(paths.walk(f"{tmp_path}/./")) == str(tmp_path)
    assert where(paths.walk("/")) == "/"


def test_roots_own_links_are_followed(tmp_path: Path) -> None:
    (tmp_path / "real" / "deep").mkdir(parents=True)
    (tmp_path / "absolute").symlink_to(tmp_path / "real")
    (tmp_path / "relative").symlink_to("absolute/deep/..")
    with pytest.raises(OSError):
        paths.walk(f"{tmp_path}/missing")
    assert where(paths.walk(f"{tmp_path}/absolute/deep")) == f"{tmp_path}/real/deep"
    assert where(paths.walk(f"{tmp_path}/relative/deep")) == f"{tmp_path}/real/deep"


def test_links_of_others_are_not(theirs: Path, tmp_path: Path) -> None:
    (theirs / "link").symlink_to(tmp_path)
    with pytest.raises(PermissionError, match="a link that is not root's"):
        paths.walk(str(theirs / "link"))  # a link of root's, but in their directory: they may have moved it there
    os.chown(theirs / "link", USER, USER, follow_symlinks=False)
    with pytest.raises(PermissionError, match="a link that is not root's"):
        paths.walk(str(theirs / "link" / "below"), make=True)
    assert not (tmp_path / "below").exists()


def test_a_ring_of_links_ends(tmp_path: Path) -> None:
    (tmp_path / "one").symlink_to("two")
    (tmp_path / "two").symlink_to("one")
    with pytest.raises(PermissionError, match="too many links"):
        paths.walk(str(tmp_path / "one"))


def test_a_file_is_no_directory(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(NotADirectoryError):
            paths.walk(str(path))


def test_no_descriptor_is_left_open(theirs: Path) -> None:
    before = os.listdir("/proc/self/fd")
    for path in ("no/such", "../theirs/no"):
        with pytest.raises(OSError):
            paths.walk(str(theirs / path))
    os.close(paths.walk(str(theirs)))
    assert os.listdir("/proc/self/fd") == before


def test_a_missing_directory_is_made_for_its_user(tmp_path: Path) -> None:
    paths.provide(str(tmp_path / "a" / "b"), USER, USER)
    assert [(tmp_path / place).stat().st_uid for place in ("a", "a/b")] == [0, USER]
    assert stat.S_IMODE((tmp_path / "a" / "b").stat().st_mode) == 0o755
    (tmp_path / "a" / "b" / "file").touch()
    paths.provide(str(tmp_path / "a" / "b"), USER, USER)


def test_an_empty_one_of_roots_is_given(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    paths.provide(str(tmp_path / "empty"), USER, USER)
    assert (tmp_path / "empty").stat().st_uid == USER


@pytest.mark.parametrize("owner", [0, 1])
def test_nothing_else_is_given_away(tmp_path: Path, owner: int) -> None:
    (tmp_path / "full" / "more").mkdir(parents=True)
    os.chown(tmp_path / "full", owner, owner)
    with pytest.raises(PermissionError, match="is not empty: chown it, or choose another"):
        paths.provide(str(tmp_path / "full"), USER, USER)
    assert (tmp_path / "full").stat().st_uid == owner


@pytest.mark.parametrize("trap", ["link", "dangling", "hard link", "theirs", "fifo", "directory"])
def test_a_log_is_written_nowhere_else(theirs: Path, tmp_path: Path, trap: str) -> None:
    log, precious = theirs / "x.log", tmp_path / "precious"
    precious.write_text("precious")
    if trap == "link":
        log.symlink_to(precious)
    elif trap == "dangling":
        log.symlink_to(tmp_path / "new")
    elif trap == "hard link":
        log.hardlink_to(precious)
    elif trap == "theirs":
        log.touch()
        os.chown(log, USER, USER)
    elif trap == "fifo":
        os.mkfifo(log)
    else:
        log.mkdir()
    with pytest.raises(OSError):
        paths.open_log(str(theirs), "x.log")
    assert precious.read_text() == "precious" and not (tmp_path / "new").exists()


def test_a_log_of_roots_own_is_continued(theirs: Path) -> None:
    for _ in range(2):
        fd = paths.open_log(str(theirs), "x.log")
        os.write(fd, b"line\n")
        assert not os.get_inheritable(fd)
        os.close(fd)
    assert (theirs / "x.log").read_text() == "line\n" * 2
    assert (theirs / "x.log").stat().st_uid == 0
