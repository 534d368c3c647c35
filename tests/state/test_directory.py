"""Files of the state directory: whole or not there, and nothing deleted silently."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from state.directory import StateDirectory


def test_write_and_read(tmp_path: Path) -> None:
    directory = StateDirectory(str(tmp_path / "state"))
    assert directory.read("a") is None
    directory.write("a", b"1")
    directory.write("a", b"22", sync=True)
    assert directory.read("a") == b"22" and directory.names() == ["a"]
    assert (tmp_path / "state" / "a").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "state").stat().st_mode & 0o777 == 0o700
    directory.below("vm").write("b", b"3")
    assert (tmp_path / "state" / "vm" / "b").read_bytes() == b"3" and directory.names() == ["a"]
    directory.remove("a")
    directory.remove("a")
    assert directory.names() == []


def test_a_full_disk_leaves_the_old_file(tmp_path: Path) -> None:
    directory = StateDirectory(str(tmp_path))
    directory.write("a", b"old")
    os.symlink("/dev/full", tmp_path / "a.new")  # the kernel's own ENOSPC
    with pytest.raises(OSError, match="No space left"):
        directory.write("a", b"new")
    assert directory.read("a") == b"old" and not os.path.lexists(tmp_path / "a.new")


def test_an_unfinished_file_is_not_listed(tmp_path: Path) -> None:
    directory = StateDirectory(str(tmp_path))
    (tmp_path / "a.new").write_bytes(b"half")
    assert directory.names() == []


def test_set_aside_keeps_the_bytes_and_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    directory = StateDirectory(str(tmp_path))
    directory.write("a", b"damaged")
    directory.set_aside("a", "the checksum is wrong")
    assert directory.names() == [] and "reason=the checksum is wrong" in caplog.text
    (kept,) = tmp_path.glob("a.*.set-aside")
    assert kept.read_bytes() == b"damaged"
    directory.set_aside("nothing", "it is not there")
    assert "Cannot set aside" in caplog.text
