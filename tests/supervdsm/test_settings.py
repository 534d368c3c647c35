"""The helper's configuration."""

from __future__ import annotations

import os
import pwd
import subprocess
import sys
from pathlib import Path

import pytest

from supervdsm.settings import ConfigError, load
from tests.supervdsm.helper import ROOT


def written(tmp_path: Path, text: str) -> str:
    path = tmp_path / "vdsm.conf"
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_defaults_are_the_daemons(tmp_path: Path) -> None:
    told = load(written(tmp_path, "[supervdsm]\nuser = nobody\n"))
    assert (told.context.user, told.context.uid) == ("nobody", 65534)
    assert (told.context.run_dir, told.context.repository) == ("/var/run/vdsm", "/rhev/data-center")
    assert told.context.gid in told.groups


def test_all_can_be_set(tmp_path: Path) -> None:
    ours = "[supervdsm]\nuser = nobody\ngroup = daemon\nwatchdog = 7.5\nrestarts = 3\n"
    told = load(written(tmp_path, f"[vars]\nssl = false\n[paths]\nrun_dir = /a\n{ours}"))
    assert (told.context.run_dir, told.context.gid, told.watchdog, told.restarts) == ("/a", 1, 7.5, 3)
    assert {1, pwd.getpwnam("nobody").pw_gid} <= set(told.groups)


def test_a_helper_of_the_daemons_own_works_for_itself(tmp_path: Path) -> None:
    told = load(written(tmp_path, "[supervdsm]\nuser = no-such-user\n"), own=True)
    assert (told.context.uid, told.context.gid) == (os.getuid(), os.getgid())


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[supervdsm]\nuser = no-such-user\n", "[supervdsm] user = no-such-user: there is no such user: make it"),
        ("[supervdsm]\nuser = nobody\ngroup = no-such\n", "[supervdsm] group = no-such: there is no such group"),
        ("[supervdsm]\nuser = nobody\nwatchdog = soon\n", "[supervdsm] watchdog = soon: expected a number above 0"),
        ("[supervdsm]\nuser = nobody\nrestarts = 1.5\n", "[supervdsm] restarts = 1.5: expected a number"),
        ("[supervdsm]\nuser = nobody\nrestarts = 0\n", "[supervdsm] restarts = 0: expected a number"),
        ("[supervdsm]\nuser = nobody\nwatchdog = inf\n", "expected a number"),
        ("[supervdsm]\nuser = nobody\n[paths]\nrun_dir = run\n", "[paths] run_dir = run: expected an absolute path"),
        ("[supervdsm]\nuser = nobody\n[paths]\nlib_dir = /a/../etc\n", "expected an absolute path without .."),
        ("user = nobody\n", "no section headers"),
    ],
)
def test_an_error_names_what_is_wrong(tmp_path: Path, text: str, complaint: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        load(path)
    assert complaint in str(caught.value)
    assert str(caught.value).startswith(path)


def test_a_file_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        load(str(tmp_path / "none.conf"))


@pytest.mark.skipif(os.geteuid() != 0, reason="a file cannot be given away")
@pytest.mark.parametrize(("uid", "gid", "mode"), [(65534, 0, 0o644), (0, 65534, 0o664), (0, 0, 0o646)])
def test_a_file_that_others_can_write_says_nothing(tmp_path: Path, uid: int, gid: int, mode: int) -> None:
    path = written(tmp_path, "[supervdsm]\nuser = nobody\n")
    os.chown(path, uid, gid)
    os.chmod(path, mode)
    with pytest.raises(ConfigError, match="can be written by others than root"):
        load(path)


def supervdsm(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "supervdsm", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)


def test_the_command_line_tells_errors_by_its_status(tmp_path: Path) -> None:
    good = written(tmp_path, "[supervdsm]\nuser = nobody\n")
    assert supervdsm("--config", good, "--check").returncode == 0
    wrong = supervdsm("--config", str(tmp_path / "none.conf"), "--check")
    assert (wrong.returncode, "No such file" in wrong.stderr, "Traceback" in wrong.stderr) == (2, True, False)
    assert supervdsm("--spawn", "--fd", "3").returncode == 2
    told = supervdsm("--help")
    assert told.returncode == 0 and "signals:" in told.stdout and "--spawn" in told.stdout


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can start the helper")
def test_a_descriptor_that_is_no_socket_is_an_error(tmp_path: Path) -> None:
    told = supervdsm("--config", written(tmp_path, f"[paths]\nlog_dir = {tmp_path}\n"), "--fd", "77")
    assert (told.returncode, "Traceback" in told.stderr) == (1, False)
    assert "supervdsm: cannot start:" in told.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="there is nothing to give up")
def test_root_as_the_user_is_no_reason_to_spawn(tmp_path: Path) -> None:
    places = "".join(f"{name} = {tmp_path / name}\n" for name in ("run_dir", "lib_dir", "log_dir", "repository"))
    told = supervdsm("--config", written(tmp_path, f"[supervdsm]\nuser = root\n[paths]\n{places}"), "--spawn")
    assert told.returncode == 1 and "no point in --spawn" in told.stderr
