"""Logs that are rotated: a file that is moved away is followed by a new one, and no message is lost."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from supervdsm.log import LogFile as RootsLog
from vdsmd.log import LogFile

ROTATE = Path(__file__).parents[2] / "packaging" / "vdsmd.logrotate"

Say = Callable[[str], None]


@pytest.fixture(params=["vdsm.log", "supervdsm.log"])
def log(request: pytest.FixtureRequest) -> Iterator[Path]:
    """Give the path of a log, in a place that other users reach."""
    with tempfile.TemporaryDirectory(dir="/tmp") as base:
        os.chmod(base, 0o755)
        (Path(base) / "log").mkdir(mode=0o755)
        yield Path(base) / "log" / str(request.param)


@pytest.fixture
def say(log: Path) -> Say:
    handler: logging.Handler = LogFile(str(log)) if log.name == "vdsm.log" else RootsLog(str(log.parent))

    def say(text: str) -> None:
        handler.handle(logging.LogRecord("", logging.INFO, "", 0, text, None, None))

    return say


def test_a_file_that_is_moved_is_followed_by_a_new_one(log: Path, say: Say) -> None:
    say("one")
    log.rename(f"{log}.1")
    say("two")
    say("three")
    log.unlink()
    say("four")
    assert Path(f"{log}.1").read_text() == "one\n"
    assert log.read_text() == "four\n"


def test_without_a_place_for_a_new_one_the_old_one_goes_on(log: Path, say: Say) -> None:
    say("one")
    log.rename(f"{log}.1")
    log.mkdir()
    say("two")
    assert Path(f"{log}.1").read_text() == "one\ntwo\n"
    log.rmdir()
    say("three")
    assert log.read_text() == "three\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has something to lose")
@pytest.mark.parametrize("trap", ["link", "hard link", "theirs", "fifo", "link above"])
def test_root_follows_a_moved_file_to_none_that_somebody_else_has_put_there(tmp_path: Path, trap: str) -> None:
    folder, precious = tmp_path / "log", tmp_path / "precious"
    folder.mkdir()
    precious.write_text("precious")
    log = folder / "supervdsm.log"
    handler = RootsLog(str(folder))
    log.rename(folder / "moved")
    if trap == "link":
        log.symlink_to(precious)
    elif trap == "hard link":
        log.hardlink_to(precious)
    elif trap == "theirs":
        log.touch()
        os.chown(log, 65534, 65534)
    elif trap == "fifo":
        os.mkfifo(log)
        reader = os.open(log, os.O_RDONLY | os.O_NONBLOCK)  # or it could not be opened at all
    else:
        other = folder.rename(tmp_path / "other")
        (tmp_path / "elsewhere").mkdir()
        folder.symlink_to("elsewhere")
        os.chown(folder, 65534, 65534, follow_symlinks=False)
        folder = other
    handler.handle(logging.LogRecord("", logging.INFO, "", 0, "one", None, None))
    assert (folder / "moved").read_text() == "one\n" and precious.read_text() == "precious"
    assert not list(tmp_path.glob("elsewhere/*"))
    if trap == "fifo":
        assert os.read(reader, 10) == b""
        os.close(reader)
    handler.stream.close()


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="logrotate becomes another user")
@pytest.mark.skipif(shutil.which("logrotate") is None, reason="not installed: logrotate")
def test_logrotate_moves_it(log: Path, say: Say, tmp_path: Path) -> None:
    if log.name == "vdsm.log":
        log.touch()
        shutil.chown(log, "nobody", "nogroup")
    shutil.chown(log.parent, "nobody", "nogroup")
    rules = tmp_path / "rules"
    rules.write_text(
        ROTATE.read_text().replace("su vdsm kvm", "su nobody nogroup").replace("/var/log/vdsm", f"{log.parent}")
    )
    for text in ("one", "two", "three"):
        say(text)
        subprocess.run(["logrotate", "--force", "--state", tmp_path / "state", rules], check=True, capture_output=True)
    say("four")
    assert (log.read_text(), Path(f"{log}.1").read_text()) == ("four\n", "three\n")
    assert sorted(path.name for path in log.parent.iterdir()) == sorted(
        [log.name, f"{log.name}.1", *(f"{log.name}.{n}{'.gz' * (log.name == 'vdsm.log')}" for n in (2, 3))]
    )
