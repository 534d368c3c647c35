"""What can be done in a directory of storage: the same by a real helper as without one."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from drivers.errors import Failed
from drivers.storage.helpers.files import Files
from tests.drivers.storage.stand import Direct, Stand

OUT = "outside.txt"


@pytest.fixture(scope="module")
def stand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    stand = Stand(tmp_path_factory.mktemp("stand"))
    yield stand
    stand.close()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Return a directory with something beside it that nobody may touch."""
    (tmp_path / OUT).write_text("keep")
    inside = tmp_path / "domain"
    inside.mkdir()
    return inside


@pytest.fixture(params=["helper", "direct"])
def files(request: pytest.FixtureRequest, root: Path, stand: Stand) -> Iterator[Files]:
    if request.param == "direct":
        yield Files(Direct(root))
        return
    key = f"test/{id(root)}"
    yield Files(stand.get(root, key))
    stand.remotes.drop(key)


def test_write_and_read(files: Files, root: Path) -> None:
    files.write("a", b"one", mode=0o640)
    files.write("a", b"another" * 100_000)
    assert files.read("a") == b"another" * 100_000
    assert files.read("a", 7, 3) == b"ano"
    assert stat.S_IMODE((root / "a").stat().st_mode) == 0o660
    assert os.listdir(root) == ["a"]


def test_create_is_for_what_is_new(files: Files, root: Path) -> None:
    files.create("a", b"head", size=1 << 20, mode=0o660)
    with pytest.raises(FileExistsError):
        files.create("a")
    found = files.stat("a")
    assert (found.kind, found.size, found.mode) == ("file", 1 << 20, 0o660)
    assert found.allocated < 1 << 20
    files.patch("a", 4096, b"body")
    files.truncate("a", 4098)
    assert files.read("a")[4090:] == b"\0" * 6 + b"bo"


def test_directories(files: Files, root: Path) -> None:
    files.make_directory("a/b/c", parents=True)
    files.make_directory("a/b/c", parents=True)
    with pytest.raises(FileExistsError):
        files.make_directory("a")
    assert files.stat("a/b").mode == 0o775
    with pytest.raises(OSError, match="not empty"):
        files.remove_directory("a/b")
    files.create("a/b/c/file")
    files.create("a/other")
    assert files.names("a") == ["b", "other"]
    assert {name: found.kind for name, found in files.scan("a").items()} == {"b": "directory", "other": "file"}
    files.remove_tree("a")
    files.remove_tree("a")
    assert not files.exists("a")
    assert not files.exists("a/b")


def test_many_at_once(files: Files, root: Path) -> None:
    files.create("a", b"1")
    files.create("b", b"22")
    assert files.read_many(["a", "gone", "b"], 1) == [b"1", None, b"2"]


def test_names_that_move(files: Files, root: Path) -> None:
    files.create("a", b"a")
    files.create("b", b"b")
    with pytest.raises(FileExistsError):
        files.rename("a", "b", replace=False)
    files.rename("a", "b")
    files.link("b", "c")
    assert files.stat("c").links == 2
    files.make_link("l", "/nowhere/at/all")
    assert files.read_link("l") == "/nowhere/at/all"
    assert files.stat("l").kind == "link"
    files.remove_file("l")
    files.change_mode("c", 0o600)
    assert files.stat("b").mode == 0o600
    assert files.may("c", "rw")
    assert files.space().total >= files.space().free > 0


def test_find(files: Files, root: Path) -> None:
    files.make_directory("sub")
    for name in ("One.ISO", "two.iso", "sub/three.iso", "four.vfd"):
        files.create(name)
    (root / "link.iso").symlink_to("two.iso")
    (root / "out.iso").symlink_to(f"../{OUT}")
    (root / "far.iso").symlink_to("/etc/passwd")
    (root / "around").symlink_to(".")
    os.mkfifo(root / "pipe.iso")
    assert sorted(files.find("", "*.iso", ignore_case=True)) == ["One.ISO", "link.iso", "sub/three.iso", "two.iso"]
    assert sorted(files.find("", "*.iso")) == ["link.iso", "sub/three.iso", "two.iso"]


def test_direct_input_and_output(files: Files, root: Path) -> None:
    assert files.try_direct() in (True, False)
    assert (root / "__DIRECT_IO_TEST__").stat().st_size == 4096


WAYS_OUT = [f"../{OUT}", "../domain/../" + OUT, "up/" + OUT, "hop/" + OUT, "link", "/etc/passwd", "a/../../" + OUT]


@pytest.mark.parametrize("path", WAYS_OUT)
@pytest.mark.parametrize(
    "deed",
    [
        lambda files, path: files.read(path),
        lambda files, path: files.patch(path, 0, b"x"),
        lambda files, path: files.truncate(path, 0),
        lambda files, path: files.change_mode(path, 0o777),
        lambda files, path: files.names(path),
        lambda files, path: files.may(path, "r"),
    ],
    ids=["read", "patch", "truncate", "chmod", "names", "may"],
)
def test_nothing_leads_out(files: Files, root: Path, path: str, deed: Any) -> None:
    (root / "a").mkdir()
    (root / "up").symlink_to("..")
    (root / "hop").symlink_to(root.parent)
    (root / "link").symlink_to(f"../{OUT}")
    with pytest.raises(OSError) as caught:
        deed(files, path)
    assert caught.value.errno == errno.EXDEV
    assert (root.parent / OUT).read_text() == "keep"


@pytest.mark.parametrize("path", [f"../{OUT}", f"up/{OUT}", "..", ".", "", "a/..", "a/", "a\0b"])
@pytest.mark.parametrize(
    "deed",
    [
        lambda files, path: files.write(path, b"x"),
        lambda files, path: files.create(path),
        lambda files, path: files.remove_file(path),
        lambda files, path: files.remove_tree(path),
        lambda files, path: files.make_directory(path),
        lambda files, path: files.rename("a", path),
        lambda files, path: files.link("b", path),
        lambda files, path: files.make_link(path, "x"),
    ],
    ids=["write", "create", "unlink", "rmtree", "mkdir", "rename", "link", "symlink"],
)
def test_nothing_is_made_or_removed_outside(files: Files, root: Path, path: str, deed: Any) -> None:
    (root / "a").mkdir()
    (root / "b").touch()
    (root / "up").symlink_to("..")
    with pytest.raises(OSError):
        deed(files, path)
    assert sorted(os.listdir(root.parent)) == ["domain", OUT]
    assert sorted(os.listdir(root)) == ["a", "b", "up"]


def test_a_link_is_replaced_and_not_followed(files: Files, root: Path) -> None:
    (root / "file").symlink_to(f"../{OUT}")
    (root / "tree").symlink_to("..")
    files.write("file", b"new")
    assert (root / "file").read_text() == "new"
    assert not (root / "file").is_symlink()
    (root / "other.new").symlink_to(f"../{OUT}")
    files.write("other", b"new")
    files.remove_tree("tree")
    assert (root.parent / OUT).read_text() == "keep"


def test_a_write_that_fails_leaves_the_old_file(files: Files, root: Path) -> None:
    """On a file system with no room left."""
    if os.geteuid():
        pytest.skip("only root can mount")
    mounted = root / "small"
    mounted.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", mounted], check=True)
    try:
        files.write("small/a", b"old")
        with pytest.raises(OSError, match="No space"):
            files.write("small/a", b"x" * (1 << 20))
        with pytest.raises(OSError, match="No space"):
            files.create("small/b", b"x" * (1 << 20))
        assert files.read("small/a") == b"old"
        assert files.names("small") == ["a"]
        subprocess.run(["mount", "-o", "remount,ro", mounted], check=True)
        with pytest.raises(OSError, match="Read-only"):
            files.write("small/a", b"new")
        with pytest.raises(OSError, match="Read-only"):
            files.remove_tree("small/a")
        assert files.read("small/a") == b"old"
    finally:
        subprocess.run(["umount", mounted], check=True)


def test_names_that_are_no_text_are_passed_over(files: Files, root: Path) -> None:
    (root / "fine").touch()
    os.close(os.open(os.fsencode(root) + b"/\xff\xfe", os.O_CREAT))
    assert files.names() == ["fine"]
    assert list(files.scan()) == ["fine"]
    assert list(files.find("", "*")) == ["fine"]


def test_what_is_asked_wrongly_costs_only_that_call(stand: Stand, root: Path) -> None:
    directory = stand.get(root, "wrong")
    with pytest.raises(Failed, match="KeyError"):
        directory.call("no_such_deed")
    with pytest.raises(Failed, match="TypeError"):
        directory.call("read", nonsense=1)
    assert Files(directory).names() == []
