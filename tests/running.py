"""A daemon under test: its configuration, its process, and what it leaves in its directories.

It promises that nothing outlives the test: processes are found by the stage's directory on their command lines, and
ended by their pid.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import xmlrpc.client
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.until import until

PATIENCE = 120.0
"""Seconds until a daemon that does not do its part has failed. Long, because machines that run tests are busy."""

Options = Mapping[str, Mapping[str, object]]


class Running:
    """One daemon. `pid`, `config` (path of its configuration) and the directories are facts; the rest asks it."""

    def __init__(
        self,
        base: Path,
        options: Options,
        env: Mapping[str, str],
        launcher: Sequence[str] = (),
        pass_fds: Sequence[int] = (),
        *,
        spawned: bool = False,
    ) -> None:
        self.base = base
        self.run_dir, self.lib_dir, self.log_dir = base / "run", base / "lib", base / "log"
        self.config = base / "vdsm.conf"
        self.output = base / "output"
        self.configure(options)
        self.spawned = spawned
        program = ["supervdsm", "--spawn"] if spawned else ["vdsmd"]
        with self.output.open("ab") as output:
            self.process = subprocess.Popen(
                [*launcher, sys.executable, "-m", *program, "--config", str(self.config)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd="/",
                env={**os.environ, **env},
                start_new_session=True,
                pass_fds=pass_fds,
            )

    @property
    def pid(self) -> int:
        """The daemon's process: the one that was started, or with `spawned`, the child of it that is there now."""
        if not self.spawned:
            return self.process.pid
        told: int = json.loads((self.run_dir / "endpoints.json").read_text(encoding="utf-8"))["pid"]
        return told

    def configure(self, options: Options) -> None:
        """Write the configuration anew. The daemon reads it on its next re-exec or reload."""
        lines = []
        for section, keys in options.items():
            lines += [f"[{section}]", *(f"{key} = {value}" for key, value in keys.items()), ""]
        self.config.write_text("\n".join(lines), encoding="utf-8")

    def alive(self) -> bool:
        return self.process.poll() is None

    def endpoints(self) -> dict[str, Any]:
        """Return what endpoints.json says. Fails the test when the daemon has ended."""
        if not self.alive():
            pytest.fail(f"the daemon has ended, status {self.process.returncode}:\n{self.log()}")
        path = self.run_dir / "endpoints.json"
        assert path.exists(), f"{path} is not there yet"
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        holder = parent_of(found["pid"]) if self.spawned else found["pid"]
        assert holder == self.process.pid, f"{path} is another daemon's"
        return found

    def serving(self) -> Running:
        """Wait until it serves."""
        until(self.endpoints, PATIENCE, "the daemon to serve")
        return self

    @property
    def generation(self) -> int:
        return int(self.endpoints()["generation"])

    @property
    def port(self) -> int:
        return int(self.endpoints()["xmlrpc"]["port"])

    @property
    def url(self) -> str:
        scheme = "https" if self.endpoints()["xmlrpc"]["ssl"] else "http"
        return f"{scheme}://127.0.0.1:{self.port}/RPC2"

    @property
    def socket(self) -> str:
        return str(self.endpoints()["socket"])

    def proxy(self) -> xmlrpc.client.ServerProxy:
        """Return a stock client. It repeats a call once when a connection drops: no good for counting lost answers."""
        return xmlrpc.client.ServerProxy(self.url, allow_none=False)

    def call(self, verb: str, *arguments: Any) -> dict[str, Any]:
        """Call a verb on a connection of its own, and return the whole reply, envelope included."""
        with self.proxy() as proxy:
            reply: dict[str, Any] = getattr(proxy, verb)(*arguments)
        return reply

    def must(self, verb: str, *arguments: Any) -> dict[str, Any]:
        """Call a verb that must succeed."""
        reply = self.call(verb, *arguments)
        assert reply["status"]["code"] == 0, f"{verb}: {reply['status']}"
        return reply

    def reexec(self) -> int:
        """Have it re-exec, wait until it serves again, and return its new generation."""
        before, asked = self.generation, self._outcome()["number"]
        os.kill(self.pid, signal.SIGHUP)
        until(lambda: self._moved_on(before, asked), PATIENCE, f"generation {before + 1}")
        return self.generation

    def _outcome(self) -> dict[str, Any]:
        outcome: dict[str, Any] = self.must("vdsmd.status")["info"]["reexec"]
        return outcome

    def _moved_on(self, before: int, asked: int) -> bool:
        if self.generation > before:
            return True
        outcome = self._outcome()
        if outcome["number"] > asked and outcome["state"] in ("refused", "cancelled"):
            pytest.fail(f"the re-exec was {outcome['state']}: {outcome['reason']}")
        return False

    def console(self, vm_id: str) -> Path:
        return self.log_dir / "console" / f"{vm_id}.log"

    def log(self) -> str:
        """Return all that it has written: its output and its logs."""
        files = [self.output, *sorted(self.log_dir.glob("*.log"))]
        return "\n".join(f"== {path}\n{path.read_text(errors='replace')}" for path in files if path.exists())

    def stop(self) -> int:
        """End it with SIGTERM and return its exit status. Its guests run on."""
        return self.end(signal.SIGTERM)

    def kill(self) -> int:
        """End it as a crash would."""
        return self.end(signal.SIGKILL)

    def end(self, number: signal.Signals) -> int:
        """End what was started with a signal and return its exit status. Guests run on."""
        if self.alive():
            os.kill(self.process.pid, number)
        try:
            return self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"the daemon did not end on {number.name}") from None


class Stage:
    """A directory for daemons. Its path is short: a Unix socket's may have 107 bytes, and libvirt's lie deep."""

    def __init__(self) -> None:
        self.base = Path(tempfile.mkdtemp(prefix="vd-", dir="/tmp"))
        self.base.chmod(0o755)  # QEMU may run as another user
        self.daemons: list[Running] = []

    def start(
        self,
        uri: str = "test:///default",
        config: Options | None = None,
        env: Mapping[str, str] | None = None,
        *,
        again: Running | None = None,
        wait: bool = True,
        launcher: Sequence[str] = (),
        pass_fds: Sequence[int] = (),
        spawned: bool = False,
    ) -> Running:
        """Start a daemon, in a place of its own or, with `again`, in that of one that has ended; wait until it serves.

        `launcher`: a command that gets the daemon's as its arguments, and `pass_fds`, and becomes the daemon by exec.
        `spawned`: start the helper as root, which starts the daemon as an ordinary user.
        """
        base = again.base if again else self.base / str(len(self.daemons))
        base.mkdir(exist_ok=True)
        daemon = Running(base, self.options(base, uri, config or {}), env or {}, launcher, pass_fds, spawned=spawned)
        self.daemons.append(daemon)
        return daemon.serving() if wait else daemon

    def options(self, base: Path, uri: str, config: Options) -> Options:
        """Return a whole configuration: everything under `base`, no TLS, any free port, and `config` on top."""
        options: dict[str, dict[str, object]] = {
            # Machines that run tests are busy: a run that is slow is not one that hangs.
            "vars": {"ssl": "false", "takeover_timeout": 120},
            "addresses": {"management_ip": "127.0.0.1", "management_port": 0},
            "paths": {
                "run_dir": base / "run",
                "lib_dir": base / "lib",
                "log_dir": base / "log",
                "repository": base / "repo",
            },
            "libvirt": {"uri": uri, "virt_type": "qemu"},
        }
        if uri == "embed":
            options["libvirt"]["uri"] = f"qemu:///embed?root={base}/lib/libvirt"
        for section, keys in config.items():
            options.setdefault(section, {}).update(keys)
        return options

    def clear(self, *, tell: bool) -> None:
        """End what runs here and remove the directory. Guests may be left; anything else that is fails the test."""
        try:
            for daemon in self.daemons:
                daemon.stop()
            until(lambda: not self.helpers(), PATIENCE, "helpers to end by themselves")
            left = self.processes()
            strangers = {pid: command for pid, command in left.items() if "qemu" not in command.split()[0]}
            for pid in left:
                _kill(pid)
            until(lambda: not self.processes(), PATIENCE, "everything to be gone")
            assert not strangers, f"the daemon left processes behind: {strangers}"
        finally:
            if tell:
                for daemon in self.daemons:
                    print(daemon.log())
            shutil.rmtree(self.base, ignore_errors=True)

    def helpers(self) -> dict[int, str]:
        """Return the helpers that daemons have started for themselves: they end when their daemon has."""
        return {pid: command for pid, command in self.processes().items() if "-m supervdsm " in command}

    def processes(self) -> dict[int, str]:
        """Return the command lines, by pid, of the processes that have to do with this stage."""
        found = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and int(entry.name) != os.getpid():
                command = _command(entry)
                if f"{self.base}/" in command:
                    found[int(entry.name)] = command
        return found


def parent_of(pid: int) -> int:
    """Return the pid of its parent; 0 when it has ended."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[1])
    except OSError:
        return 0


def runs(pid: int) -> bool:
    """Say whether the process runs. One that has ended may stay for as long as its parent, whoever that is, does not look."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def _command(entry: Path) -> str:
    try:
        return (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return ""  # it has just ended


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
