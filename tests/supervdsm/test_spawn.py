"""The helper as vdsmd's parent: what power the child has, and who is started again when."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from state.process import start_time
from tests.supervdsm.helper import PATIENCE, ROOT, Options
from tests.until import until

pytestmark = pytest.mark.slow

if os.geteuid() != 0:
    pytest.skip("only root can start the helper", allow_module_level=True)

NOBODY = 65534
# What a service manager does: descriptors from number 3 on, and who they are for.
LISTENING = """
import os, sys

number, *command = sys.argv[1:]
os.dup2(int(number), 3)
os.dup2(3, 4)
os.environ["LISTEN_PID"] = str(os.getpid())
os.execv(command[0], command)
"""


class Pair:
    """A helper and its vdsmd, which talks to libvirt's mock."""

    def __init__(
        self, options: Options, env: Mapping[str, str], code: Path, python: Path | None, listening: int | None
    ) -> None:
        self.base = Path(tempfile.mkdtemp(prefix="sp-", dir="/tmp"))
        self.base.chmod(0o755)
        self.run_dir, self.lib_dir, self.log_dir = (self.base / name for name in ("run", "lib", "log"))
        self.config, self.output = self.base / "vdsm.conf", self.base / "output"
        self.configure(options)
        command = [str(python or sys.executable), "-m", "supervdsm", "--spawn", "--config", str(self.config)]
        if listening is not None:
            command = [sys.executable, "-c", LISTENING, str(listening), *command]
        with self.output.open("ab") as output:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd=code,
                env={**os.environ, **env}, start_new_session=True, pass_fds=() if listening is None else (listening,),
            )  # fmt: skip

    def configure(self, options: Options) -> None:
        whole: dict[str, dict[str, object]] = {
            "vars": {"ssl": "false", "takeover_timeout": 120},
            "addresses": {"management_ip": "127.0.0.1", "management_port": 0},
            "paths": {
                "run_dir": self.run_dir, "lib_dir": self.lib_dir, "log_dir": self.log_dir, "repository": self.base / "repo",
            },
            "libvirt": {"uri": "test:///default", "virt_type": "qemu"},
            "supervdsm": {"user": "nobody", "group": "nogroup"},
        }  # fmt: skip
        for section, given in options.items():
            whole[section].update(given)
        lines = [
            f"[{name}]\n" + "".join(f"{key} = {value}\n" for key, value in keys.items()) for name, keys in whole.items()
        ]
        self.config.write_text("\n".join(lines), encoding="utf-8")

    def log(self) -> str:
        return self.output.read_text(encoding="utf-8", errors="replace")

    def endpoints(self) -> dict[str, Any]:
        if self.process.poll() is not None:
            pytest.fail(f"the helper has ended, status {self.process.returncode}")
        path = self.run_dir / "endpoints.json"
        assert path.exists()
        told: dict[str, Any] = json.loads(path.read_text())
        assert start_time(told["pid"]) is not None
        return told

    def serving(self, other_than: int = 0) -> int:
        """Wait until a vdsmd serves, another one than that; return its pid."""
        until(lambda: self.endpoints()["pid"] != other_than, PATIENCE, "vdsmd to serve")
        return int(self.endpoints()["pid"])

    def status(self, pid: int) -> dict[str, str]:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}

    def environment(self, pid: int) -> dict[str, str]:
        given = Path(f"/proc/{pid}/environ").read_bytes().decode().split("\0")
        return dict(line.split("=", 1) for line in given if line)

    def children(self) -> list[int]:
        return [
            int(pid) for pid in Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        ]

    def replace(self) -> None:
        before, refused = (self.log().count(said) for said in ("Replaced; going on", "Replacement refused"))
        os.kill(self.process.pid, signal.SIGHUP)

        def done() -> bool:
            if self.log().count("Replacement refused") > refused:
                pytest.fail("the replacement was refused; the log says why")
            return self.log().count("Replaced; going on") > before

        until(done, PATIENCE, "the helper to be replaced")

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        os.kill(self.process.pid, number)
        return self.process.wait(PATIENCE)

    def close(self) -> None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.terminate()
            self.process.wait(PATIENCE)
        self.process.kill()
        self.process.wait()
        for pid in _processes(str(self.config)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        until(lambda: not _processes(str(self.config)), PATIENCE, "everything to be gone")
        shutil.rmtree(self.base, ignore_errors=True)


def _processes(mark: str) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                if mark.encode() in (entry / "cmdline").read_bytes().split(b"\0"):
                    found.append(int(entry.name))
    return found


@pytest.fixture
def spawn(request: pytest.FixtureRequest) -> Iterator[Callable[..., Pair]]:
    """Give a function that starts a helper and its vdsmd: spawn(options, env={}, code=DIRECTORY)."""
    made: list[Pair] = []

    def start(
        options: Options | None = None,
        env: Mapping[str, str] | None = None,
        code: Path = ROOT,
        python: Path | None = None,
        listening: int | None = None,
    ) -> Pair:
        made.append(Pair(options or {}, env or {}, code, python, listening))
        return made[-1]

    try:
        yield start
    finally:
        for pair in made:
            print(pair.log())
            pair.close()


def test_vdsmd_has_none_of_roots_power(spawn: Callable[..., Pair]) -> None:
    pair = spawn(env={"SECRET_OF_ROOT": "1", "LC_TIME": "C", "NOTIFY_SOCKET": "", "VDSMD_STRIKE": "/none"})
    pid = pair.serving()
    told = pair.status(pid)
    assert {told["Uid"], told["Gid"]} == {"\t".join(["65534"] * 4)}
    assert told["Groups"].split() == ["65534"]
    assert {told[name].strip("0") for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {""}
    assert told["NoNewPrivs"] == "1"
    assert told["NSsid"] == str(pid), "root's terminal is not its own"
    env = pair.environment(pid)
    assert "SECRET_OF_ROOT" not in env
    assert (env["USER"], env["LC_TIME"], env["VDSMD_STRIKE"]) == ("nobody", "C", "/none")
    assert env["HOME"].startswith(f"{pair.lib_dir}/") and env["XDG_RUNTIME_DIR"].startswith(f"{pair.run_dir}/")
    assert (env["LISTEN_FDS"], env["LISTEN_FDNAMES"], env["LISTEN_PID"]) == ("1", "supervdsm", str(pid))
    assert os.readlink(f"/proc/{pid}/cwd") == "/"
    assert os.readlink(f"/proc/{pid}/fd/0") == "/dev/null"
    assert pair.children() == [pid]


def test_directories_are_the_users_and_the_log_is_roots(spawn: Callable[..., Pair]) -> None:
    pair = spawn()
    pair.serving()
    assert {path.stat().st_uid for path in (pair.run_dir, pair.lib_dir, pair.log_dir, pair.base / "repo")} == {NOBODY}
    assert (pair.log_dir / "supervdsm.log").stat().st_uid == 0
    assert (pair.log_dir / "vdsm.log").stat().st_uid == NOBODY
    assert not (pair.run_dir / "svdsm.sock").exists(), "no path is shared"


def test_a_vdsmd_that_dies_is_started_again(spawn: Callable[..., Pair]) -> None:
    pair = spawn()
    pid = pair.serving()
    os.kill(pid, signal.SIGKILL)
    fresh = pair.serving(other_than=pid)
    assert pair.children() == [fresh]
    assert pair.end() == 0
    assert start_time(fresh) is None


def test_a_vdsmd_that_is_asked_to_stop_ends_both(spawn: Callable[..., Pair]) -> None:
    pair = spawn()
    os.kill(pair.serving(), signal.SIGTERM)
    assert pair.process.wait(PATIENCE) == 0


def test_a_vdsmd_that_always_dies_is_given_up(spawn: Callable[..., Pair]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        pair = spawn({"addresses": {"management_port": port}, "supervdsm": {"restarts": 2}})
        assert pair.process.wait(PATIENCE) == 1
    assert "it has died 3 times in a row, and is given up" in pair.log()
    assert pair.log().count("Started vdsmd") == 3


def test_a_configuration_that_vdsmd_refuses_is_not_tried_again(spawn: Callable[..., Pair]) -> None:
    pair = spawn({"vars": {"ssl": "perhaps"}})
    assert pair.process.wait(PATIENCE) == 2
    assert "ssl = perhaps: expected true or false" in pair.log()
    assert pair.log().count("Started vdsmd") == 1


def test_a_helper_that_is_replaced_keeps_its_vdsmd(spawn: Callable[..., Pair]) -> None:
    pair = spawn()
    pid = pair.serving()
    for _ in range(3):
        pair.replace()
    assert pair.serving() == pid
    assert pair.children() == [pid]
    os.kill(pid, signal.SIGKILL)
    pair.serving(other_than=pid)
    assert pair.end() == 0


def test_usr2_has_vdsmd_replaced(spawn: Callable[..., Pair]) -> None:
    pair = spawn()
    pid = pair.serving()
    os.kill(pair.process.pid, signal.SIGUSR2)
    until(lambda: pair.endpoints()["generation"] == 1, PATIENCE)
    assert pair.serving() == pid


def test_descriptors_of_the_service_manager_are_passed_on(spawn: Callable[..., Pair]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as given:
        pair = spawn(env={"LISTEN_FDS": "2", "LISTEN_FDNAMES": "first:second"}, listening=given.fileno())
        pid = pair.serving()
        env = pair.environment(pid)
        assert (env["LISTEN_FDS"], env["LISTEN_FDNAMES"], env["LISTEN_PID"]) == (
            "3",
            "first:second:supervdsm",
            str(pid),
        )
        os.kill(pid, signal.SIGKILL)
        pair.replace()
        fresh = pair.serving(other_than=pid)
        assert pair.environment(fresh)["LISTEN_FDNAMES"] == "first:second:supervdsm", "the next one gets them, too"


def test_vdsmd_tells_the_service_manager_itself(spawn: Callable[..., Pair]) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager, tempfile.TemporaryDirectory(dir="/tmp") as folder:
        Path(folder).chmod(0o755)
        manager.bind(f"{folder}/notify")
        Path(f"{folder}/notify").chmod(0o777)
        manager.settimeout(PATIENCE)
        pair = spawn(env={"NOTIFY_SOCKET": f"{folder}/notify", "WATCHDOG_USEC": "600000000", "WATCHDOG_PID": "1"})
        pid = pair.serving()
        assert pair.environment(pid)["WATCHDOG_PID"] == str(pid)
        until(lambda: b"READY=1" in manager.recv(4096), PATIENCE)


@pytest.mark.slow
@pytest.mark.parametrize("hidden", ["code", "everything"])
def test_code_that_the_user_cannot_read_is_copied(spawn: Callable[..., Pair], tmp_path: Path, hidden: str) -> None:
    place = tmp_path / "checkout"
    for package in ("vdsmd", "state", "drivers", "supervdsm"):
        shutil.copytree(ROOT / package, place / package)
    env = {"PYTHONPATH": str(place)}
    if hidden == "everything":
        # A virtual environment as small as can be: the libraries are this one's.
        base = os.path.realpath(sys.executable)
        subprocess.run([base, "-m", "venv", "--without-pip", "--system-site-packages", place / "v"], check=True)
        site = next((place / "v" / "lib").iterdir()) / "site-packages"
        ours = next((Path(sys.prefix) / "lib").iterdir()) / "site-packages"
        for library in ("msgspec", "httptools", "psutil", "lxml"):
            if (ours / library).exists():  # otherwise the system has it, for both
                shutil.copytree(ours / library, site / library)
    tmp_path.chmod(0o700)
    pair = spawn(env=env, code=place, python=place / "v" / "bin" / "python" if hidden == "everything" else None)
    pid = pair.serving()
    current = pair.lib_dir / "release" / "current"
    env = pair.environment(pid)
    assert env["PYTHONPATH"] == str(current)
    assert str(place) not in Path(f"/proc/{pid}/cmdline").read_text() + str(env)
    copy = current.resolve()
    assert (copy.stat().st_uid, (copy / "vdsmd" / "__main__.py").stat().st_uid) == (0, 0)
    (place / "vdsmd" / "loop.py").write_text((place / "vdsmd" / "loop.py").read_text() + "\nNEW = 1\n")
    pair.replace()
    assert current.resolve() != copy and "NEW = 1" in (current / "vdsmd" / "loop.py").read_text()
    os.kill(pid, signal.SIGHUP)
    until(lambda: pair.endpoints()["generation"] == 1, PATIENCE)
    assert pair.serving() == pid
    assert pair.end() == 0


def test_a_configuration_that_the_user_cannot_read_is_refused(spawn: Callable[..., Pair]) -> None:
    pair = spawn()
    pair.serving()
    pair.end()
    pair.config.chmod(0o600)
    command = [sys.executable, "-m", "supervdsm", "--spawn", "--config", str(pair.config)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=PATIENCE)
    assert run.returncode == 2
    assert f"{pair.config} cannot be read by user nobody" in run.stderr
